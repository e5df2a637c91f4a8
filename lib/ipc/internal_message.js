'use strict';

// Which messages belong to Node itself: an object whose `cmd` is a string that starts with, and is
// longer than, NODE_. They are emitted as 'internalMessage' and never as 'message'.

const PREFIX = 'NODE_';

function isInternal(message) {
  return (
    message !== null &&
    typeof message === 'object' &&
    typeof message.cmd === 'string' &&
    message.cmd.length > PREFIX.length &&
    message.cmd.startsWith(PREFIX)
  );
}

// What the two ends of a channel say about the upgrade to brood's framing is for the addon alone.
function isAnnouncement(message) {
  return message.cmd.startsWith('NODE_BROOD_');
}

// The options of those that nobody is told about when they cannot be sent, and of those among them
// that the peer has asked for.
const QUIETLY = { swallowErrors: true };
const AS_ANSWER = { ...QUIETLY, isAnswer: true };

module.exports = { AS_ANSWER, QUIETLY, isAnnouncement, isInternal };
