#!/usr/bin/env node
'use strict';
// Runs Node's own tests under brood: first on stock Node, since only what stock passes counts, then
// in each mode. Prints every exception with its reason; an unexpected failure makes it exit with 1.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');

const { Baseline, nodeVersion } = require('./lib/baseline');
const { checkMode } = require('./lib/canary');
const { findException, loadExceptions } = require('./lib/exceptions');
const { EMPTY, REGISTER, expandModes } = require('./lib/modes');
const { runTest } = require('./lib/runner');
const { SETS, findTests, treeMajor } = require('./lib/suite');

const USAGE = `usage: node conformance/run.js --node-src DIR [options]
  --node-src DIR   a source tree of Node (conformance/fetch-node-src.sh gets one)
  --node PATH      the binary to test under (default: this one)
  --mode LIST      register, node-options, parent, child, stock; all, everywhere (default: all)
  --set LIST       ${SETS.join(', ')} (default: child-process,cluster)
  --filter REGEXP  only tests whose folder/name matches
  --jobs N         tests at a time (default: 2)
  --timeout S      seconds one test may take (default: 120)
  --repeat N       run each test N times in each mode (default: 1)
  --retries N      run a failing test again, up to N times; reported as flaky (default: 0)
  --fresh          forget what stock Node made of the tests
  --strict         an exception that passes is a failure
  --json FILE      write every outcome there
  --verbose        a line for each test`;

const OPTIONS = {
  'node-src': { type: 'string' },
  node: { type: 'string', default: process.execPath },
  mode: { type: 'string', default: 'all' },
  set: { type: 'string', default: 'child-process,cluster' },
  filter: { type: 'string' },
  jobs: { type: 'string', default: '2' },
  timeout: { type: 'string', default: '120' },
  repeat: { type: 'string', default: '1' },
  retries: { type: 'string', default: '0' },
  fresh: { type: 'boolean', default: false },
  strict: { type: 'boolean', default: false },
  json: { type: 'string' },
  verbose: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
};

// A test that fails on a busy machine gets a second chance before stock is said to fail it.
const BASELINE_ATTEMPTS = 3;
// A test that fails under brood is run this often on stock, to tell a defect from a test that fails
// now and then by itself.
const STOCK_PROBES = 8;
// And as often with a preload that does nothing, to tell brood from the mere fact of a preload.
const EMPTY_PROBES = 2;

async function main() {
  const options = readOptions();
  const version = nodeVersion(options.node);
  const major = Number.parseInt(version, 10);
  options.sameMajor = major === treeMajor(options.nodeSrc);
  const tests = options.sets.flatMap((set) => findTests(options.nodeSrc, set, options.filter));
  if (tests.length === 0) throw new Error('no test matches');
  console.log(`${tests.length} tests (${options.sets.join(', ')}) on Node ${version}`);

  const baseline = await runBaseline(tests, options, version);
  const counted = tests.filter((test) => baseline.get(test)?.outcome === 'pass');
  const notCounted = reportNotCounted(tests, baseline);

  const total = { passed: 0, failed: 0, skipped: notCounted };
  const outcomes = [];
  for (const mode of options.modes.filter((name) => name !== 'stock')) {
    const results = await runMode(mode, counted, { ...options, baseline, major });
    const tally = reportMode(mode, results);
    total.passed += tally.passed;
    total.failed += tally.failed + (options.strict ? tally.stale : 0);
    total.skipped += tally.excepted;
    outcomes.push(...results.map(({ test, ...rest }) => ({ mode, test: test.id, ...rest })));
  }
  if (options.modes.includes('stock')) total.passed += counted.length;
  if (options.json) fs.writeFileSync(options.json, JSON.stringify({ version, outcomes }, null, 1));

  console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
  process.exitCode = total.failed > 0 ? 1 : 0;
}

function readOptions() {
  const { values } = parseArgs({ options: OPTIONS });
  if (values.help) {
    console.log(USAGE);
    process.exit(0);
  }
  if (!values['node-src']) throw new Error(`--node-src is missing\n${USAGE}`);
  const nodeSrc = path.resolve(values['node-src']);
  if (!fs.existsSync(path.join(nodeSrc, 'test', 'parallel'))) {
    throw new Error(`${nodeSrc} is not a source tree of Node: it has no test/parallel`);
  }
  const sets = values.set.split(',');
  const unknown = sets.find((set) => !SETS.includes(set));
  if (unknown !== undefined) throw new Error(`no such set: ${unknown}`);
  return {
    nodeSrc: fs.realpathSync(nodeSrc),
    node: fs.realpathSync(values.node),
    modes: expandModes(values.mode),
    sets,
    filter: values.filter && new RegExp(values.filter),
    jobs: positive(values, 'jobs'),
    timeoutMs: positive(values, 'timeout') * 1000,
    repeat: positive(values, 'repeat'),
    retries: Number(values.retries),
    fresh: values.fresh,
    strict: values.strict,
    json: values.json,
    verbose: values.verbose,
  };
}

function positive(values, name) {
  const number = Number(values[name]);
  if (!(number > 0)) throw new Error(`--${name} wants a number above 0`);
  return number;
}

/** Stock's outcome of each test, from memory where this binary has run it before. */
async function runBaseline(tests, options, version) {
  const baseline = new Baseline(options.node, options.nodeSrc, version);
  const wanted = tests.filter(
    (test) => !test.skippedByStatus && (options.fresh || !baseline.get(test)),
  );
  if (wanted.length > 0) console.log(`stock: running ${wanted.length}`);
  await forEachTest(wanted, options, async (test) => {
    for (let attempt = 1; attempt <= BASELINE_ATTEMPTS; attempt++) {
      const result = await runTest(test, { ...options, mode: 'stock' });
      baseline.set(test, result, attempt);
      if (options.verbose) console.log(`  stock ${result.outcome} ${test.id} ${result.detail}`);
      if (result.outcome !== 'fail') break;
    }
  });
  if (wanted.length > 0) baseline.save();
  return baseline;
}

