'use strict';

// `npm run bench`: every row measured with stock Node and with brood in alternating processes of
// the same binary, in one run. Medians and ratios of pairs; absolute figures mean little on a noisy
// machine. See docs/benchmarks.md.

const fs = require('node:fs');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { writeDocs } = require('./docs');
const machines = require('./machine');
const { measure, stop } = require('./measure');
const { plot } = require('./plot');
const programs = require('./programs');
const { Progress } = require('./progress');
const rows = require('./rows');
const { summarize } = require('./summarize');
const { brief, table } = require('./table');

const USAGE = `npm run bench -- [options]
  --only S1,S6    these rows
  --quick         short measurements, 3 runs: to see that it works
  --runs N        runs of each row (7)
  --node PATH     the Node binary that is measured (this one)
  --out FOLDER    where the JSON and the plot go (bench/results)
  --write-docs    put the table and the plot into docs/benchmarks.md
`;

function readOptions() {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      quick: { type: 'boolean', default: false },
      runs: { type: 'string' },
      node: { type: 'string', default: process.execPath },
      out: { type: 'string', default: path.join(__dirname, 'results') },
      'write-docs': { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  const runs = Number(values.runs ?? (values.quick ? 3 : 7));
  if (!Number.isInteger(runs) || runs < 1) throw new Error('--runs takes a number from 1 on');
  if (values['write-docs'] && (values.quick || values.only !== undefined)) {
    throw new Error('--write-docs takes all rows in full: neither --only nor --quick');
  }
  return { ...values, runs };
}

/** The rows of `--only`, which names rows (S12) or parts of one (S3a). */
function choose(only) {
  if (only === undefined) return rows;
  const wanted = only.split(',');
  const namesOf = ({ id, comparisons }) => [id, ...comparisons.map((comparison) => comparison.id)];
  const unknown = wanted.find((name) => !rows.some((row) => namesOf(row).includes(name)));
  if (unknown !== undefined) throw new Error(`there is no row ${unknown}`);
  return rows.filter((row) => namesOf(row).some((name) => wanted.includes(name)));
}

async function measureAll(chosen, options, machine) {
  const contestants = (row) => Object.keys(row.contestants).length;
  const runsOf = ({ turns = 1 }) => options.runs * turns;
  const total = chosen.reduce((sum, row) => sum + contestants(row) * runsOf(row), 0);
  const progress = new Progress(total);
  const results = [];
  const raw = {};
  for (const row of chosen) {
    raw[row.id] = await measure(row, { ...options, runs: runsOf(row), progress });
    const finished = summarize(row, raw[row.id], machine);
    finished.forEach((result) => progress.say(brief(result)));
    results.push(...finished);
  }
  progress.end();
  return { results, raw };
}

/** A part of the rows, or quick ones, must not be taken for the whole. */
function fileName({ only, quick }, { major }) {
  return `node-${major}${only === undefined && !quick ? '' : '-partial'}`;
}

function write(file, text) {
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, text);
  console.log(`written to ${path.relative(process.cwd(), file)}`);
}

async function main() {
  const options = readOptions();
  if (options.help) return void process.stdout.write(USAGE);
  const chosen = choose(options.only);
  const machine = machines.describe(options.node);
  if (chosen.some((row) => row.programs)) programs.build();

  const { results, raw } = await measureAll(chosen, options, machine);
  const sentence = machines.sentence(machine, options.runs);
  console.log(`${sentence}\n\n${table(results)}\n`);

  const base = path.join(options.out, fileName(options, machine));
  const report = { machine, runs: options.runs, quick: options.quick, results, raw };
  const svg = plot(results, sentence);
  write(`${base}.json`, `${JSON.stringify(report, null, 2)}\n`);
  write(`${base}.svg`, svg);
  if (options['write-docs']) writeDocs({ machine, sentence, table: table(results), svg });
  if (results.some((result) => result.failed)) process.exitCode = 1;
}

for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
]) {
  process.once(signal, () => {
    stop();
    process.exit(code);
  });
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
