# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Sourced by demo.sh: a primary and its replica on this machine with a link between them that is cut and healed, a
# replica that is killed and comes back, a primary that is killed, and the takeover by the replica's directory.

# shellcheck disable=SC2154  # engine, tools, work, log and stop come from demo.sh
readonly link=$PWD/build/examples/tcp_link/tcp_link
readonly replica_port=$((20000 + RANDOM % 10000)) link_port=$((30000 + RANDOM % 10000))
readonly replica_directory=$work/replica primary_directory=$work/primary
declare -A process=()

# start <name> <command...>
start() {
    local name=$1
    shift
    "$@" >>"$work/$name.out" 2>>"$log" &
    process[$name]=$!
}

# end <signal> <name>
end() {
    kill "-$1" "${process[$2]}" || stop "the $2 ended by itself"
    wait "${process[$2]}" 2>/dev/null || true
    unset "process[$2]"
}

end_all() {
    local name
    for name in "${!process[@]}"; do
        kill -KILL "${process[$name]}" 2>/dev/null || true
    done
}

start_replica() {
    local before
    before=$(grep -c listening "$work/replica.out" 2>/dev/null || true)
    start replica env TSURUGI_REPLICATION_ENDPOINT="tcp://127.0.0.1:$replica_port" \
        "$tools/tgreplica" "$replica_directory"
    local tries=0
    while [[ $(grep -c listening "$work/replica.out" 2>/dev/null || true) == "$before" ]]; do
        kill -0 "${process[replica]}" 2>/dev/null || stop "tgreplica ended by itself"
        ((++tries <= 3000)) || stop "tgreplica does not listen after 30 seconds"
        sleep 0.01
    done
}

start_link() {
    start link "$link" "$link_port" "$replica_port"
}

# rows <seconds> <what happened>: a line of the table every half second
rows() {
    local remark=$2 i line
    for ((i = 0; i < 2 * $1; ++i)); do
        sleep 0.5
        kill -0 "${process[primary]}" 2>/dev/null || stop "the engine ended by itself"
        line=$(tail -n 1 "$work/primary.out")
        declare -A epoch=()
        for pair in $line; do
            epoch[${pair%%=*}]=${pair#*=}
        done
        printf '%10s  %10s  %10s  %8s  %s\n' "${epoch[switched]:-0}" "${epoch[stored]:-0}" "${epoch[propagated]:-0}" \
            "${epoch[lag]:-0}" "$remark"
        remark=
    done
}

# lag_is_gone <seconds>: waits until the replica has caught up
wait_for_replica() {
    local tries=0
    while [[ $(tail -n 1 "$work/primary.out") =~ lag=([0-9]+) && ${BASH_REMATCH[1]} -gt 100 ]]; do
        ((++tries <= 600)) || stop "the replica did not catch up within 60 seconds"
        sleep 0.1
    done
}

# compare <title> <directory> <file of acknowledgements>
compare() {
    local status=0 counts pair
    counts=$("$engine" verify --dir "$2" --ack-file "$3" 2>>"$log") || status=$?
    [[ $status -le 1 && -n $counts ]] || stop "recovery of $2 failed with status $status"
    declare -A count=()
    for pair in $counts; do
        count[${pair%%=*}]=${pair#*=}
    done
    printf '%-34s  %12d  %12d  %6d  %13d\n' "$1" "${count[acknowledged]}" "${count[recovered]}" "${count[lost]}" \
        "${count[half_sessions]}"
    [[ $status -eq 0 ]] || stop "acknowledged records were lost or sessions are incomplete"
}

demonstrate_replication() {
    trap 'end_all; give_back' EXIT
    mkdir -p "$replica_directory"
    say "a primary and its replica (policy strict, 4 workers, 3 ms epochs); numbers are epochs"
    start_replica
    start_link
    start primary env TSURUGI_REPLICATION_ENDPOINT="tcp://127.0.0.1:$link_port" \
        "$engine" run --dir "$primary_directory" --ack-file "$work/stored" --propagated-file "$work/propagated" \
        --report-ms 100 --seconds 600
    printf '%10s  %10s  %10s  %8s\n' switched STORED PROPAGATED lag
    rows 2 "streaming"
    end KILL link
    rows 2 "the link is cut"
    start_link
    rows 3 "the link is healed"
    wait_for_replica
    end KILL replica
    rows 2 "the replica is killed"
    start_replica
    rows 3 "the replica is started again"
    wait_for_replica
    rows 1 "streaming"
    end KILL primary
    say "the primary is killed; the replica is stopped, its directory takes over"
    end TERM replica
    end KILL link
    trap give_back EXIT
    printf '%-34s  %12s  %12s  %6s  %13s\n' "" acknowledged recovered lost half-sessions
    compare "PROPAGATED, in the replica's place" "$replica_directory" "$work/propagated"
    compare "STORED, in the primary's place" "$primary_directory" "$work/stored"
    say "the engine goes on where the replica ended"
    "$engine" run --dir "$replica_directory" --ack-file "$work/propagated" --seconds 1 >>"$log" 2>&1 ||
        stop "the engine does not run on the directory of the replica"
    compare "after a second on the replica" "$replica_directory" "$work/propagated"
}
