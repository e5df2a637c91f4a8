'use strict';
// Sockets for workers, bound in the primary: each function yields one of Node's native handles that
// no event loop watches, or a negative errno.

const net = require('node:net');
const binding = require('../binding');
const { datagramConstructor } = require('../ipc/native_handle');

const EACCES = -13;
const EINVAL = -22;

const DEFAULT_BACKLOG = 511;
// libuv's flag in what a worker asks for.
const IPV6_ONLY = 1;
// What libuv's uv_pipe_chmod() takes.
const READABLE = 1;
const WRITABLE = 2;

function backlogOf({ backlog }) {
  return Number.isInteger(backlog) && backlog > 0 ? backlog : DEFAULT_BACKLOG;
}

/** The errno of an error that listening has ended with; the permission model's errors have none. */
function errnoOf(error) {
  return typeof error.errno === 'number' && error.errno < 0 ? error.errno : EACCES;
}

/**
 * Binds host and port by way of net.Server, which knows about names, protocols and permissions, and
 * calls `done(errno, handle)`. The handle is listening already, but this runs before the event loop
 * next looks at its sockets: it has accepted nothing, and whoever closes it now loses nothing.
 */
function bindTcp(request, done) {
  const server = net.createServer();
  server.once('error', (error) => done(errnoOf(error)));
  server.once('listening', () => {
    const handle = server._handle;
    server._handle = null;
    done(0, handle);
  });
  try {
    server.listen({
      port: request.port,
      host: request.address,
      ipv6Only: (request.flags & IPV6_ONLY) !== 0,
      backlog: backlogOf(request),
    });
  } catch (error) {
    process.nextTick(done, errnoOf(error));
  }
}

/** Binds a Unix path, or adopts a descriptor: the handle does not listen. */
function bindHandle({ address, port, addressType, fd, flags, readableAll, writableAll }) {
  const isGiven = fd !== undefined;
  if (isGiven && !isStreamSocket(fd)) return EINVAL;
  const handle = isGiven
    ? net._createServerHandle(null, null, null, fd)
    : net._createServerHandle(address, port, addressType, undefined, flags ?? 0);
  if (typeof handle === 'number' || port !== -1) return handle;
  const mode = (readableAll === true ? READABLE : 0) | (writableAll === true ? WRITABLE : 0);
  const errno = mode === 0 ? 0 : handle.fchmod(mode);
  if (errno === 0) return handle;
  handle.close();
  return errno;
}

function isStreamSocket(fd) {
  return ['tcp', 'pipe'].includes(binding.socketKind(fd));
}

/** Binds a datagram socket, or adopts one. */
function bindDatagram({ address, port, addressType, fd, flags }) {
  // As in Node, 0 stands for no descriptor here.
  if (fd > 0 && binding.socketKind(fd) !== 'udp') return EINVAL;
  const Datagram = datagramConstructor();
  const handle = new Datagram();
  const errno = fd > 0 ? handle.open(fd) : bindTo(handle, address, port, addressType, flags);
  if (errno === 0) return handle;
  handle.close();
  return errno;
}

function bindTo(handle, address, port, addressType, flags) {
  if (!port && !address) return 0;
  const host = address || (addressType === 'udp6' ? '::' : '0.0.0.0');
  const number = port || 0;
  return addressType === 'udp6'
    ? handle.bind6(host, number, flags ?? 0)
    : handle.bind(host, number, flags ?? 0);
}

module.exports = { EACCES, backlogOf, bindDatagram, bindHandle, bindTcp };
