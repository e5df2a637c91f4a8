'use strict';
// Listening sockets that the service manager has opened and passed to this process (systemd's
// protocol: LISTEN_FDS and its companions). Which of them serves a request for an address is decided
// here; what is done with it is the listener's business.

const net = require('node:net');
const binding = require('../binding');
const { debug } = require('../debug');
const { ERR_INVALID_ARG_TYPE, ERR_INVALID_ARG_VALUE } = require('../errors');
const { absolute, looksLikePort } = require('./scheduling');
const { validateInteger, validateObject, validateString } = require('../validators');

const FIRST_FD = 3;
const VARIABLES = ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES', 'LISTEN_PIDFDID'];
const WILDCARDS = ['::', '0.0.0.0'];
const MAX_PORT = 65535;
const EBADF = -9;
// libuv's flag in what a worker asks for.
const IPV6_ONLY = 1;

// Undefined until somebody asks.
let passed;
// name -> { port, address } or { path }
let targets = new Map();

/**
 * The sockets passed to this process: { fd, name, given, kind, ... }, the rest as the addon's
 * socketAddress() has it. The first call takes them into possession: the variables leave the
 * environment and the descriptors are kept from programs started later.
 */
function claimActivated() {
  passed ??= claim();
  return passed;
}

function claim() {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES = '' } = process.env;
  // Left over by some ancestor, which the sockets were meant for.
  if (LISTEN_PID !== String(process.pid)) return [];
  for (const variable of VARIABLES) delete process.env[variable];
  const names = LISTEN_FDNAMES.split(':');
  const sockets = [];
  for (let i = 0; i < Number(LISTEN_FDS); i++) {
    const fd = FIRST_FD + i;
    if (binding.closeOnExec(fd) === EBADF) break;
    const socket = describe(fd);
    if (socket !== null) sockets.push({ ...socket, fd, name: names[i], given: false });
    debug('passed as %d, %s: %s', fd, names[i], inWords(socket));
  }
  return sockets;
}

function inWords(socket) {
  if (socket === null) return 'no use for it';
  return socket.path ?? `${socket.kind} ${socket.address} port ${socket.port}`;
}

/** What can serve requests: a listening socket, or one for datagrams. */
function describe(fd) {
  const socket = binding.socketAddress(fd);
  if (typeof socket === 'number' || socket.listening === (socket.kind === 'udp')) return null;
  return socket.path === undefined ? { ...socket, address: canonical(socket.address) } : socket;
}

/**
 * Which passed socket is meant by which address: an object of name -> port, path or
 * `{ port, address }`. A port alone is for requests that name no address or a wildcard. To be called
 * before the first worker is started, also without names, for workers to see nothing of all this.
 */
function nameActivated(map) {
  claimActivated();
  const named = new Map();
  if (map !== undefined) {
    validateObject(map, 'settings.activation');
    for (const [name, target] of Object.entries(map)) {
      named.set(name, targetOf(target, `settings.activation['${name}']`));
    }
  }
  targets = named;
}

function targetOf(target, argument) {
  if (typeof target === 'string') {
    if (!looksLikePort(target)) return { path: absolute(target) };
    throw new ERR_INVALID_ARG_VALUE(argument, target, 'must be a path, or a port as a number');
  }
  if (typeof target === 'number') return targetOf({ port: target }, argument);
  if (target === null || typeof target !== 'object') {
    throw new ERR_INVALID_ARG_TYPE(argument, ['number', 'string', 'Object'], target);
  }
  validateInteger(target.port, `${argument}.port`, 1, MAX_PORT);
  if (target.address === undefined) return { port: target.port };
  validateString(target.address, `${argument}.address`);
  return { port: target.port, address: canonical(target.address) };
}

/**
 * The descriptor of the passed socket that serves a request of a worker's (in the form of
 * `queryServer`; `path` may stand for a path in `address`), or undefined when the caller has to
 * bind. It is a duplicate and the caller's own: once that and all others of it are closed, the same
 * socket can be had again. While one is open it is undefined, so that binding fails as it does for
 * any address in use.
 */
function takeActivated(request) {
  const sockets = claimActivated();
  if (sockets.length === 0 || isDescriptor(request.fd)) return undefined;
  const wanted = wantedBy(request);
  const suitable = sockets.filter((socket) => isSuitable(socket, wanted));
  // As when binding without an address: IPv6, which often means both, comes first.
  suitable.sort((a, b) => b.family - a.family);
  const socket =
    suitable.find(({ name }) => isMeant(targets.get(name), wanted)) ??
    suitable.find((candidate) => isBoundTo(candidate, wanted));
  if (socket === undefined || isInUse(socket)) return undefined;
  const duplicate = binding.duplicateDescriptor(socket.fd);
  if (duplicate < 0) return undefined;
  debug('what was passed as %d serves a request for %o', socket.fd, wanted);
  socket.given = true;
  return duplicate;
}

function isDescriptor(fd) {
  return typeof fd === 'number' && fd >= 0;
}

function wantedBy({ address, port, addressType, path: unixPath, flags }) {
  const at = unixPath ?? (addressType === -1 || port === -1 ? address : undefined);
  if (at !== undefined) return { kind: 'pipe', path: absolute(String(at)) };
  const isDatagram = addressType === 'udp4' || addressType === 'udp6';
  return {
    kind: isDatagram ? 'udp' : 'tcp',
    address: address ? canonical(address) : anyOf(addressType),
    port: Number(port),
    ipv6Only: (flags & IPV6_ONLY) !== 0,
  };
}

/** A server without an address takes either wildcard, a datagram socket the one of its family. */
function anyOf(addressType) {
  if (addressType === 'udp4') return '0.0.0.0';
  return addressType === 'udp6' ? '::' : null;
}

function isSuitable(socket, { kind, address, ipv6Only }) {
  if (socket.kind !== kind) return false;
  if (kind === 'pipe') return true;
  if (ipv6Only && !socket.ipv6Only) return false;
  return address === null || socket.family === net.isIP(address);
}

function isMeant(target, { path: unixPath, address, port }) {
  if (target === undefined) return false;
  if (unixPath !== undefined) return target.path === unixPath;
  if (target.port !== port) return false;
  const isAnywhere = address === null || WILDCARDS.includes(address);
  return target.address === undefined ? isAnywhere : target.address === address;
}

function isBoundTo(socket, { path: unixPath, address, port }) {
  if (unixPath !== undefined) return socket.path === unixPath;
  if (socket.port !== port) return false;
  return address === null ? WILDCARDS.includes(socket.address) : socket.address === address;
}

function isInUse({ fd, given }) {
  return given && binding.countDuplicates(fd) !== 0;
}

/** An IP address in the one way of writing it that can be compared; anything else as it is. */
function canonical(address) {
  // What a scope means is known to this machine only: such an address equals none.
  const family = address.includes('%') ? 0 : net.isIP(address);
  return family === 0
    ? address
    : new net.SocketAddress({ address, family: `ipv${family}` }).address;
}

module.exports = { claimActivated, nameActivated, takeActivated };
