'use strict';

// How each scheduling policy spreads connections over the workers of a real cluster: one after the
// other policy, real clients from many addresses. Prints the tables of docs/schedulers.md.
// `--json` for programs, `--stock` for workers without brood, `--only rr,sticky`.

const net = require('node:net');
const path = require('node:path');
const { once } = require('node:events');
const { parseArgs } = require('node:util');
const { cluster } = require('..');

const POLICIES = ['rr', 'rr-strict', 'least-connections', 'power-of-two', 'sticky'];
const EQUAL = [1, 1, 1, 1];
const WEIGHTED = [4, 2, 1, 1];

// How many connections there are, how many are opened at a time, which of them stay open, and for
// how many connections to come. Every fourth of the uneven ones stays: the worst case for taking
// turns among four.
const KINDS = {
  short: { connections: 2000, atOnce: 8, staysFor: () => 0 },
  long: { connections: 400, atOnce: 8, staysFor: () => Infinity },
  uneven: { connections: 2000, atOnce: 1, staysFor: (number) => (number % 4 === 0 ? 400 : 0) },
};

/** Connects as the client with this number; resolves when the worker has said who it is. */
async function connect(port, number) {
  const localAddress = `127.1.${(number >> 8) & 255}.${number & 255}`;
  const socket = net.connect({ port, host: '127.0.0.1', localAddress });
  const [id] = await once(socket, 'data');
  return { worker: Number(id), socket };
}

async function close({ socket }) {
  const closed = once(socket, 'close');
  socket.end();
  await closed;
}

/** Which part of all connections each worker got, and of those open at a time, in percent. */
async function measure(port, workers, { connections, atOnce, staysFor }) {
  const got = new Map(workers.map(({ id }) => [id, 0]));
  const open = new Map(got);
  const staying = new Set();
  let next = 0;

  async function client() {
    while (next < connections) {
      const number = next++;
      const connection = await connect(port, number);
      got.set(connection.worker, got.get(connection.worker) + 1);
      if (staysFor(number) === 0) await close(connection);
      else staying.add({ ...connection, until: number + staysFor(number) });
      for (const one of staying) {
        open.set(one.worker, open.get(one.worker) + 1);
        if (one.until > number) continue;
        staying.delete(one);
        await close(one);
      }
    }
  }

  await Promise.all(Array.from({ length: atOnce }, client));
  await Promise.all([...staying].map(close));
  return { got: percent(got), open: percent(open) };
}

function percent(counts) {
  const all = [...counts.values()].reduce((sum, count) => sum + count, 0);
  return [...counts.values()].map((count) => (all === 0 ? 0 : (100 * count) / all));
}

async function start(policy, weights, execArgv) {
  cluster.setupPrimary({ exec: path.join(__dirname, 'children', 'served.js'), execArgv });
  cluster.setScheduler(policy);
  const workers = weights.map((weight) => Object.assign(cluster.fork(), { weight }));
  const listening = await Promise.all(workers.map((worker) => once(worker, 'listening')));
  return { workers, port: listening[0][0].port };
}

async function measurePolicy(policy, weights, execArgv) {
  const { workers, port } = await start(policy, weights, execArgv);
  const results = [];
  for (const [kind, work] of Object.entries(KINDS)) {
    results.push({ policy, weights, kind, ...(await measure(port, workers, work)) });
  }
  const exits = workers.map((worker) => once(worker, 'exit'));
  cluster.disconnect();
  await Promise.all(exits);
  return results;
}

const shown = (shares) => shares.map((share) => share.toFixed(1)).join(' ');

function table(results) {
  const head = ['policy', 'short', 'long', 'uneven', 'uneven: open at a time'];
  const rows = [...new Set(results.map(({ policy }) => policy))].map((policy) => {
    const of = (kind) => results.find((one) => one.policy === policy && one.kind === kind);
    const got = Object.keys(KINDS).map((kind) => shown(of(kind).got));
    return [`\`${policy}\``, ...got, shown(of('uneven').open)];
  });
  return [head, head.map(() => '---'), ...rows]
    .map((cells) => `| ${cells.join(' | ')} |`)
    .join('\n');
}

async function main() {
  const { values: options } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      stock: { type: 'boolean', default: false },
      only: { type: 'string', default: POLICIES.join(',') },
    },
  });
  const execArgv = options.stock ? [] : ['-r', path.join(__dirname, '..', 'register.js')];
  const results = [];
  for (const weights of [EQUAL, WEIGHTED]) {
    for (const policy of options.only.split(',')) {
      results.push(...(await measurePolicy(policy, weights, execArgv)));
    }
    const measured = results.filter((result) => result.weights === weights);
    if (!options.json) console.log(`weights ${weights.join(', ')}\n\n${table(measured)}\n`);
  }
  if (options.json) console.log(JSON.stringify(results));
}

main();
