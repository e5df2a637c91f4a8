'use strict';

// `npm run bench`: every row measured with stock Node and with brood in alternating processes of
// the same binary, in one run. Medians and the ratio of pairs; absolute figures mean little on a
// noisy machine. `--only S1,S6`, `--quick`, `--runs N`, `--node PATH`.

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');
const rows = require('./rows');

const { values: options } = parseArgs({
  options: {
    only: { type: 'string' },
    quick: { type: 'boolean', default: false },
    runs: { type: 'string' },
    node: { type: 'string', default: process.execPath },
  },
});
const runs = Number(options.runs ?? (options.quick ? 3 : 7));

function measureOnce(row, implementation) {
  const args = [...(row.nodeArgs ?? []), path.join(__dirname, 'one.js'), row.id, implementation];
  const env = { ...process.env, BENCH_QUICK: options.quick ? '1' : '' };
  const result = spawnSync(options.node, args, { encoding: 'utf8', env, timeout: 300_000 });
  if (result.status !== 0) {
    throw new Error(`${row.id} ${implementation} failed: ${result.stderr || result.error}`);
  }
  return JSON.parse(result.stdout);
}

/** What a program without JavaScript on its side reaches: the row's limit. */
function measureLimit({ example, args }) {
  const program = path.join(__dirname, '..', 'target', 'release', 'examples', example);
  const result = spawnSync(program, args(options.node, options.quick), { encoding: 'utf8' });
  if (result.status !== 0) throw new Error(`${example} failed: ${result.stderr || result.error}`);
  return Number(result.stdout);
}

function buildLimits() {
  const args = ['build', '--release', '--quiet', '--examples'];
  const { status } = spawnSync('cargo', args, {
    cwd: path.join(__dirname, '..'),
    stdio: 'inherit',
  });
  if (status !== 0) throw new Error('cargo cannot build the programs in bench/limits');
}

function median(numbers) {
  const sorted = numbers.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function measure(row) {
  const pairs = [];
  for (let i = 0; i < runs; i++) {
    process.stderr.write(`\r${row.id} ${i + 1}/${runs} `);
    // Alternate who goes first: a machine that warms up or slows down favours neither.
    const order = i % 2 ? ['brood', 'stock'] : ['stock', 'brood'];
    const pair = {};
    for (const implementation of order) pair[implementation] = measureOnce(row, implementation);
    if (row.limit) pair.limit = { [row.limit.figure]: measureLimit(row.limit) };
    pairs.push(pair);
  }
  process.stderr.write('\r              \r');
  return Object.keys(row.figures).map((figure) => summarize(row, figure, pairs));
}

function summarize(row, figure, pairs) {
  const of = (implementation) => pairs.map((pair) => pair[implementation][figure]);
  const ratios = pairs.map((pair) => pair.brood[figure] / pair.stock[figure]);
  return {
    id: row.id,
    title: row.title,
    figure,
    unit: row.figures[figure],
    target: row.target,
    stock: median(of('stock')),
    brood: median(of('brood')),
    ratio: median(ratios),
    spread: [Math.min(...ratios), Math.max(...ratios)],
    ...(row.limit?.figure === figure && {
      limit: median(of('limit')),
      ofLimit: median(pairs.map((pair) => pair.brood[figure] / pair.limit[figure])),
    }),
  };
}

function shown(number) {
  return number >= 100 ? number.toFixed(0) : number.toPrecision(3);
}

function print(result) {
  const [low, high] = result.spread.map(shown);
  console.log(
    `| ${result.id} | ${result.title} | ${result.figure} (${result.unit}) | ${shown(result.stock)} | ` +
      `${shown(result.brood)} | ${shown(result.ratio)} (${low} to ${high}) | ` +
      `${result.limit ? `${shown(result.limit)}, brood at ${shown(result.ofLimit)} of it` : ''} | ` +
      `${result.target} |`,
  );
}

function versions() {
  const script = 'console.log(process.versions.node, process.versions.uv)';
  const [node, uv] = spawnSync(options.node, ['-e', script], { encoding: 'utf8' })
    .stdout.trim()
    .split(' ');
  return { node, libuv: uv, cpus: os.availableParallelism(), kernel: os.release() };
}

function main() {
  const only = options.only?.split(',');
  const chosen = rows.filter((row) => !only || only.includes(row.id));
  const machine = versions();
  console.log(
    `Node ${machine.node}, libuv ${machine.libuv}, ${machine.cpus} CPUs, Linux ${machine.kernel}, ` +
      `${runs} pairs, medians\n`,
  );
  console.log('| # | work | figure | stock | brood | brood / stock (spread) | limit | target |');
  console.log('|---|---|---|---|---|---|---|---|');
  if (chosen.some((row) => row.limit)) buildLimits();
  const results = [];
  for (const row of chosen) {
    for (const result of measure(row)) {
      results.push(result);
      print(result);
    }
  }
  const folder = path.join(__dirname, 'results');
  fs.mkdirSync(folder, { recursive: true });
  const file = path.join(folder, `node-${machine.node.split('.')[0]}.json`);
  fs.writeFileSync(file, `${JSON.stringify({ machine, runs, results }, null, 2)}\n`);
  console.log(`\nwritten to ${path.relative(process.cwd(), file)}`);
}

main();
