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
