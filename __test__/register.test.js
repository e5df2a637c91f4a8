'use strict';
// `node -r brood/register` and `--import`: who gets brood's functions, who does not, and that a
// program cannot tell otherwise.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { ROOT, runNode } = require('./helpers/run');

const REGISTER = path.join(ROOT, 'register.js');
const PERMISSION =
  Number(process.versions.node.split('.')[0]) >= 24 ? '--permission' : '--experimental-permission';

let folder;
beforeAll(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'brood-register-'));
});
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

/** Writes a program into the folder; returns its path. */
function program(name, source) {
  const file = path.join(folder, name);
  fs.writeFileSync(file, source);
  return file;
}

/** What the program prints as JSON. */
async function ask(args, options) {
  const { stdout, stderr, code } = await runNode(args, options);
  if (code !== 0) throw new Error(`ended with ${code}: ${stderr}`);
  return JSON.parse(stdout);
}

// brood's spawn is told by its file.
const IS_BROOD = `(cp) => Object.is(cp.spawn, require(${JSON.stringify(ROOT)}).spawn)`;

describe.each([
  ['-r', ['-r', REGISTER]],
  ['--import', ['--import', REGISTER]],
])('%s', (_, preload) => {
  test('gives brood to require, with and without node:', async () => {
    const file = program(
      'require.cjs',
      `const isBrood = ${IS_BROOD};
       console.log(JSON.stringify([require('child_process'), require('node:child_process')].map(isBrood)));`,
    );
    expect(await ask([...preload, file])).toEqual([true, true]);
    expect(await ask([file])).toEqual([false, false]);
  });

  test('gives brood to import, default and named, with and without node:', async () => {
    const file = program(
      'import.mjs',
      `import { createRequire } from 'node:module';
       import plain, { spawn, ChildProcess, execFileSync } from 'child_process';
       import prefixed, { spawn as prefixedSpawn } from 'node:child_process';
       import * as all from 'node:child_process';
       const brood = createRequire(import.meta.url)(${JSON.stringify(ROOT)});
       const dynamic = await import('child_process');
       console.log(JSON.stringify([
         plain.spawn === brood.spawn, spawn === brood.spawn, ChildProcess === brood.ChildProcess,
         execFileSync === brood.execFileSync, prefixed === plain, prefixedSpawn === brood.spawn,
         all.fork === brood.fork, dynamic.exec === brood.exec,
       ]));`,
    );
    expect(await ask([...preload, file])).toEqual(Array(8).fill(true));
    expect((await ask([file])).slice(0, 4)).toEqual(Array(4).fill(false));
  });
});

test('functions, classes and the cluster keep one identity', async () => {
  const file = program(
    'identity.cjs',
    `const cp = require('child_process');
     const brood = require(${JSON.stringify(ROOT)});
     const child = cp.spawn('true');
     console.log(JSON.stringify({
       functions: ['exec', 'execFile', 'execFileSync', 'execSync', 'fork', 'spawn', 'spawnSync']
         .map((name) => cp[name] === brood[name]),
       cluster: brood.cluster === require('cluster') && brood.cluster === require('node:cluster'),
       names: Object.keys(cp),
       instances: [child instanceof cp.ChildProcess, child instanceof brood.ChildProcess,
         child instanceof require('events'), child.constructor === cp.ChildProcess],
     }));`,
  );
  const found = await ask(['-r', REGISTER, file]);
  expect(found.functions).toEqual(Array(7).fill(true));
  expect(found.cluster).toBe(true);
  expect(found.instances).toEqual([true, true, true, true]);
  const names = JSON.parse(
    (await runNode(['-p', `JSON.stringify(Object.keys(require('child_process')))`])).stdout,
  );
  expect(found.names).toEqual(names);
});

