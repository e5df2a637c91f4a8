'use strict';
// Shows that a mode is what its name says. A preload that fell back to stock would let every test
// pass and prove nothing; so before a mode runs, this file is run in it and tells, for the process
// itself, for a fork and for a spawned Node below it, whose functions it has, and whose cluster;
// and whether the channel between it and the fork was upgraded to brood's own framing.

const { execFileSync, fork, spawnSync } = require('node:child_process');
const cluster = require('node:cluster');
const path = require('node:path');

const { REGISTER, modeCommand } = require('./modes');

const HOUSE = path.dirname(REGISTER) + path.sep + 'lib' + path.sep;

const EXPECTED = {
  register: ['test', 'cluster', 'forked', 'channel', 'upgraded'],
  'node-options': ['test', 'cluster', 'forked', 'channel', 'upgraded', 'spawned'],
  parent: ['test', 'cluster'],
  child: ['forked', 'channel', 'spawned'],
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
  for (const [where, isBrood] of Object.entries(seen)) {
    const wanted = EXPECTED[mode].includes(where);
    if (isBrood === wanted) continue;
    throw new Error(`mode ${mode}: ${where} is ${wanted ? 'stock' : "brood's"}`);
  }
}

function main() {
  const child = fork(__filename, ['forked']);
  // An answer comes behind the child's side of the upgrade.
  child.once('message', () => child.send('tell'));
  child.on('message', ({ self, channel, upgraded }) => {
    if (self === undefined) return;
    const spawned = spawnSync(process.execPath, [__filename, 'spawned'], { encoding: 'utf8' });
    const answer = {
      test: isOurs(spawnSync),
      cluster: isOurs(refusingCluster),
      forked: self,
      channel,
      upgraded: upgraded && isUpgraded(),
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

/** Whether a channel of this process speaks brood's own framing, as far as brood knows of it. */
function isUpgraded() {
  const { upgradedChannels } = require(`${HOUSE}diagnostics`).diagnostics().counters;
  return upgradedChannels > 0;
}

if (require.main === module) {
  const role = process.argv[2];
  if (role === 'forked') {
    process.once('message', () => {
      const channel = isOurs(() => process.send());
      process.send({ self: isOurs(spawnSync), channel, upgraded: isUpgraded() });
    });
    process.send({});
  } else if (role === 'spawned') {
    console.log(JSON.stringify(isOurs(spawnSync)));
  } else {
    main();
  }
}

module.exports = { checkMode };
