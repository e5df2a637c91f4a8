'use strict';
// Each scheduling policy in a real cluster, by who gets which connection. The statistics come from
// bench/distribution.js, whose tables are in the documentation.

const net = require('node:net');
const { once } = require('node:events');
const { WORKERS, startCluster, stopClusters } = require('../helpers/cluster');
const { ROOT, fixture, runNode } = require('../helpers/run');

const POLICIES = ['rr', 'rr-strict', 'least-connections', 'power-of-two', 'sticky'];
const BROOD = WORKERS[1][1];

// A connection that a worker does not come to for a while, on a busy machine, goes to another: this
// many may, except where the policy waits for its worker.
const ASTRAY = 4;

let cluster;
let port;
const held = [];

/** Starts workers with these weights; resolves when all of them listen. */
async function start(policy, weights, execArgv = BROOD) {
  ({ cluster } = startCluster({ exec: fixture('cluster-server.js'), execArgv }));
  cluster.setScheduler(policy);
  const workers = weights.map((weight) => Object.assign(cluster.fork(), { weight }));
  const listening = await Promise.all(workers.map((worker) => once(worker, 'listening')));
  ({ port } = listening[0][0]);
  return workers;
}

afterEach(async () => {
  await Promise.all(held.splice(0).map(leave));
  await stopClusters();
});

/** Connects and resolves with the socket and the id of the worker that answers. */
async function connect(localAddress = '127.0.0.1') {
  const socket = net.connect({ port, host: '127.0.0.1', localAddress });
  const [id] = await once(socket, 'data');
  return { socket, id: Number(id) };
}

async function leave({ socket }) {
  const closed = once(socket, 'close');
  socket.end();
  await closed;
}

/** The id of the worker that serves a short connection. */
async function ask(localAddress) {
  const connection = await connect(localAddress);
  await leave(connection);
  return connection.id;
}

/** Opens a connection that stays; resolves with the id of its worker. */
async function hold() {
  const connection = await connect();
  held.push(connection);
  return connection.id;
}

async function repeat(count, work) {
  const results = [];
  for (let i = 0; i < count; i++) results.push(await work(i));
  return results;
}

/** How often each worker's id is among `ids`. */
function tally(workers, ids) {
  return workers.map((worker) => ids.filter((id) => id === worker.id).length);
}

function expectNearly(counts, expected) {
  const off = counts.map((count, i) => Math.abs(count - expected[i]));
  expect({ counts, isNear: Math.max(...off) <= ASTRAY }).toEqual({ counts, isNear: true });
}

const statsOf = ({ id }) => cluster.stats().find((stats) => stats.id === id);

/** Resolves once `condition()` holds, which the primary is told of by nothing but its statistics. */
async function until(condition) {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 10));
}

describe.each(WORKERS)('with %s', (_, execArgv) => {
  test('strict round robin gives every worker its exact share', async () => {
    const workers = await start('rr-strict', [1, 2, 1], execArgv);
    const ids = await Promise.all(Array.from({ length: 10 }, () => repeat(80, () => ask())));
    const [first, second, third] = tally(workers, ids.flat());
    expect(Math.abs(second - 400)).toBeLessThanOrEqual(4);
    expect(Math.abs(first - 200)).toBeLessThanOrEqual(2);
    expect(Math.abs(third - 200)).toBeLessThanOrEqual(2);
  });

  test('round robin follows the weights, also when they change', async () => {
    const workers = await start('rr', [1, 1], execArgv);
    expectNearly(tally(workers, await repeat(100, () => ask())), [50, 50]);
    workers[0].weight = 3;
    expectNearly(tally(workers, await repeat(100, () => ask())), [75, 25]);
  });

  test.each(POLICIES)('%s gives a draining worker nothing', async (policy) => {
    const workers = await start(policy, [1, 1, 1], execArgv);
    workers[1].draining = true;
    const address = (i) => `127.0.1.${i + 1}`;
    const ids = await repeat(60, (i) => ask(address(i)));
    expect(tally(workers, ids)[1]).toBe(0);
    workers[1].draining = false;
    const later = await repeat(60, (i) => ask(address(i)));
    expect(tally(workers, later)[1]).toBeGreaterThan(0);
  });

  test('sticky sends an address to one worker only, and spreads addresses over all', async () => {
    const workers = await start('sticky', [1, 1, 1], execArgv);
    const homes = await repeat(100, (i) => ask(`127.0.2.${i + 1}`));
    const again = await repeat(100, (i) => ask(`127.0.2.${i + 1}`));
    expect(again).toEqual(homes);
    for (const count of tally(workers, homes)) expect(count).toBeGreaterThan(10);
  });

  test('of a worker that leaves only the clients move', async () => {
    const workers = await start('sticky', [1, 1, 1], execArgv);
    const homes = await repeat(100, (i) => ask(`127.0.2.${i + 1}`));
    const [leaver] = workers;
    leaver.disconnect();
    await once(leaver, 'exit');
    const later = await repeat(100, (i) => ask(`127.0.2.${i + 1}`));
    const moved = later.filter((id, i) => id !== homes[i]);
    expect(tally(workers, later)[0]).toBe(0);
    expect(moved).toHaveLength(tally(workers, homes)[0]);
  });
});

