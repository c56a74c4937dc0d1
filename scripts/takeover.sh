#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes a replica's directory a primary's: ends a tgreplica that serves it, when told, and calls `tgreplica promote`.
# Then start the engine on the directory, and never the old primary again without making it a replica first.
# Usage: takeover.sh [--stop] [--force] <logdir>
#   --stop    ends a tgreplica that still serves the directory (SIGTERM) and waits for it, at most 60 seconds
#   --force   see `tgreplica --help`
# The program is taken from $TGREPLICA, or else from beside this script, the build, or PATH.
# Exit codes: 0 promoted; 1 wrong use; 2 the directory is refused; 3 somebody still uses it.
set -euo pipefail

fail() {
    local code=$1
    shift
    printf 'takeover: %s\n' "$*" >&2
    exit "$code"
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tool() {
    local candidate
    for candidate in "$here/tgreplica" "$here/../target/release/tgreplica" "$here/../target/debug/tgreplica"; do
        [[ -x $candidate ]] && printf '%s\n' "$candidate" && return
    done
    command -v tgreplica || fail 1 "tgreplica is not found: set TGREPLICA"
}

stop=
force=()
while [[ ${1:-} == --* ]]; do
    case $1 in
    --stop) stop=yes ;;
    --force) force=(--force) ;;
    *) break ;;
    esac
    shift
done
[[ $# -eq 1 && $1 != -* ]] || fail 1 "usage: takeover.sh [--stop] [--force] <logdir>"
readonly dir=$1
[[ -d $dir ]] || fail 1 "no such directory: $dir"
tgreplica=${TGREPLICA:-$(tool)}

# The process that holds the directory's lock, by the inode of the manifest.
holder() {
    local inode
    inode=$(stat -c %i "$dir/limestone-manifest.json") || return 0
    awk -v inode="$inode" '{ split($6, id, ":") } $2 == "FLOCK" && id[3] == inode { print $5; exit }' /proc/locks
}

if [[ -n $stop ]]; then
    pid=$(holder)
    if [[ -n $pid ]]; then
        [[ $(readlink "/proc/$pid/exe") == *tgreplica ]] || fail 3 "process $pid uses $dir and is no tgreplica"
        printf 'takeover: ending tgreplica (process %s)\n' "$pid"
        kill -TERM "$pid"
        for ((i = 0; i < 600; i++)); do
            [[ $(holder) == "$pid" ]] || break
            sleep 0.1
        done
        [[ $(holder) != "$pid" ]] || fail 3 "process $pid does not end"
    fi
fi
exec "$tgreplica" promote "${force[@]}" "$dir"
