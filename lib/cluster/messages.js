'use strict';
// What a worker may say to the primary, checked: a worker is another program, perhaps a hostile one,
// and nothing it sends may reach Node's native code or the dispatcher with a type they do not
// expect.

const MAX_PORT = 65535;
const MAX_INT32 = 2 ** 31 - 1;
const MAX_UINT32 = 2 ** 32 - 1;

const isAbsent = (value) => value === undefined || value === null;
const isInteger = (value, min, max) => Number.isInteger(value) && value >= min && value <= max;
const isSequence = (value) => Number.isSafeInteger(value);
const isPort = (value) => isAbsent(value) || isInteger(value, -1, MAX_PORT);
// dgram hands on what its user gave, unchecked.
const isDatagramPort = (value) =>
  isAbsent(value) || ['number', 'string', 'boolean'].includes(typeof value);
const isAddress = (value) => isAbsent(value) || typeof value === 'string';
const isDescriptor = (value) => isAbsent(value) || isInteger(value, -1, MAX_INT32);
const isFlags = (value) => isAbsent(value) || isInteger(value, 0, MAX_UINT32);
const isAddressType = (value) => isAbsent(value) || [-1, 4, 6, 'udp4', 'udp6'].includes(value);
const isDatagram = ({ addressType }) => addressType === 'udp4' || addressType === 'udp6';

/** One socket, described in one way: by a descriptor, a path, or a port with or without address. */
function isOnePlace(message) {
  const { address, port, fd } = message;
  if (fd >= 0 && !isAbsent(fd)) return isDatagram(message) || (!address && !port);
  if (port === -1) return typeof address === 'string' && message.addressType === -1;
  return isDatagram(message) || (!isAbsent(port) && message.addressType !== -1);
}

function describesPlace(message) {
  const { address, port, addressType, fd } = message;
  const hasPort = isDatagram(message) ? isDatagramPort(port) : isPort(port);
  return isAddress(address) && hasPort && isAddressType(addressType) && isDescriptor(fd);
}

const CHECKS = {
  online: () => true,
  exitedAfterDisconnect: ({ seq }) => isSequence(seq),
  close: ({ key }) => typeof key === 'string',
  listening: describesPlace,
  queryServer: (message) =>
    describesPlace(message) &&
    isOnePlace(message) &&
    isFlags(message.flags) &&
    isSequence(message.seq) &&
    (isAbsent(message.index) || Number.isSafeInteger(message.index)),
};

/**
 * A well-formed request for a socket with `fd` undefined where it names no descriptor, and a port
 * that is one: Node's native bind() takes the low 16 bits of whatever it is given.
 */
function normalized(message) {
  const fd = isAbsent(message.fd) || message.fd < 0 ? undefined : message.fd;
  if (!isDatagram(message) || isAbsent(message.port)) return { ...message, fd };
  return { ...message, fd, port: Number(message.port) & MAX_PORT };
}

/**
 * What is to be done with a NODE_CLUSTER message: its `act` when it is well formed, undefined when
 * it says nothing to a primary, false when it is malformed.
 */
function requestOf(message) {
  if (typeof message.act !== 'string' || !Object.hasOwn(CHECKS, message.act)) return undefined;
  return CHECKS[message.act](message) && message.act;
}

module.exports = { isAbsent, isDatagram, normalized, requestOf };
