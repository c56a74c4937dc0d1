#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares what clients were told with what the nodes have.

usage: judge.py gap FILE SINCE             seconds from SINCE to the first acknowledgement after it, by another node or
                                           after a pause
       judge.py reigns FILE...             fails when two nodes acknowledged at one time; prints who did, and until when
       judge.py content DUMP... -- FILE... fails unless all dumps (`tglogutil dump --live --json`) are the same and hold
                                           every acknowledged key
"""

import json
import sys


def acknowledgements(paths):
    rows = []
    for path in paths:
        with open(path) as lines:
            for line in lines:
                words = line.split()
                if len(words) == 4:
                    rows.append((float(words[0]), words[1], words[2], int(words[3])))
    return sorted(rows)


def gap(path, since):
    """The longest time without an acknowledgement that ends after `since`."""
    times = [since] + [row[0] for row in acknowledgements([path]) if row[0] > since]
    if len(times) < 2:
        sys.exit("nothing was acknowledged any more")
    print(f"{max(later - earlier for earlier, later in zip(times, times[1:])):.1f}")


def reigns(paths):
    """A node that acknowledges again after another one did, in an epoch below that one's, had never stopped."""
    found = []
    for when, node, _, epoch in acknowledgements(paths):
        if not found or found[-1][0] != node:
            if found and epoch <= found[-1][3]:
                sys.exit(f"{node} acknowledged epoch {epoch} at {when} after {found[-1][0]} had {found[-1][3]}")
            found.append([node, when, when, epoch])
        found[-1][2] = when
        found[-1][3] = max(found[-1][3], epoch)
    for node, begin, end, epoch in found:
        print(f"  {node} from {begin:.1f} to {end:.1f}, up to epoch {epoch}")
    if not found:
        sys.exit("nothing was acknowledged at all")
    # Two at one time would take turns all the time; all rounds together change the primary some thirty times.
    if len(found) > 60:
        sys.exit(f"{len(found)} changes: nodes acknowledged at one time")


def content(dumps, paths):
    contents = []
    for dump in dumps:
        with open(dump) as lines:
            entries = {}
            for line in lines:
                entry = json.loads(line)
                entries[(entry["storage"], entry["key"])] = entry["value"]
            contents.append(entries)
    for dump, entries in zip(dumps, contents):
        if entries != contents[0]:
            keys = entries.keys() | contents[0].keys()
            differing = [key for key in keys if entries.get(key) != contents[0].get(key)]
            sys.exit(f"{dump} differs from {dumps[0]} in {len(differing)} entries")
    rows = acknowledgements(paths)
    lost = [row for row in rows if contents[0].get((1, row[2].encode().hex())) != f"value-of-{row[2]}".encode().hex()]
    if lost:
        sys.exit(f"{len(lost)} of {len(rows)} acknowledged entries are lost, the first: {lost[0]}")
    print(f"  {len(contents[0])} entries on each of {len(dumps)} nodes, all {len(rows)} acknowledged ones among them")


def main():
    words = sys.argv[2:]
    if sys.argv[1] == "gap":
        gap(words[0], float(words[1]))
    elif sys.argv[1] == "reigns":
        reigns(words)
    else:
        middle = words.index("--")
        content(words[:middle], words[middle + 1:])


main()
