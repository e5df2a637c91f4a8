"""The child of python-child.js: speaks over the descriptor named by NODE_CHANNEL_FD.

Each message is one line of JSON in UTF-8. Objects whose "cmd" begins with "NODE_" are the
runtime's own (handles, cluster): a child that asked for none of that never sees one.
"""

import json
import os
import socket


def open_channel():
    # Taken out of the environment, so that programs started from here do not think it is theirs.
    descriptor = int(os.environ.pop("NODE_CHANNEL_FD"))
    assert os.environ.pop("NODE_CHANNEL_SERIALIZATION_MODE", "json") == "json"
    # The channel is a Unix stream socket. Not inheritable from here on, and blocking.
    channel = socket.socket(fileno=descriptor)
    channel.set_inheritable(False)
    channel.setblocking(True)
    return channel


def send(channel, message):
    channel.sendall(json.dumps(message).encode() + b"\n")


def main():
    with open_channel() as channel:
        send(channel, {"ready": True, "pid": os.getpid()})
        # Reading lines copes with messages that arrive in pieces, or several at once.
        with channel.makefile("r", encoding="utf-8") as lines:
            for line in lines:
                words = json.loads(line)["words"]
                send(channel, {"lengths": {word: len(word) for word in words}})


if __name__ == "__main__":
    main()
