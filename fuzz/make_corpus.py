#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes fuzz/corpus from the golden directories: one file per distinct input of at most 4 KiB.

An input of the scanner is a byte of flags (bit 0: the directory is older than end markers, bit 1: the file is rotated),
the durable epoch as eight little-endian bytes, then the log file.
"""
import hashlib
import json
import pathlib
import shutil
import struct
import zlib

FUZZ = pathlib.Path(__file__).resolve().parent
GOLDEN = FUZZ.parent / "tests/golden/disk"
WIRE = FUZZ.parent / "tests/golden/wire"
INPUT_BYTES_MAX = 4096


def put(target, content):
    if len(content) <= INPUT_BYTES_MAX:
        folder = FUZZ / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / hashlib.sha1(content).hexdigest()[:16]).write_bytes(content)


def log_input(durable, log, flags=0):
    return bytes([flags]) + struct.pack("<Q", durable) + log


shutil.rmtree(FUZZ / "corpus", ignore_errors=True)
for data in sorted(GOLDEN.glob("*/data")):
    records = (data / "epoch").read_bytes() if (data / "epoch").exists() else b""
    whole = [struct.unpack("<Q", records[i + 1 : i + 9])[0] for i in range(0, len(records) - 8, 9)]
    for path in sorted(data.iterdir()):
        if not path.is_file():
            continue
        content = path.read_bytes()
        if path.name.startswith("pwal_"):
            put("scanner", log_input(max(whole, default=0), content, 0 if len(path.name) <= 9 else 2))
        elif path.name.startswith("epoch"):
            put("epoch_file", content)
        elif path.name.startswith("limestone-manifest"):
            put("manifest", content)
        elif path.name.startswith("compaction_catalog"):
            put("catalog", content)
matrix = json.loads((GOLDEN / "parse_matrix.json").read_text())
for case in matrix["cases"]:
    for flags in range(4):
        put("scanner", log_input(matrix["durable_epoch"], bytes.fromhex(case["pwal"]), flags))
for path in sorted(WIRE.glob("*/*.bin")):
    put("upstream_wire", path.read_bytes())


def frame(kind, payload=b"", epoch=0, channel=0):
    body = struct.pack("<IBQI", len(payload), kind, epoch, channel) + payload
    return body + struct.pack("<I", zlib.crc32(body))


def name(text):
    return bytes([len(text)]) + text


session = bytes([2]) + struct.pack("<Q", 11) + bytes([3]) + struct.pack("<QB", 11, 1)
history = struct.pack("<QHQQQQ", 2, 2, 1, 0, 2, 8)
identity = bytes(32) + b"\1" + name(b"uuid") + history + struct.pack("<QQIIQ", 10, 1, 2, 8, 0)
answer = b"\1" + name(b"uuid") + struct.pack("<QQBIQ", 2, 9, 2, 8, 0)
frames = [
    frame(0x01, struct.pack("<HHBI", 2, 2, 2, 3) + bytes(range(48))),
    frame(0x02, struct.pack("<H", 2) + bytes(64)),
    frame(0x03, identity),
    frame(0x03, bytes(33)),
    frame(0x04, answer),
    frame(0x04, b"\0"),
    frame(0x05, struct.pack("<H", 6) + b"diverged"),
    frame(0x10, channel=3),
    frame(0x12, b"\1" + session[:9], 11, 3) + frame(0x12, b"\2" + session[9:], 11, 3),
    frame(0x12, b"\3" + session, 12, 3),
    frame(0x13, struct.pack("<Q", 2), 12),
    frame(0x11, channel=3),
    frame(0x20, struct.pack("<QQ", 12, 11)),
    frame(0x21, struct.pack("<QQ", 5000, 4000), epoch=11),
    frame(0x22, epoch=12),
    frame(0x23, struct.pack("<QQ", 1, 2)),
    frame(0x24, struct.pack("<QQ", 1, 2)),
    frame(0x25, struct.pack("<H", 12) + b"disk full"),
    frame(0x26),
    frame(0x30, struct.pack("<QQQQBI", 1, 7, 8, 0, 0, 0) + b"BLOB"),
    frame(0x30, struct.pack("<QQQQBI", 1, 7, 8, 4, 1, zlib.crc32(b"BLOBBLOB")) + b"BLOB"),
    frame(0x40, struct.pack("<QI", 5, zlib.crc32(b"hello")) + name(b"blob/dir_07/7.blob")),
    frame(0x41, struct.pack("<Q", 0)),
    frame(0x42, struct.pack("<Q", 0) + b"hello"),
    frame(0x43),
    frame(0x44, struct.pack("<Q", 1)),
    frame(0x45),
]
for one in frames:
    put("native_wire", one)
put("native_wire", b"".join(frames))
put("native_wire", b"\x89TSGRP\r\n" + frames[0])
