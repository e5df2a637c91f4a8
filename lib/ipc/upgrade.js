'use strict';

// Whether, and up to which version, this process speaks brood's own framing with other processes
// that have brood: the offer a parent makes in the environment of a child, and what becomes of it
// there. The steps on the channel itself are the addon's.

const VARIABLE = 'BROOD_CHANNEL';
const NEWEST = 3;

/**
 * The newest version to use: `option` (true, false or a number) as given to fork(), else the
 * environment's BROOD_UPGRADE. 0 means Node's protocol.
 */
function chosenVersion(option) {
  const chosen = option ?? process.env.BROOD_UPGRADE ?? true;
  if (chosen === true || chosen === '') return NEWEST;
  const version = Number(chosen);
  return version >= 0 ? Math.min(Math.trunc(version), NEWEST) : NEWEST;
}

/** The offer for one child, or null when none is to be made. */
function makeOffer(option) {
  const version = chosenVersion(option);
  return version === 0 ? null : require('../binding').makeOffer(version);
}

/** `pairs` of an environment with this offer and no other. */
function withOffer(pairs, offer) {
  const others = pairs.filter((pair) => !pair.startsWith(`${VARIABLE}=`));
  return [...others, `${VARIABLE}=${offer}`];
}

let received = null;

/** Takes the parent's offer out of the environment, so that neither the program nor its children
 * see it. Whether there is one. */
function takeOffer() {
  const offer = process.env[VARIABLE];
  if (offer !== undefined) {
    delete process.env[VARIABLE];
    if (chosenVersion() > 0) received = offer;
  }
  return received !== null;
}

/** Has brood's end of this process's channel answer the offer. */
function answerOffer(native) {
  if (received === null) return;
  native.acceptUpgrade(received, chosenVersion());
  received = null;
}

let upgraded = 0;

/** To be told of every channel whose two ends have come to brood's own framing. */
function countUpgrade() {
  upgraded++;
}

/** How many that were, in this thread so far. */
function upgradedChannels() {
  return upgraded;
}

module.exports = {
  VARIABLE,
  answerOffer,
  countUpgrade,
  makeOffer,
  takeOffer,
  upgradedChannels,
  withOffer,
};