test('children made before and after are instances of both classes', async () => {
  const file = program(
    'instances.cjs',
    `const cp = require('child_process');
     const Stock = cp.ChildProcess;
     const before = cp.spawn('true');
     require(${JSON.stringify(REGISTER)});
     const after = cp.spawn('true');
     console.log(JSON.stringify([Stock !== cp.ChildProcess, before instanceof Stock,
       after instanceof Stock, before instanceof cp.ChildProcess, after instanceof cp.ChildProcess]));`,
  );
  expect(await ask([file])).toEqual([true, true, true, true, true]);
});

test("a cluster's primary and workers are brood's", async () => {
  const file = program(
    'cluster.cjs',
    `const cluster = require('cluster');
     const http = require('http');
     const isBrood = ${IS_BROOD};
     if (cluster.isPrimary) {
       const workers = [cluster.fork(), cluster.fork()];
       const answers = [];
       let listening = 0;
       cluster.on('listening', (worker, { port }) => {
         if (++listening < 2) return;
         http.get({ port, agent: false }, (response) => {
           response.setEncoding('utf8').on('data', (text) => answers.push(text));
           response.on('end', () => cluster.disconnect());
         });
       });
       process.on('exit', () => console.log(JSON.stringify([
         isBrood(require('child_process')), ...answers,
         ...workers.map((worker) => worker.process.exitCode),
       ])));
     } else {
       http.createServer((request, response) => {
         response.end(String(isBrood(require('child_process')) && process.channel.constructor.name));
       }).listen(0);
     }`,
  );
  expect(await ask(['-r', REGISTER, file])).toEqual([true, 'Control', 0, 0]);
});

describe('stock Node stays in place, and one line under NODE_DEBUG=brood says why,', () => {
  const file = () =>
    program(
      'which.cjs',
      `console.log(String(require('child_process').spawn).includes('normalizeSpawnArguments'));`,
    );
  const LINE = /^BROOD \d+: Node's own child_process stays in place: (.*)$/;

  async function staysStock(args, env) {
    const quiet = await runNode(args, { env });
    expect(quiet).toMatchObject({ code: 0, stdout: 'true\n' });
    const { code, stdout, stderr } = await runNode(args, { env: { ...env, NODE_DEBUG: 'brood' } });
    expect({ code, stdout }).toEqual({ code: 0, stdout: 'true\n' });
    const lines = stderr.split('\n').filter((line) => line.startsWith('BROOD'));
    expect(lines.length).toBe(1);
    return { quiet: quiet.stderr, why: LINE.exec(lines[0])[1] };
  }

  test('with BROOD_DISABLE=1', async () => {
    const { quiet, why } = await staysStock(['-r', REGISTER, file()], { BROOD_DISABLE: '1' });
    expect(quiet).toBe('');
    expect(why).toBe('BROOD_DISABLE=1 is set');
  });

  test('when the addon is missing', async () => {
    const copy = path.join(folder, 'copy');
    for (const name of ['lib', 'index.js', 'register.js', 'package.json']) {
      fs.cpSync(path.join(ROOT, name), path.join(copy, name), { recursive: true });
    }
    const { quiet, why } = await staysStock(['-r', path.join(copy, 'register.js'), file()]);
    expect(quiet).toBe('');
    expect(why).toBe(
      `brood's addon is not built: install Rust and run "npm run build" in ${copy}.`,
    );
    const { code, stderr } = await runNode(['-e', `require(${JSON.stringify(copy)})`]);
    expect(code).toBe(1);
    expect(stderr).toMatch('ERR_BROOD_NOT_BUILT');
  });

  test('under the permission model without --allow-addons', async () => {
    const args = [PERMISSION, '--allow-fs-read=*', '-r', REGISTER, file()];
    expect((await staysStock(args)).why).toMatch(/run Node with --allow-addons\.$/);
  });
});

