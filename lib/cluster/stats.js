'use strict';
// cluster.stats(): what the primary can know of its workers. null stands for what it cannot.

const fs = require('node:fs');
const dispatcher = require('./dispatcher');

const UNCOUNTED = { accepted: null, inFlight: null, waiting: null, handedBack: null };
const UNKNOWN = { lane: false, ...UNCOUNTED, eventLoopUtilization: null };

/** Bytes of memory the process occupies (its resident set). */
function memoryOf(pid) {
  let status;
  try {
    status = fs.readFileSync(`/proc/${pid}/status`, 'latin1');
  } catch {
    return null;
  }
  const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(status);
  return kilobytes === null ? null : Number(kilobytes[1]) * 1024;
}

function statsOf(link, known, sharesSocket) {
  const { worker } = link;
  const { pid } = worker.process;
  return {
    id: worker.id,
    pid: pid ?? null,
    state: worker.state,
    weight: link.weight,
    draining: link.draining,
    ...(known.get(link.id) ?? UNKNOWN),
    // What the operating system has handed out nobody has counted.
    ...(sharesSocket ? UNCOUNTED : {}),
    memory: pid === undefined || worker.isDead() ? null : memoryOf(pid),
  };
}

/** One object for each of `links`; `sharesSocket(link)`: it accepts without the dispatcher. */
function collect(links, sharesSocket) {
  const known = dispatcher.workerStats();
  return links.map((link) => statsOf(link, known, sharesSocket(link)));
}

module.exports = { collect };