test('least connections avoids the worker that holds long ones', async () => {
  const [busy, idle] = await start('least-connections', [1, 1]);
  idle.draining = true;
  await repeat(20, hold);
  await until(() => statsOf(busy).inFlight === 20);
  idle.draining = false;
  expectNearly(tally([busy, idle], await repeat(20, hold)), [0, 20]);
  await repeat(20, hold);
  const all = held.map(({ id }) => id);
  expectNearly(tally([busy, idle], all), [30, 30]);
});

test('least connections gives twice as many open ones to the worker of twice the weight', async () => {
  const workers = await start('least-connections', [2, 1]);
  expectNearly(tally(workers, await repeat(60, hold)), [40, 20]);
});

test('power of two avoids a worker whose event loop is saturated', async () => {
  const workers = await start('power-of-two', [1, 1]);
  workers[0].send('work');
  await until(() => statsOf(workers[0]).eventLoopUtilization > 0.9);
  // Open connections do not outweigh it.
  await repeat(5, hold);
  expectNearly(tally(workers, await repeat(100, () => ask())), [0, 100]);
});

test('a policy can be changed while connections are served', async () => {
  const workers = await start('sticky', [1, 1]);
  const home = await ask();
  expect(new Set(await repeat(20, () => ask()))).toEqual(new Set([home]));
  cluster.setScheduler('rr');
  expectNearly(tally(workers, await repeat(40, () => ask())), [20, 20]);
});

describe('distributions', () => {
  const EQUAL = [25, 25, 25, 25];
  const WEIGHTED = [50, 25, 12.5, 12.5];
  let results;

  beforeAll(async () => {
    const { stdout } = await runNode([`${ROOT}/bench/distribution.js`, '--json'], {
      limit: 120000,
    });
    results = JSON.parse(stdout);
  }, 130000);

  /** The largest distance of a share from what is due, in parts of that. */
  function error(policy, kind, shares, due) {
    const result = results.find((one) => {
      return (
        one.policy === policy && one.kind === kind && (one.weights[0] === 1) === (due === EQUAL)
      );
    });
    return Math.max(...result[shares].map((share, i) => Math.abs(share - due[i]) / due[i]));
  }

  const both = [
    ['equal weights', EQUAL],
    ['different weights', WEIGHTED],
  ];

  describe.each(both)('%s', (_, due) => {
    test.each(['short', 'long', 'uneven'])('%s connections, strict: exact numbers', (kind) => {
      expect(error('rr-strict', kind, 'got', due)).toBeLessThan(0.01);
    });

    test.each(['short', 'long', 'uneven'])('%s connections, rr: numbers by weight', (kind) => {
      expect(error('rr', kind, 'got', due)).toBeLessThan(0.1);
    });

    test.each(['long', 'uneven'])(
      '%s connections, least-connections: equally many open',
      (kind) => {
        expect(error('least-connections', kind, 'open', due)).toBeLessThan(0.15);
      },
    );

    test.each(['long', 'uneven'])('%s connections, power-of-two: about as many open', (kind) => {
      expect(error('power-of-two', kind, 'open', due)).toBeLessThan(0.35);
    });

    test.each(['short', 'long', 'uneven'])('%s connections, sticky: clients by weight', (kind) => {
      // Clients fall to workers by chance: five standard deviations of the smallest share.
      const clients = kind === 'long' ? 400 : 2000;
      const share = Math.min(...due) / 100;
      const chance = 5 * Math.sqrt((1 - share) / (share * clients));
      expect(error('sticky', kind, 'got', due)).toBeLessThan(chance);
    });
  });

  test('turns among four put every fourth connection, if long, into one worker', () => {
    expect(error('rr-strict', 'uneven', 'open', EQUAL)).toBeGreaterThan(2);
  });
});
