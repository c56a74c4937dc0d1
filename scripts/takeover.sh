#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes sure that a replica's directory can take over: nobody serves it any more, a start would take it, and up to which
# epoch it has everything. Changes nothing. Then start the engine on the directory, and never the old primary again
# without making it a replica first.
# Usage: takeover.sh [--stop] <logdir>
#   --stop   ends a tgreplica that still serves the directory (SIGTERM) and waits for it, at most 60 seconds
# The tools are taken from $TGREPLICA and $TGLOGUTIL, or else from beside this script, the build, or PATH.
# Exit codes: 0 ready; 1 wrong use; 2 the directory cannot be used; 3 somebody still uses it.
set -euo pipefail

fail() {
    local code=$1
    shift
    printf 'takeover: %s\n' "$*" >&2
    exit "$code"
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tool() {
    local name=$1 candidate
    for candidate in "$here/$name" "$here/../target/release/$name" "$here/../target/debug/$name"; do
        [[ -x $candidate ]] && printf '%s\n' "$candidate" && return
    done
    command -v "$name" || fail 1 "$name is not found: set $2"
}

stop=
if [[ ${1:-} == --stop ]]; then
    stop=yes
    shift
fi
[[ $# -eq 1 && $1 != -* ]] || fail 1 "usage: takeover.sh [--stop] <logdir>"
readonly dir=$1
[[ -d $dir ]] || fail 1 "no such directory: $dir"
tgreplica=${TGREPLICA:-$(tool tgreplica TGREPLICA)}
tglogutil=${TGLOGUTIL:-$(tool tglogutil TGLOGUTIL)}

# 0: somebody serves the directory, 6: nobody.
serves() {
    local code=0
    "$tgreplica" --status "$dir" --json || code=$?
    [[ $code -eq 0 || $code -eq 6 ]] || fail 2 "the state of $dir cannot be read"
    return "$code"
}

# The process that holds the directory's lock, by the inode of the manifest.
holder() {
    local inode
    inode=$(stat -c %i "$dir/limestone-manifest.json") || return 0
    awk -v inode="$inode" '{ split($6, id, ":"); if ($2 == "FLOCK" && id[3] == inode) print $5 }' /proc/locks | head -n 1
}

if serves >/dev/null; then
    [[ -n $stop ]] || fail 3 "tgreplica still serves $dir: end it with SIGTERM, or call this with --stop"
    pid=$(holder)
    [[ -n $pid && $(readlink "/proc/$pid/exe") == *tgreplica ]] || fail 3 "the process that serves $dir is not found"
    printf 'takeover: ending tgreplica (process %s)\n' "$pid"
    kill -TERM "$pid"
    for ((i = 0; i < 600; i++)); do
        [[ $(holder) == "$pid" ]] || break
        sleep 0.1
    done
    [[ $(holder) != "$pid" ]] || fail 3 "process $pid does not end"
fi

# Takes the lock for a moment, so it also says when anybody else has it. 1: warnings, such as sessions that were never
# durable, which a start takes away.
code=0
report=$("$tglogutil" verify "$dir" --json 2>&1) || code=$?
if [[ $report == *"in use by another process"* ]]; then
    fail 3 "another process uses $dir: $report"
fi
[[ $code -le 1 ]] || fail 2 "a start would refuse $dir or BLOBs are missing: $report"

durable=$("$tgreplica" --status "$dir" --json || true)
durable=$(sed -n 's/.*"propagated_epoch":\([0-9]*\).*/\1/p' <<<"$durable")
printf 'takeover: %s is ready, durable epoch %s\n' "$dir" "$durable"
printf 'takeover: start the engine on it; everything that was reported PROPAGATED is there\n'
