#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Breaks single lines of the code on purpose, one after the other, and says which breaks no test notices.

The breaks are in tests/deliberate_breaks.txt. Each is made in a copy of the last commit, built, and the tests that are
named with it are run; they must fail. Exit code: 0 all were noticed, 1 some were not, 2 a break could not be made.
"""

import argparse
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
COPY = TOP / "target" / "deliberate-breaks"
TIMEOUT_SECONDS = 900


def fail(message):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def read_breaks(text):
    """Blocks: `== title`, `in FILE`, lines with `-` and `+`, `test ARGUMENTS` (several: all are run)."""
    breaks = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("== "):
            breaks.append({"title": line[3:], "file": None, "old": [], "new": [], "tests": []})
            continue
        if not breaks:
            fail(f"line {number}: a title was expected, found `{line}`")
        entry = breaks[-1]
        if line.startswith("in "):
            entry["file"] = line[3:].strip()
        elif line.startswith("test "):
            entry["tests"].append(line[5:].split())
        elif line[0] in "-+":
            entry["old" if line[0] == "-" else "new"].append(line[1:])
        else:
            fail(f"line {number}: not understood: `{line}`")
    for entry in breaks:
        if not (entry["file"] and entry["old"] and entry["tests"]):
            fail(f"`{entry['title']}` lacks a file, lines or a test")
    return breaks


def git(*arguments):
    subprocess.run(["git", "-C", str(TOP), *arguments], check=True, stdout=subprocess.DEVNULL)


def prepare():
    if COPY.exists():
        git("worktree", "remove", "--force", str(COPY))
    git("worktree", "prune")
    git("worktree", "add", "--detach", str(COPY), "HEAD")


def cargo(*arguments):
    command = ["cargo", "test", "--locked", "--target-dir", str(TOP / "target" / "deliberate-breaks-build"), *arguments]
    done = subprocess.run(command, cwd=COPY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT_SECONDS)
    return done.returncode, done.stdout.decode(errors="replace")


def make_and_test(entry):
    path = COPY / entry["file"]
    if not path.exists():
        return "cannot be made: there is no such file"
    before = path.read_text()
    old, new = "\n".join(entry["old"]), "\n".join(entry["new"])
    if before.count(old) != 1:
        return f"cannot be made: its lines are {before.count(old)} times in {entry['file']}"
    try:
        path.write_text(before.replace(old, new))
        for test in entry["tests"]:
            # What stands behind `--` is for the tests, not for the build.
            build = test[: test.index("--")] if "--" in test else test
            status, output = cargo(*build, "--no-run")
            if status != 0:
                return "cannot be made: it does not compile\n" + output[-2000:]
            try:
                status, output = cargo(*test)
            except subprocess.TimeoutExpired:
                return "noticed (a test hangs)"
            if status != 0:
                failed = [line.split()[1] for line in output.splitlines() if line.endswith("... FAILED")]
                return f"noticed by {failed[0] if failed else 'the end of the program'}"
        return "NOT NOTICED"
    finally:
        path.write_text(before)


def main():
    summary, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="only those whose title contains one of the words")
    parser.add_argument("--list", action="store_true", help="print the breaks and make none")
    wanted = parser.parse_args()
    words = wanted.words
    breaks = read_breaks((TOP / "tests" / "deliberate_breaks.txt").read_text())
    breaks = [entry for entry in breaks if not words or any(word in entry["title"] for word in words)]
    if wanted.list:
        for entry in breaks:
            print(f"{entry['title']} ({entry['file']})")
        return 0
    prepare()
    worst = 0
    counts = {"noticed": 0, "NOT": 0, "cannot": 0}
    try:
        for entry in breaks:
            outcome = make_and_test(entry)
            counts[outcome.split()[0]] += 1
            worst = max(worst, {"noticed": 0, "NOT": 1, "cannot": 2}[outcome.split()[0]])
            print(f"{entry['title']}: {outcome}", flush=True)
    finally:
        git("worktree", "remove", "--force", str(COPY))
    print(f"{counts['noticed']} noticed, {counts['NOT']} not noticed, {counts['cannot']} could not be made")
    return worst


if __name__ == "__main__":
    sys.exit(main())
