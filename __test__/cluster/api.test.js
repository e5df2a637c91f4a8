'use strict';
// node:cluster's names, events and their order: the same program under stock Node, with brood's
// cluster in its place, and under register says the same.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { ROOT, runNode } = require('../helpers/run');

const REGISTER = path.join(ROOT, 'register.js');

let folder;
beforeAll(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'brood-cluster-'));
});
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

let programs = 0;

/** Writes a program; `cluster` and `say` are there. Lines said are compared. */
function program(source, require = `require('node:cluster')`) {
  const file = path.join(folder, `program-${++programs}.cjs`);
  const say = `const say = (...words) => console.log(JSON.stringify(words));`;
  fs.writeFileSync(file, `const cluster = ${require};\n${say}\n${source}`);
  return file;
}

/** What a program says on stock Node; fails unless it says the same with brood. */
async function expectSame(source, { args = [], env } = {}) {
  const stock = await runNode([...args, program(source)], { env });
  const ways = {
    'in its place': [program(source, `require(${JSON.stringify(`${ROOT}/cluster.js`)})`)],
    register: ['-r', REGISTER, program(source)],
  };
  expect(stock.stdout).not.toBe('');
  for (const [way, command] of Object.entries(ways)) {
    const { stdout, code } = await runNode([...args, ...command], { env });
    expect({ way, stdout, code }).toEqual({ way, stdout: stock.stdout, code: stock.code });
  }
}

const LOG = `
  const log = (emitter, name, events) => events.forEach((event) => emitter.on(event, (...args) =>
    say(name, event, ...args.map((a) => a?.process ? ['worker', a.id, a.state,
      a.exitedAfterDisconnect] : a))));
  const EVENTS = ['setup', 'fork', 'online', 'listening', 'message', 'disconnect', 'exit'];
  const withoutPort = (info) => ({ ...info, port: typeof info.port });
`;

test('the events of a worker that listens, speaks and is sent away', () =>
  expectSame(`
    ${LOG}
    if (cluster.isPrimary) {
      for (const event of EVENTS) cluster.on(event, (...args) => say('cluster', event,
        args[0]?.id, args[0]?.state, args[0]?.exitedAfterDisconnect, typeof args[1]));
      const worker = cluster.fork();
      say(worker.id, worker.state, worker.exitedAfterDisconnect, worker.isConnected(),
        worker.isDead(), Object.keys(cluster.workers));
      for (const event of EVENTS) worker.on(event, (first) => say('worker', event, worker.state,
        event === 'listening' ? withoutPort(first) : first));
      worker.on('message', () => { say(worker.disconnect() === worker, Object.keys(cluster.workers)); });
      worker.on('exit', (...how) => say(how, worker.isConnected(), worker.isDead()));
    } else {
      require('net').createServer().listen(0, () => process.send('hello'));
    }`));

test.each([
  ['leaves', 'cluster.worker.disconnect()'],
  ['kills itself', 'cluster.worker.kill()'],
  ['hangs up', 'process.disconnect()'],
  ['exits', 'process.exit(5)'],
  ['throws', 'console.error = 0; process.on("uncaughtException", () => process.exit(7)); throw 1'],
  ['is killed', 'process.kill(process.pid, "SIGKILL")'],
])('the events of a worker that %s', (_, end) =>
  expectSame(`
    ${LOG}
    if (cluster.isPrimary) {
      const worker = cluster.fork();
      const said = [];
      for (const event of ['disconnect', 'exit']) {
        worker.on(event, (...how) => said.push([event, ...how, worker.exitedAfterDisconnect]));
      }
      // Whether a process or its channel ends first is not always the same.
      process.on('exit', () => say(said.sort(), Object.keys(cluster.workers)));
    } else ${end};`),
);

test.each(['kill', 'destroy'])('worker.%s() in the primary', (method) =>
  expectSame(`
    if (cluster.isPrimary) {
      const worker = cluster.fork();
      worker.on('online', () => worker.${method}('SIGINT'));
      worker.on('exit', (...how) => say(how, worker.exitedAfterDisconnect));
    } else setInterval(() => {}, 1000);`),
);

test('setupPrimary: defaults, merging, and when its event comes', () =>
  expectSame(
    `
    say(cluster.settings, cluster.setupPrimary === cluster.setupMaster);
    cluster.on('setup', (settings) => say('setup', settings === cluster.settings, settings.exec.slice(-4)));
    cluster.setupPrimary();
    const { exec, execArgv, ...rest } = cluster.settings;
    say(typeof exec, rest, execArgv.includes('--logfile=v8-%p.log'));
    cluster.setupPrimary({ exec: 'a', silent: true });
    cluster.setupMaster({ args: ['x'] });
    say(cluster.settings.exec, cluster.settings.args, cluster.settings.silent);`,
    { args: ['--prof', '--logfile=/dev/null'] },
  ));

test('profiles of workers go to files of their own', () =>
  expectSame(`
    cluster.setupPrimary({ execArgv: ['--prof'] });
    say(cluster.settings.execArgv);
    cluster.setupPrimary({ execArgv: ['--prof', '--logfile=x'] });
    say(cluster.settings.execArgv);`));

test('the environment, arguments and directory of a worker', () =>
  expectSame(`
    if (cluster.isPrimary) {
      process.env.FROM_PRIMARY = 'yes';
      cluster.setupPrimary({ args: ['one', 'two'], cwd: '/', silent: true });
      const worker = cluster.fork({ EXTRA: 1 });
      worker.process.stdout.on('data', (text) => say(String(text)));
    } else {
      const { FROM_PRIMARY, EXTRA, NODE_UNIQUE_ID } = process.env;
      console.log(process.argv.slice(2), process.cwd(), FROM_PRIMARY, EXTRA, NODE_UNIQUE_ID,
        cluster.isWorker, cluster.isPrimary, cluster.isMaster, cluster.worker.id);
      process.disconnect();
    }`));

