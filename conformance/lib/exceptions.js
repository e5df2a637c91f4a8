'use strict';
// The list of tests that brood is known not to pass, each with its reason, and which entry of it
// applies to a run.

const fs = require('node:fs');

/**
 * Reads [{ test, modes?, versions?, reason }]. `test` is a file's name without folder and ending;
 * without `modes` or `versions` (majors of Node) an entry applies to all of them.
 */
function loadExceptions(file) {
  const entries = JSON.parse(fs.readFileSync(file, 'utf8'));
  for (const entry of entries) {
    if (!entry.test || !entry.reason) {
      throw new Error(`${file}: an exception needs a test and a reason: ${JSON.stringify(entry)}`);
    }
  }
  return entries;
}

function findException(entries, test, mode, major) {
  return entries.find(
    (entry) =>
      entry.test === test.name &&
      (entry.modes?.includes(mode) ?? true) &&
      (entry.versions?.includes(major) ?? true),
  );
}

module.exports = { loadExceptions, findException };
