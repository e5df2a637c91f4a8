'use strict';
// The option `background`: a start by another thread is, but for its moment, a start like any other.

const { AsyncLocalStorage } = require('node:async_hooks');
const { once } = require('node:events');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { promisify } = require('node:util');
const { expectNoLeaks } = require('../helpers/leaks');
const { fixture, runNode } = require('../helpers/run');
const { startedProcesses } = require('../helpers/system');
const { brood, describeError, recordEvents, textOf } = require('./side_by_side');

const BROOD = JSON.stringify(path.resolve(__dirname, '../..'));
const NOWHERE = '/no/such/program';
const background = true;

const closed = (child) => once(child, 'close');
const sh = (code, options) => brood.spawn('/bin/sh', ['-c', code], { background, ...options });
let directory;

async function said(child) {
  const [text] = await Promise.all([textOf(child.stdout), closed(child)]);
  return text;
}

/** Runs `code` in a Node of its own, with `cp` and `fs`; resolves with what it printed. */
async function printed(code) {
  const program = `const fs = require('node:fs'); const cp = require(${BROOD}); ${code}`;
  const { stdout, stderr } = await runNode(['-e', program], { cwd: directory });
  expect(stderr).toBe('');
  return stdout;
}

beforeAll(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'brood-background-'));
});

afterAll(() => fs.rmSync(directory, { recursive: true }));

test('the process is there from the event spawn on; events are those of any start', async () => {
  const child = sh('exit 3');
  expect(child.pid).toBeUndefined();
  let pid;
  child.on('spawn', () => ({ pid } = child));
  const events = await recordEvents(child);
  expect(pid).toBeGreaterThan(0);
  expect(child.pid).toBe(pid);
  expect(events).toEqual(await recordEvents(brood.spawn('/bin/sh', ['-c', 'exit 3'])));
});

test.each([
  ['a program that is not there', NOWHERE, {}],
  ['a directory that is not there', '/bin/true', { cwd: NOWHERE }],
  ['a file that is no program', '/etc/passwd', {}],
])('%s is the same error as otherwise', async (name, file, options) => {
  const attempt = async (more) => {
    const child = brood.spawn(file, ['x'], { ...options, ...more });
    const end = new Promise((resolve) => child.on('close', (...args) => resolve(args)));
    const [error] = await once(child, 'error');
    return [describeError(error), await end, child.pid, child.exitCode, child.kill()];
  };
  expect(await attempt({ background })).toEqual(await attempt({}));
});

test('what is otherwise thrown is an error event, also when it is known at once', async () => {
  const long = brood.spawn('true', ['x'.repeat(3e6)], { background });
  expect((await once(long, 'error'))[0]).toMatchObject({ code: 'E2BIG', syscall: 'spawn true' });
  const unopened = brood.spawn('true', { background, stdio: ['ignore', 'ignore', 987654] });
  expect((await once(unopened, 'error'))[0]).toMatchObject({ code: 'EBADF' });
});

test('arguments are checked at once', () => {
  expect(() => brood.spawn('true', { background: 1 })).toThrow('options.background');
  expect(() => brood.spawn('a\0b', { background })).toThrow(
    expect.objectContaining({ code: 'ERR_INVALID_ARG_VALUE' }),
  );
});

test('the child has the environment, directory and descriptors of the call', async () => {
  const file = path.join(directory, 'given');
  fs.writeFileSync(file, 'text');
  const output = await printed(`
    const fd = fs.openSync(${JSON.stringify(file)});
    process.env.MARK = 'before';
    const child = cp.spawn('/bin/sh', ['-c', 'echo $MARK $(pwd) $(cat)'], {
      background: true, stdio: [fd, 'inherit', 'inherit'],
    });
    const relative = cp.spawn('/bin/sh', ['-c', 'pwd'], {
      background: true, stdio: 'inherit', cwd: '..',
    });
    fs.closeSync(fd);
    process.env.MARK = 'after';
    process.chdir('/');`);
  const lines = output.trim().split('\n').sort();
  const real = fs.realpathSync(directory);
  expect(lines).toEqual([path.dirname(real), `before ${real} text`].sort());
});

test('the child is scheduled as any other', async () => {
  const policy = 'cut -d " " -f 18,19,41 /proc/self/stat';
  const expected = await said(brood.spawn('/bin/sh', ['-c', policy]));
  expect(await said(sh(policy))).toBe(expected);
  expect(await said(sh(policy, { dieWithParent: true }))).toBe(expected);
});

