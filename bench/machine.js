'use strict';

// What the figures were measured on: they mean nothing without it.

const { spawnSync } = require('node:child_process');
const os = require('node:os');

/** `{ node, major, libuv, v8, cpus, cpu, kernel, date }` for the Node binary at `node`. */
function describe(node) {
  const script = 'console.log(JSON.stringify(process.versions))';
  const result = spawnSync(node, ['-e', script], { encoding: 'utf8' });
  if (result.status !== 0) throw new Error(`cannot run ${node}: ${result.stderr || result.error}`);
  const versions = JSON.parse(result.stdout);
  return {
    node: versions.node,
    major: Number(versions.node.split('.')[0]),
    libuv: versions.uv,
    v8: versions.v8,
    cpus: os.availableParallelism(),
    cpu: os.cpus()[0]?.model ?? 'unknown',
    kernel: os.release(),
    date: new Date().toISOString().slice(0, 10),
  };
}

/** One sentence about it. */
function sentence(machine, runs) {
  return (
    `Node ${machine.node}, libuv ${machine.libuv}, ${machine.cpus} CPUs (${machine.cpu}), ` +
    `Linux ${machine.kernel}, ${machine.date}: medians of ${runs} pairs.`
  );
}

module.exports = { describe, sentence };