test('NODE_OPTIONS reaches grandchildren, -r the children that fork() makes', async () => {
  // Each prints whether it has brood and starts the next: by fork, then by a plain spawn.
  const file = program(
    'generations.cjs',
    `const cp = require('child_process');
     const isBrood = ${IS_BROOD};
     const [generation = 'first'] = process.argv.slice(2);
     console.log(generation, isBrood(cp));
     if (generation === 'first') cp.fork(__filename, ['second']);
     if (generation === 'second') {
       cp.spawn(process.execPath, [__filename, 'third'], { stdio: 'inherit' });
       if (process.connected) process.disconnect();
     }`,
  );
  const lines = async (args, env) => (await runNode([...args, file], { env })).stdout.split('\n');
  const options = { NODE_OPTIONS: `--require=${REGISTER}` };
  expect(await lines([], options)).toEqual(['first true', 'second true', 'third true', '']);
  expect(await lines(['-r', REGISTER])).toEqual(['first true', 'second true', 'third false', '']);
  expect(await lines([])).toEqual(['first false', 'second false', 'third false', '']);
});

test.each([
  ["its channel, which it offers, becomes brood's", '{}', true],
  ['so does its channel without an offer', '{ upgrade: false }', false],
])("a child's module stays stock when both only require brood; %s", async (_, options, isTaken) => {
  const file = program(
    'plain.cjs',
    `const brood = require(${JSON.stringify(ROOT)});
     const cp = require('child_process');
     if (process.argv[2] === undefined) {
       brood.fork(__filename, ['child'], ${options}).on('message', (child) => {
         console.log(JSON.stringify([cp.spawn === brood.spawn, ...child]));
       });
     } else {
       const channel = process.channel;
       process.send([cp.spawn === brood.spawn, process.channel === channel, 'sendAsync' in process]);
     }`,
  );
  expect(await ask([file])).toEqual([false, false, true, isTaken]);
});

test('adoptChannel() gives a child the channel of brood, once', async () => {
  const file = program(
    'adopt.cjs',
    `const brood = require(${JSON.stringify(ROOT)});
     if (process.argv[2] === undefined) {
       console.log(brood.adoptChannel());
       const child = brood.fork(__filename, ['child'], { upgrade: false });
       child.on('message', (message) => {
         console.log(JSON.stringify(message));
         child.send('end');
       });
       child.on('close', (code) => console.log(code));
     } else {
       const before = typeof process.sendAsync;
       const adopted = [brood.adoptChannel(), brood.adoptChannel()];
       process.on('message', () => process.disconnect());
       process.sendAsync([before, ...adopted]);
     }`,
  );
  const { stdout } = await runNode([file]);
  expect(stdout).toBe('false\n["undefined",true,false]\n0\n');
});

test.each([
  ['ends by itself', 'console.log("out"); console.error("err");'],
  ['sets its exit code', 'process.exitCode = 3; console.log("out");'],
  ['exits', 'process.on("exit", (code) => console.log("exit", code)); process.exit(4);'],
  [
    'throws',
    'process.on("exit", (code) => console.log("exit", code)); throw new Error("on purpose");',
  ],
  ['rejects', 'console.log("out"); Promise.reject(new Error("on purpose"));'],
  ['is killed', 'process.kill(process.pid, "SIGTERM"); setInterval(() => {}, 1000);'],
])('preloading changes nothing of a program that %s', async (_, source) => {
  const file = program('program.cjs', source);
  const stock = await runNode([file]);
  const brood = await runNode(['-r', REGISTER, file]);
  expect({ ...brood, stderr: brood.stderr.replace(/^ {4}at .*\n/gm, '') }).toEqual({
    ...stock,
    stderr: stock.stderr.replace(/^ {4}at .*\n/gm, ''),
  });
});

test('preloading does not load what a primary needs', async () => {
  const source = `
    const loaded = Object.keys(require.cache).join();
    console.log(loaded.includes('lib/cluster/face.js'), loaded.includes('lib/cluster/primary.js'));`;
  const file = program('little.cjs', source);
  expect((await runNode(['-r', REGISTER, file])).stdout).toBe('true false\n');
});
