'use strict';
// fork(): how the child's command line and streams come about. Messages are tested in ../ipc.

const { once } = require('node:events');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { pathToFileURL } = require('node:url');
const { brood, expectAlike, recordEvents, stock, textOf } = require('./side_by_side');

const BROOD = JSON.stringify(path.resolve(__dirname, '../..'));
let directory;
let report;

beforeAll(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'brood-fork-'));
  report = path.join(directory, 'report.js');
  fs.writeFileSync(
    report,
    `const { argv, execArgv, execPath, connected } = process;
     const channel = Object.keys(process.env).filter((key) => /^NODE_CHANNEL/.test(key));
     console.log(JSON.stringify({ argv, execArgv, execPath, connected, channel, mark: process.env.MARK }));
     process.disconnect?.();`,
  );
});

afterAll(() => fs.rmSync(directory, { recursive: true }));

async function reported(child) {
  const [text] = await Promise.all([textOf(child.stdout), once(child, 'close')]);
  return JSON.parse(text);
}

const silent = { silent: true };

test('the module gets its arguments, and a channel it does not see in its environment', async () => {
  const { argv, connected, channel } = await expectAlike((cp) =>
    reported(cp.fork(report, ['a', 'b c'], silent)),
  );
  expect(argv.slice(1)).toEqual([report, 'a', 'b c']);
  expect([connected, channel]).toEqual([true, []]);
});

test('a file: URL, other flags, another environment', () =>
  expectAlike((cp) =>
    reported(
      cp.fork(pathToFileURL(report), {
        ...silent,
        execArgv: ['--no-warnings'],
        env: { MARK: 'x' },
      }),
    ),
  ));

test('arguments may be left out or be null', () =>
  expectAlike(async (cp) => [
    await reported(cp.fork(report, silent)),
    await reported(cp.fork(report, null, silent)),
    await reported(cp.fork(report, undefined, silent)),
  ]));

test('streams are those of the parent unless silent or said otherwise', () =>
  expectAlike(async (cp) => {
    const streams = [];
    for (const options of [
      silent,
      { stdio: 'ignore' },
      { stdio: ['ignore', 'pipe', 'pipe', 'ipc'] },
    ]) {
      const child = cp.fork(report, options);
      streams.push(child.stdio.map((stream) => stream !== null));
      child.stdout?.resume();
      await once(child, 'close');
    }
    return streams;
  }));

test('events come in the order of Node', async () => {
  const events = await expectAlike(async (cp) =>
    (await recordEvents(cp.fork(report, silent))).map(([name]) => name),
  );
  expect(events).toContain('disconnect');
});

test.each([
  ['stock', []],
  ['brood', ['-r', `${path.resolve(__dirname, '../..')}/register.js`]],
])(
  "'exit' comes after the last messages and 'disconnect', also in a parent that is busy: a %s child",
  async (_, execArgv) => {
    // Not compared with Node, where the end of the channel may be seen a turn after the exit.
    const script = 'for (let n = 0; n < 50; n++) process.send(n); process.exit(3)';
    const child = brood.fork('-e', [script], { execPath: process.execPath, execArgv });
    let got = 0;
    child.on('message', () => got++);
    const log = [];
    child.on('disconnect', () => log.push('disconnect', got));
    child.on('exit', (code) => log.push('exit', code, got, child.connected));
    const end = Date.now() + 500;
    while (Date.now() < end);
    await once(child, 'close');
    expect(log).toEqual(['disconnect', 50, 'exit', 3, 50, false]);
  },
);

test('a module that does not exist is the exit of the child, not an error here', () =>
  expectAlike(async (cp) => {
    const child = cp.fork(path.join(directory, 'none.js'), silent);
    child.stderr.resume();
    const events = await recordEvents(child);
    return events.filter(([name]) => name !== 'disconnect');
  }));

test('envPairs, a name of Node’s own, means nothing in the options', () =>
  expectAlike((cp) => reported(cp.fork(report, { ...silent, envPairs: ['MARK=x'] }))));

test('code given to node -e is not run again by what it forks', async () => {
  const code = (name) =>
    `require(${name}).fork(${JSON.stringify(report)}, ['x']).on('exit', (code) => process.exit(code))`;
  const run = (name) =>
    reported(stock.spawn(process.execPath, ['--no-warnings', '-e', code(name)]));
  const ours = await run(BROOD);
  expect(ours).toEqual(await run('"node:child_process"'));
  expect(ours.execArgv).toEqual(['--no-warnings']);
});

test('the first fork of a process without a free descriptor fails as in Node, and a later one works', async () => {
  const code = (name) => `
    const fs = require('node:fs');
    const cp = require(${name});
    cp.spawn('true').on('exit', () => {
      const held = [];
      try { for (;;) held.push(fs.openSync('/dev/null')); } catch {}
      const child = cp.fork(${JSON.stringify(report)});
      child.on('error', (error) => {
        held.forEach((fd) => fs.closeSync(fd));
        console.log(error.code, error.message, child.stdio, child.connected);
        cp.fork(${JSON.stringify(report)}, { silent: true }).on('exit', (code) => console.log(code));
      });
    });`;
  const limited = (name) => {
    const command = 'ulimit -n 100; exec "$0" -e "$1"';
    return String(stock.execFileSync('/bin/sh', ['-c', command, process.execPath, code(name)]));
  };
  expect(limited(BROOD)).toBe(limited('"node:child_process"'));
});

test('a channel that cannot be watched is thrown, and the child is ended and reaped', async () => {
  // The kernel refuses that only when it is out of memory, so the addon is made to say it here.
  const code = `
    const fs = require('node:fs');
    const cp = require(${BROOD});
    const binding = require(${JSON.stringify(path.resolve(__dirname, '../../lib/binding'))});
    const child = new cp.ChildProcess();
    const { channelOpen } = binding;
    let pid;
    binding.channelOpen = (owner, fd) => {
      pid = child.pid;
      binding.closeDescriptor(fd);
      return -28;
    };
    for (const name of ['spawn', 'exit', 'error', 'close']) child.on(name, () => console.log(name));
    let message;
    try {
      child.spawn({ file: '/bin/sleep', args: ['sleep', '100'], stdio: ['pipe', 'ignore', 'ignore', 'ipc'] });
    } catch (error) {
      ({ message } = error);
    }
    binding.channelOpen = channelOpen;
    console.log(message, child.pid, child.kill());
    const isThere = () => fs.existsSync('/proc/' + pid);
    const timer = setInterval(() => {
      if (isThere()) return;
      clearInterval(timer);
      console.log('reaped');
    }, 1);`;
  const said = stock.execFileSync(process.execPath, ['-e', code], { encoding: 'utf8' });
  expect(said).toBe('open ENOSPC undefined false\nreaped\n');
});
