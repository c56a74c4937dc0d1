#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the library, opens data directories that the original wrote, and kills a small transaction engine in full
# flight again and again: nothing that it acknowledged may be lost. Then the same with a replica that takes over.
# Usage: scripts/demo.sh [rounds], default 10.
set -euo pipefail
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

rounds=${1:-10}
[[ $rounds =~ ^[1-9][0-9]*$ ]] || fail "rounds: expected a positive number, found $rounds"

set_up
build_release -DBUILD_TESTS=OFF

readonly engine=$PWD/build/examples/mini_engine/mini_engine
readonly tools=$PWD/target/release
readonly work=$PWD/target/demo
readonly log=$work/library.log
rm -rf "$work"
mkdir -p "$work"

stop() {
    printf 'error: %s\n' "$*" >&2
    printf 'the last lines of %s:\n' "$log" >&2
    tail -n 20 "$log" >&2
    exit 1
}

# Opening a directory changes it, so a copy is opened.
show_golden() {
    local name=$1 golden=tests/golden/disk/$1
    say "entries of $golden, written by the original"
    cp -r "$golden/data" "$work/$name"
    "$engine" print --dir "$work/$name" 2>>"$log" || stop "cannot open the copy of $golden"
}

# Starts the engine, waits until it acknowledges, lets it run for a random time and kills it.
kill_in_flight() {
    local size_before pid status=0
    size_before=$(stat -c %s "$work/acknowledged" 2>/dev/null || echo 0)
    "$engine" run --dir "$work/engine" --ack-file "$work/acknowledged" --seconds 600 >>"$log" 2>&1 &
    pid=$!
    local tries=0
    while [[ $(stat -c %s "$work/acknowledged" 2>/dev/null || echo 0) -le $size_before ]]; do
        kill -0 "$pid" 2>/dev/null || stop "the engine ended by itself"
        ((++tries <= 3000)) || stop "no acknowledgement within 30 seconds"
        sleep 0.01
    done
    sleep "$(printf '%d.%03d' $((RANDOM % 2)) $((RANDOM % 1000)))"
    kill -KILL "$pid" || stop "the engine ended by itself"
    wait "$pid" 2>/dev/null || status=$?
    [[ $status -eq 137 ]] || stop "the engine ended with status $status, not by the kill"
}

show_golden many_sessions_channels
show_golden storage_and_key_order

say "killing the mini engine $rounds times (4 workers, 3 ms epochs); the counts are records since the first round"
printf '%5s  %12s  %12s  %6s  %13s\n' round acknowledged recovered lost half-sessions
bad=0
for ((round = 1; round <= rounds; ++round)); do
    kill_in_flight
    status=0
    counts=$("$engine" verify --dir "$work/engine" --ack-file "$work/acknowledged" 2>>"$log") || status=$?
    [[ $status -le 1 && -n $counts ]] || stop "recovery failed with status $status"
    declare -A count=()
    for pair in $counts; do
        count[${pair%%=*}]=${pair#*=}
    done
    printf '%5d  %12d  %12d  %6d  %13d\n' "$round" "${count[acknowledged]}" "${count[recovered]}" "${count[lost]}" \
        "${count[half_sessions]}"
    [[ $status -eq 0 ]] || bad=$((bad + 1))
done
[[ $bad -eq 0 ]] || stop "$bad of $rounds rounds lost acknowledged records or left half a session"
say "nothing acknowledged was lost in $rounds kills"

# shellcheck source=scripts/demo_replication.sh
. scripts/demo_replication.sh
demonstrate_replication
