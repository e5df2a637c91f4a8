'use strict';
// Shows that a mode is what its name says. A preload that fell back to stock would let every test
// pass and prove nothing; so before a mode runs, this file is run in it and tells, for the process
// itself, for a fork and for a spawned Node below it, whose functions it has, and whose cluster.

const { execFileSync, fork, spawnSync } = require('node:child_process');
const cluster = require('node:cluster');
const path = require('node:path');

const { REGISTER, modeCommand } = require('./modes');

const HOUSE = path.dirname(REGISTER) + path.sep + 'lib' + path.sep;

const EXPECTED = {
  register: { test: true, cluster: true, forked: true, channel: true, spawned: false },
  'node-options': { test: true, cluster: true, forked: true, channel: true, spawned: true },
  parent: { test: true, cluster: true, forked: false, channel: false, spawned: false },
  child: { test: false, cluster: false, forked: true, channel: true, spawned: true },
};

/** Throws unless brood is where the mode says it is, and nowhere else. */
function checkMode(mode, { node }) {
  const { args, env } = modeCommand(mode);
  const seen = JSON.parse(
    execFileSync(node, [...args, __filename], {
      encoding: 'utf8',
      env: { PATH: process.env.PATH, ...env },
    }),
  );
  for (const [where, wanted] of Object.entries(EXPECTED[mode])) {
    if (seen[where] === wanted) continue;
    throw new Error(`mode ${mode}: ${where} ${wanted ? 'has stock functions' : 'has brood'}`);
  }
}

function main() {
  const child = fork(__filename, ['forked']);
  child.once('message', ({ self, channel }) => {
    const spawned = spawnSync(process.execPath, [__filename, 'spawned'], { encoding: 'utf8' });
    const answer = {
      test: isOurs(spawnSync),
      cluster: isOurs(refusingCluster),
      forked: self,
      channel,
    };
    console.log(JSON.stringify({ ...answer, spawned: JSON.parse(spawned.stdout) }));
  });
}

function refusingCluster() {
  cluster.setupPrimary({ execArgv: null });
}

/** Whether a function that refuses to be called like this is brood's, by where it throws. */
function isOurs(refusing) {
  try {
    refusing();
  } catch (error) {
    return error.stack.includes(HOUSE);
  }
  throw new Error('not refused');
}

if (require.main === module) {
  const role = process.argv[2];
  if (role === 'forked') {
    process.send({ self: isOurs(spawnSync), channel: isOurs(() => process.send()) });
  } else if (role === 'spawned') {
    console.log(JSON.stringify(isOurs(spawnSync)));
  } else {
    main();
  }
}

module.exports = { checkMode };
