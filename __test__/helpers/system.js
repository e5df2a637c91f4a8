'use strict';
// What this process holds, read from /proc: open descriptors, and the processes it has started,
// whoever their parent is by now.

const fs = require('node:fs');

const RUN_MARK = 'BROOD_TEST_RUN';

/** Open descriptors as Map(number -> target), without the one that the reading itself opens. */
function openDescriptors(pid = 'self') {
  const directory = `/proc/${pid}/fd`;
  const found = new Map();
  for (const name of fs.readdirSync(directory)) {
    const target = orNothing(() => fs.readlinkSync(`${directory}/${name}`));
    if (target !== undefined && !/^\/proc\/\d+\/fd$/.test(target)) found.set(Number(name), target);
  }
  return found;
}

/**
 * Processes below this one, and those that left it but carry the mark which global-setup.js put in
 * the environment: Map(pid -> command line). Zombies count.
 */
function startedProcesses() {
  const table = processTable();
  const mark = process.env[RUN_MARK];
  const found = new Map();
  for (const entry of table.values()) {
    if (entry.pid === process.pid) continue;
    if (isBelow(entry, table) || carries(entry.pid, mark)) found.set(entry.pid, entry.command);
  }
  return found;
}

function isBelow(entry, table) {
  for (let at = entry; at !== undefined; at = table.get(at.ppid)) {
    if (at.ppid === process.pid) return true;
  }
  return false;
}

function carries(pid, mark) {
  if (!mark) return false;
  const environment = orNothing(() => fs.readFileSync(`/proc/${pid}/environ`, 'latin1')) ?? '';
  return `\0${environment}`.includes(`\0${RUN_MARK}=${mark}\0`);
}

/** Every process the kernel shows: Map(pid -> { pid, ppid, pgid, state, command }). */
function processTable() {
  const table = new Map();
  for (const name of fs.readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const stat = orNothing(() => fs.readFileSync(`/proc/${name}/stat`, 'utf8'));
    if (stat === undefined) continue;
    // The name stands in parentheses and may hold anything, even parentheses.
    const [state, ppid, pgid] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const line = orNothing(() => fs.readFileSync(`/proc/${name}/cmdline`, 'utf8')) ?? '';
    const command = line.replaceAll('\0', ' ').trim() || stat.slice(0, stat.indexOf(')') + 1);
    const pid = Number(name);
    table.set(pid, { pid, ppid: Number(ppid), pgid: Number(pgid), state, command });
  }
  return table;
}

/** True while the process exists and is not a zombie. */
function isRunning(pid) {
  const entry = processTable().get(pid);
  return entry !== undefined && entry.state !== 'Z';
}

/** The result of reading something that may be gone by now. */
function orNothing(read) {
  try {
    return read();
  } catch {
    return undefined;
  }
}

module.exports = { RUN_MARK, isRunning, openDescriptors, processTable, startedProcesses };