test.each([
  ['none are wanted', {}, []],
  ['the primary has one', {}, ['--inspect-port=0']],
  ['they are numbered', { inspectPort: 12345 }, ['--inspect-port=0']],
  ['a function chooses', 'counting', ['--inspect-port=0']],
  ['none is a port', { inspectPort: null }, []],
  ['one is too high', { inspectPort: 65536 }, ['--inspect-port=0']],
  ['one is no number', { inspectPort: 'port' }, ['--inspect-port=0']],
])('inspector ports of workers when %s', (_, settings, args) =>
  expectSame(
    `
    let last = 20000;
    const settings = ${JSON.stringify(settings)};
    cluster.setupPrimary({ exec: '/dev/null',
      ...(settings === 'counting' ? { inspectPort: () => ++last } : settings) });
    for (let i = 0; i < 2; i++) {
      try {
        const worker = cluster.fork();
        say(worker.process.spawnargs.filter((arg) => arg.startsWith('--inspect')));
        worker.process.kill('SIGKILL');
      } catch ({ name, code, message }) { say(name, code, message); }
    }`,
    { args },
  ),
);

test('cluster.disconnect(), with and without workers', () =>
  expectSame(`
    if (cluster.isPrimary) {
      cluster.disconnect(() => {
        say('nothing to do');
        for (let i = 0; i < 2; i++) cluster.fork();
        let listening = 0;
        cluster.on('listening', () => {
          if (++listening < 2) return;
          cluster.disconnect(() => say('all gone', Object.keys(cluster.workers)));
          say('asked');
        });
        cluster.on('exit', (worker, code) => say(code, worker.exitedAfterDisconnect));
      });
    } else require('net').createServer().listen(0);`));

test('Worker, without anything and without new', () =>
  expectSame(`
    const { Worker } = cluster;
    for (const worker of [new Worker(), Worker(), new Worker({ id: 3, state: 'x' }), new Worker(null)]) {
      say(worker.id, worker.state, worker.exitedAfterDisconnect, 'process' in worker,
        worker instanceof Worker, worker instanceof require('events'));
    }`));

test.each(['rr', 'none', 'nonsense', undefined])('NODE_CLUSTER_SCHED_POLICY=%s', (name) =>
  expectSame(`say(cluster.schedulingPolicy, cluster.SCHED_NONE, cluster.SCHED_RR);`, {
    env: name === undefined ? {} : { NODE_CLUSTER_SCHED_POLICY: name },
  }),
);

test('every name of a stock primary is there', () =>
  expectSame(`
    const names = ['isWorker', 'isMaster', 'isPrimary', 'Worker', 'workers', 'settings', 'fork',
      'SCHED_NONE', 'SCHED_RR', 'schedulingPolicy', 'setupPrimary', 'setupMaster', 'disconnect',
      'worker', 'on', 'emit'];
    say(names.map((name) => [name, typeof cluster[name], cluster[name]?.length]));`));

test('brood/cluster is the same object by require and by import', async () => {
  const file = path.join(folder, 'names.mjs');
  fs.writeFileSync(
    file,
    `import { createRequire } from 'node:module';
     import cluster, { fork, schedulingPolicy, SCHED_STICKY, settings, stats } from ${JSON.stringify(`${ROOT}/cluster.mjs`)};
     const brood = createRequire(import.meta.url)(${JSON.stringify(ROOT)});
     console.log(cluster === brood.cluster, fork === cluster.fork, SCHED_STICKY, stats().length,
       schedulingPolicy, settings === cluster.settings);`,
  );
  expect((await runNode([file])).stdout).toBe('true true 6 0 2 true\n');
});

test('under register there is one cluster, whichever way it is had', async () => {
  const file = path.join(folder, 'identity.mjs');
  fs.writeFileSync(
    file,
    `import { createRequire } from 'node:module';
     import cluster, { fork } from 'node:cluster';
     const require = createRequire(import.meta.url);
     const brood = require(${JSON.stringify(ROOT)});
     console.log(cluster === brood.cluster, cluster === require('cluster'), fork === cluster.fork,
       typeof cluster.stats);`,
  );
  expect((await runNode(['-r', REGISTER, file])).stdout).toBe('true true true function\n');
});

test('without register the built-in cluster stays as it is', async () => {
  const source = `
    const stock = require('node:cluster');
    const before = { ...stock };
    const { cluster } = require(${JSON.stringify(ROOT)});
    console.log(cluster !== stock, Object.keys(before).every((key) => before[key] === stock[key]),
      Object.keys(stock).length === Object.keys(before).length);`;
  expect((await runNode(['-e', source])).stdout).toBe('true true true\n');
});

test('in a worker brood.cluster is the built-in one', async () => {
  const file = program(`
    if (cluster.isPrimary) cluster.fork().on('message', (message) => say(message));
    else {
      process.send(require(${JSON.stringify(ROOT)}).cluster === cluster);
      process.disconnect();
    }`);
  expect((await runNode([file])).stdout).toBe('[true]\n');
});

test("the lane's offer is not handed down to what a worker starts", async () => {
  const file = program(
    `
    if (cluster.isPrimary) cluster.fork().on('message', (message) => say(message));
    else {
      require(${JSON.stringify(ROOT)});
      process.send('BROOD_CLUSTER' in process.env);
      process.disconnect();
    }`,
    `require(${JSON.stringify(ROOT)}).cluster`,
  );
  expect((await runNode([file])).stdout).toBe('[false]\n');
});
