#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A client of the mini engine: puts one entry after the other and records what was acknowledged.

usage: client.py ADDRESS PORT PREFIX FILE

Each line of FILE is `<seconds> <node> <key> <epoch>`: when the acknowledgement came (monotonic clock of the machine),
who gave it, for which key and in which epoch. An entry without an answer is not tried again under the same key.
"""

import socket
import sys
import time

PATIENCE = 1.0


def main():
    address, port, prefix, path = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
    number = 0
    with open(path, "w", buffering=1) as acknowledged:
        while True:
            try:
                with socket.create_connection((address, port), timeout=PATIENCE) as connection:
                    connection.settimeout(PATIENCE)
                    stream = connection.makefile("rw", newline="\n")
                    node = stream.readline().split()[1]
                    while True:
                        number += 1
                        key = f"{prefix}-{number}"
                        stream.write(f"put {key} value-of-{key}\n")
                        stream.flush()
                        word, answered, epoch = stream.readline().split()
                        if word != "ok" or answered != key:
                            raise ValueError(word)
                        acknowledged.write(f"{time.monotonic():.6f} {node} {key} {epoch}\n")
            except (OSError, ValueError, IndexError):
                time.sleep(0.1)


main()