/** Says which tests stock itself does not pass, and returns how many they are. */
function reportNotCounted(tests, baseline) {
  const lines = [];
  for (const test of tests) {
    const { outcome, detail } = baseline.get(test) ?? {};
    if (test.skippedByStatus) lines.push(`${test.id}: skipped by Node's status file`);
    else if (outcome === 'skip') lines.push(`${test.id}: skips itself: ${detail}`);
    else if (outcome === 'fail') lines.push(`${test.id}: stock fails: ${detail}`);
  }
  const counted = tests.length - lines.length;
  const internals = tests.filter((test) => test.usesInternals && passes(baseline, test)).length;
  console.log(
    `stock passes ${counted} of ${tests.length}, ${internals} of them with --expose-internals`,
  );
  printList('not counted', lines);
  return lines.length;
}

function passes(baseline, test) {
  return baseline.get(test)?.outcome === 'pass';
}

async function runMode(mode, tests, options) {
  if (!fs.existsSync(REGISTER)) throw new Error(`${REGISTER} is missing`);
  checkMode(mode, options);
  const exceptions = loadExceptions(path.join(__dirname, 'exceptions.json'));
  const results = [];
  await forEachTest(tests, options, async (test) => {
    const exception = findException(exceptions, test, mode, options.major);
    const retries = exception ? 0 : options.retries;
    const result = await runRepeatedly(test, mode, options, retries);
    const failing = result.outcome !== 'pass' && !exception;
    const reason = failing ? await failsWithoutUs(test, mode, options) : exception?.reason;
    results.push({ test, reason, ...result });
    if (failing && !reason) printFailure(mode, test, result);
    else if (options.verbose) console.log(`  ${mode} ${result.outcome} ${test.id} ${result.ms} ms`);
  });
  return results;
}

/** Why a failure is not brood's: stock fails too, now and then or with any preload; or undefined. */
async function failsWithoutUs(test, mode, options) {
  const failed = await countFailures(STOCK_PROBES, test, { ...options, mode: 'stock' });
  if (failed > 0) {
    const detail = `fails ${failed} of ${STOCK_PROBES} runs`;
    // From now on it does not count in any mode.
    options.baseline.set(test, { outcome: 'fail', detail }, STOCK_PROBES);
    options.baseline.save();
    return `stock ${detail} too`;
  }
  const empty = await countFailures(EMPTY_PROBES, test, { ...options, mode, preload: EMPTY });
  return empty === EMPTY_PROBES ? 'fails with an empty preload too' : undefined;
}

async function countFailures(runs, test, options) {
  let failed = 0;
  for (let i = 0; i < runs; i++) {
    const { outcome } = await runTest(test, options);
    if (outcome !== 'pass') failed++;
  }
  return failed;
}

/** Every repetition must pass; one that fails may be run again `retries` times. */
async function runRepeatedly(test, mode, options, retries) {
  let flaky = 0;
  for (let done = 0; ;) {
    const result = await runTest(test, { ...options, mode });
    if (result.outcome === 'pass') {
      if (++done === options.repeat) return { ...result, output: undefined, flaky };
    } else if (flaky++ >= retries) {
      return result;
    }
  }
}

function printFailure(mode, test, { detail, outcome, output }) {
  const why = outcome === 'skip' ? `skips itself only under brood: ${detail}` : detail;
  console.log(`\nFAILED ${test.id} in mode ${mode}: ${why}`);
  const tail = output.trimEnd().split('\n').slice(-40);
  console.log(tail.map((line) => `    ${line}`).join('\n'));
}

function reportMode(mode, results) {
  const passed = results.filter((result) => result.outcome === 'pass');
  const stale = passed.filter((result) => result.reason);
  const flaky = passed.filter((result) => result.flaky > 0);
  const excepted = results.filter((result) => result.outcome !== 'pass' && result.reason);
  const failed = results.filter((result) => result.outcome !== 'pass' && !result.reason);
  console.log(
    `\nmode ${mode}: ${passed.length} passed, ${failed.length} failed, ` +
      `${excepted.length} excepted`,
  );
  const ids = (list, say) => list.map((result) => `${result.test.id}: ${say(result)}`);
  printList(
    'failed',
    ids(failed, (result) => result.detail),
  );
  printList(
    'excepted',
    ids(excepted, (result) => result.reason),
  );
  printList(
    'passes, so its exception is stale',
    ids(stale, (result) => result.reason),
  );
  printList(
    'flaky',
    ids(flaky, (result) => `passed after ${result.flaky} failed`),
  );
  return {
    passed: passed.length,
    failed: failed.length,
    excepted: excepted.length,
    stale: stale.length,
  };
}

function printList(title, lines) {
  for (const line of [...lines].sort()) console.log(`  ${title}: ${line}`);
}

/** Runs `work` on each test, `jobs` at a time; those of the sequential folder one by one after. */
async function forEachTest(tests, { jobs }, work) {
  const drain = async (queue) => {
    for (let test = queue.shift(); test !== undefined; test = queue.shift()) await work(test);
  };
  const parallel = tests.filter((test) => test.folder !== 'sequential');
  const lanes = Math.min(jobs, os.availableParallelism() * 4);
  await Promise.all(Array.from({ length: lanes }, () => drain(parallel)));
  await drain(tests.filter((test) => test.folder === 'sequential'));
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 2;
});