test('a signal sent before the process is there reaches it', async () => {
  const child = brood.spawn('/bin/sleep', ['100'], { background, stdio: 'ignore' });
  expect(child.kill('SIGINT')).toBe(true);
  expect(child.killed).toBe(true);
  expect(await closed(child)).toEqual([null, 'SIGINT']);
  expect(child.kill()).toBe(false);
});

test('a signal reaches a process of whose start nobody has heard yet', async () => {
  const [first, second] = ['0', '100'].map((time) =>
    brood.spawn('/bin/sleep', [time], { background, stdio: 'ignore' }),
  );
  first.on('spawn', () => second.kill());
  // The event loop stands still until the second runs its program.
  while (![...startedProcesses().values()].includes('/bin/sleep 100'));
  expect(await closed(second)).toEqual([null, 'SIGTERM']);
});

test('killTree and an AbortSignal may come before the process, too', async () => {
  const child = brood.spawn('/bin/sleep', ['100'], { background, stdio: 'ignore' });
  expect(brood.killTree(child)).toBe(1);
  expect(await closed(child)).toEqual([null, 'SIGTERM']);

  const controller = new AbortController();
  const { signal } = controller;
  const aborted = brood.spawn('/bin/sleep', ['100'], { background, stdio: 'ignore', signal });
  const failed = once(aborted, 'error');
  const ended = new Promise((resolve) => aborted.once('exit', (...end) => resolve(end)));
  controller.abort();
  expect((await failed)[0].name).toBe('AbortError');
  expect(await ended).toEqual([null, 'SIGTERM']);
});

test('exec, execFile and their promises take it', async () => {
  const exec = promisify(brood.exec);
  expect((await exec('echo $0', { background })).stdout).toBe('/bin/sh\n');
  const execFile = promisify(brood.execFile);
  await expect(execFile(NOWHERE, { background })).rejects.toMatchObject({ code: 'ENOENT' });
  await expect(execFile('sh', ['-c', 'exit 4'], { background })).rejects.toMatchObject({ code: 4 });
});

test('a fork has its channel at once', async () => {
  const child = brood.fork(fixture('echo.js'), { background });
  child.send('early');
  expect(child.connected).toBe(true);
  expect((await once(child, 'message'))[0]).toBe('early');
  child.disconnect();
  expect(await closed(child)).toEqual([0, null]);
});

test('the async context of the call is that of the events', async () => {
  const storage = new AsyncLocalStorage();
  const seen = [];
  const child = storage.run('mine', () => sh('exit 0'));
  for (const name of ['spawn', 'exit']) child.on(name, () => seen.push(name, storage.getStore()));
  await closed(child);
  expect(seen).toEqual(['spawn', 'mine', 'exit', 'mine']);
});

test('a process that ends at once has started its children all the same', async () => {
  await printed(`
    for (let i = 0; i < 20; i++) {
      cp.spawn('/bin/sh', ['-c', 'echo >> started'], { background: true, stdio: 'ignore' });
    }
    process.exit();`);
  const started = path.join(directory, 'started');
  while (!fs.existsSync(started) || fs.readFileSync(started, 'utf8').length < 20) {
    await new Promise(setImmediate);
  }
});

test('a start that is not waited for does not keep the process', async () => {
  expect(
    await printed(`
      const child = cp.spawn('/bin/sleep', ['100'], { background: true, stdio: 'ignore' });
      child.unref();
      child.ref();
      child.unref();
      child.on('exit', () => console.log('exit'));
      process.on('exit', () => child.kill() && console.log('end'));`),
  ).toBe('end\n');
});

test('a thread may end while its children are being started', async () => {
  const text = await printed(`
    const { Worker } = require('node:worker_threads');
    const code = \`
      const cp = require(${BROOD});
      for (let i = 0; i < 20; i++) cp.spawn('true', { background: true });
      process.exit();\`;
    let left = 5;
    const next = () => {
      if (left-- === 0) return console.log('done', cp.diagnostics().counters.children);
      new Worker(code, { eval: true }).on('exit', next);
    };
    next();`);
  expect(text).toBe('done 0\n');
});

test('a hundred of them leave no descriptor and no process behind', () =>
  expectNoLeaks(async () => {
    const children = Array.from({ length: 100 }, (_, i) =>
      i % 10 === 0 ? brood.spawn(NOWHERE, { background }) : sh(`exit ${i % 7}`),
    );
    for (const child of children) child.on('error', () => {});
    const ends = await Promise.all(
      children.map((child) => new Promise((resolve) => child.on('close', resolve))),
    );
    expect(ends).toEqual(children.map((_, i) => (i % 10 === 0 ? -2 : i % 7)));
  }));
