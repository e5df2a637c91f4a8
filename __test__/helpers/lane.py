# The primary's end of a lane, on descriptor 3: a scoreboard in shared memory, and what is needed to
# tell the truth or lie to a worker. lane.test.js appends the story and reads what is said.

import fcntl
import json
import mmap
import os
import socket
import struct
import time

BOARD, CONNECTIONS, LISTENER, PERMITS = 1, 2, 3, 4
OFFERED, CLAIMED, TAKEN, DECLINED, REVOKED, VOID, LACKING = 1, 2, 3, 4, 5, 6, 7
SEAL, SHRINK, GROW = 1, 2, 4
F_ADD_SEALS = 1033

lane = socket.socket(fileno=3)


def memory(size=4096, seals=SHRINK | GROW | SEAL):
    memfd = os.memfd_create('board', os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(memfd, size)
    fcntl.fcntl(memfd, F_ADD_SEALS, seals)
    return memfd


memfd = memory()
board = mmap.mmap(memfd, 4096)


def word(index, value=None):
    if value is not None:
        struct.pack_into('<I', board, 4 * index, value & 0xFFFFFFFF)
    return struct.unpack_from('<I', board, 4 * index)[0]


def slot(sequence, state):
    word(32 + sequence % 256, sequence << 3 | state)


def states(first, count):
    return [word(32 + (first + i) % 256) & 7 for i in range(count)]


def send(kind, listener, first, count, descriptors):
    frame = struct.pack('<IIII', kind, listener, first & 0xFFFFFFFF, count)
    socket.send_fds(lane, [frame], descriptors)


def send_board():
    send(BOARD, 0, 0, 1, [memfd])


# Hands over `count` connections, each the writing end of a pipe; returns the reading ends.
def hand_over(listener, first, count, state=OFFERED):
    pipes = [os.pipe() for _ in range(count)]
    for i in range(count):
        slot(first + i, state)
    send(CONNECTIONS, listener, first, count, [writer for _, writer in pipes])
    for _, writer in pipes:
        os.close(writer)
    return [reader for reader, _ in pipes]


# A listening socket, which the worker gets, and clients of it.
def listen(listener, clients):
    server = socket.create_server(('127.0.0.1', 0))
    server.setblocking(False)
    send(LISTENER, listener, 0, 1, [server.fileno()])
    return server, [socket.create_connection(server.getsockname()) for _ in range(clients)]


def permit(listener, first, count, state=OFFERED):
    for i in range(count):
        slot(first + i, state)
    send(PERMITS, listener, first, count, [])


# What was written to a connection until everybody had closed it.
def text(reader):
    with os.fdopen(reader) as file:
        return file.read()


def wait_until(condition):
    while not condition():
        time.sleep(0.001)


# Of the worker's end; one that was closed with something unread in it is reset.
def wait_for_the_end():
    try:
        assert lane.recv(1) == b''
    except ConnectionResetError:
        pass


def say(value):
    print(json.dumps(value), flush=True)


word(0, 3)
