# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# The rounds of scripts/test_cluster.sh: each breaks something. `$1` is the number of the node that is primary.

# shellcheck disable=SC2034 # used by who sources this
readonly all=(process_killed node_off link_cut replica_killed disk_full moved two_failures all_off engine_paused
    replica_paused nodes_apart replica_disk_full killed_while_it_ends new_disk primary_standby service_stopped
    stopped_one_has_most ended_in_base_sync lost_in_base_sync off_while_one_rejoins both_replicas_off link_flaps
    wrong_secret replica_emptied primary_emptied old_copy)
# For how many seconds nobody may serve.
# shellcheck disable=SC2034
readonly -A limits=([process_killed]=10 [node_off]=20)

process_killed() {
    on "$1" pkill -KILL -x mini_engine
}

node_off() {
    lab kill "$1"
}

link_cut() {
    lab cut "$1"
    # The node is fenced; its link is there again when it comes back.
    sleep 12
    lab heal "$1"
}

replica_killed() {
    on "$(($1 % 3 + 1))" pkill -KILL -x tgreplica
}

# The log of the primary finds no room from now on.
disk_full() {
    on "$1" prlimit --fsize=1 --pid "$(on "$1" pgrep -x -r D,R,S,T mini_engine)"
}

moved() {
    on "$1" crm resource move data "node$(($1 % 3 + 1))" force >/dev/null
    sleep 15
    on "$(($1 % 3 + 1))" crm resource clear data >/dev/null
}

two_failures() {
    lab kill "$1"
    wait_until 60 primary_is_not "$1" || stop_test "nobody was promoted after the first failure"
    local second
    second=$(primary)
    wait_until 120 is_whole || stop_test "the lost node did not come back after the first failure"
    on "$second" pkill -KILL -x mini_engine
}

primary_is_not() {
    local found
    found=$(primary) && [[ $found != "$1" ]]
}

all_off() {
    local node
    for node in 1 2 3; do lab kill "$node"; done
    sleep 3
    for node in 1 2 3; do lab boot "$node"; done
}

# It serves nobody for longer than anybody waits for it, and finds out later.
engine_paused() {
    local engine
    engine=$(on "$1" pgrep -x -r D,R,S,T mini_engine)
    on "$1" kill -STOP "$engine"
    sleep 25
    on "$1" kill -CONT "$engine" || true
}

replica_paused() {
    local node=$(($1 % 3 + 1)) replica
    replica=$(on "$node" pgrep -x -r D,R,S,T tgreplica)
    on "$node" kill -STOP "$replica"
    sleep 15
    on "$node" kill -CONT "$replica" || true
}

# Two nodes do not reach each other any more, and the third one both.
nodes_apart() {
    local other=$(($1 % 3 + 1))
    ip netns exec "node$1" ip route add blackhole "10.77.0.$other/32"
    ip netns exec "node$other" ip route add blackhole "10.77.0.$1/32"
    sleep 20
    ip netns exec "node$1" ip route del blackhole "10.77.0.$other/32"
    ip netns exec "node$other" ip route del blackhole "10.77.0.$1/32"
}

# The log of a replica finds no room from now on.
replica_disk_full() {
    local node=$(($1 % 3 + 1))
    on "$node" prlimit --fsize=1 --pid "$(on "$node" pgrep -x -r D,R,S,T tgreplica)"
}

# Its engine is killed when it has heard that it is to end.
killed_while_it_ends() {
    local node=$(($1 % 3 + 1))
    touch "$lab/n$1/kill_at_end"
    on "$1" crm resource move data "node$node" force >/dev/null
    wait_until 60 has_been_killed "$1" || stop_test "the engine of node$1 is not told to end"
    sleep 15
    on "$node" crm resource clear data >/dev/null
}

has_been_killed() {
    [[ ! -e $lab/n$1/kill_at_end ]]
}

# A node loses its disk, and the primary dies while that node gets a copy.
new_disk() {
    local node=$(($1 % 3 + 1))
    lab kill "$node"
    sleep 1
    rm -rf "${lab:?}/n$node/data"
    mkdir "$lab/n$node/data"
    wait_until 120 has_begun_anew "$node" || stop_test "the node with the new disk does not come back"
    on "$1" pkill -KILL -x mini_engine
}

has_begun_anew() {
    [[ -e $lab/n$1/data/limestone-manifest.json ]]
}

primary_standby() {
    on "$1" crm_standby -N "node$1" -v on
    wait_until 60 primary_is_not "$1" || stop_test "nobody takes over from a node in standby"
    on "$1" crm_standby -N "node$1" -v off
}

# As somebody does before an update.
service_stopped() {
    on "$1" pkill -TERM -x pacemakerd
    wait_until 60 no_process "$1" pacemakerd || stop_test "Pacemaker does not end on node$1"
    wait_until 60 no_process "$1" mini_engine || stop_test "the engine outlives Pacemaker on node$1"
    wait_until 60 primary_is_not "$1" || stop_test "nobody takes over from a node without Pacemaker"
    on "$1" pacemakerd >>"$lab/n$1/pacemaker.log" 2>&1 &
}

no_process() {
    ! on "$1" pgrep -x -r D,R,S,T "$2" >/dev/null
}

# One replica is behind while the other one has everything, and is stopped; then the primary is lost. What the stopped
# one said when it was looked at last is less than what it has.
stopped_one_has_most() {
    local late=$(($1 % 3 + 1)) stopped=$((($1 + 1) % 3 + 1)) replica
    replica=$(on "$late" pgrep -x -r D,R,S,T tgreplica)
    on "$late" kill -STOP "$replica"
    on "$stopped" crm_standby -N "node$stopped" -v on
    wait_until 30 no_process "$stopped" tgreplica || stop_test "the replica of node$stopped does not end"
    lab kill "$1"
    on "$late" kill -CONT "$replica" || true
    sleep 10
    on "$stopped" crm_standby -N "node$stopped" -v off
}

# A replica with an empty directory is killed while it gets a copy, stopped while it gets the next one, and its machine
# is lost during the third.
ended_in_base_sync() {
    local node=$(($1 % 3 + 1))
    begin_base_sync "$1" "$node"
    on "$node" pkill -KILL -x tgreplica
    wait_until 60 is_whole || stop_test "a replica that was killed in a base sync does not come back"
    begin_base_sync "$1" "$node"
    on "$node" crm_standby -N "node$node" -v on
    wait_until 60 no_process "$node" tgreplica || stop_test "a replica does not end in a base sync"
    on "$node" crm_standby -N "node$node" -v off
    wait_until 60 is_whole || stop_test "a replica that was stopped in a base sync does not come back"
    begin_base_sync "$1" "$node"
    lab kill "$node"
    ip netns exec hub tc qdisc del dev "v$node" root
}

# The primary is stopped, killed and lost while a replica gets a copy of what it has.
lost_in_base_sync() {
    local node=$1 filled lose
    for lose in primary_standby process_killed "lab kill"; do
        filled=$((node % 3 + 1))
        begin_base_sync "$node" "$filled"
        $lose "$node"
        sleep 1
        ip netns exec hub tc qdisc del dev "v$filled" root
        wait_until 120 is_whole || stop_test "not all come back after '$lose' in a base sync"
        node=$(primary)
    done
}

# Until node `$2` gets a copy of what `$1` has compacted, over a slow link so that it takes some seconds.
begin_base_sync() {
    [[ -n $is_filled ]] || fill
    is_filled=yes
    touch "$lab/n$1/data/ctrl/start_compaction"
    wait_until 60 has_compacted "$1" || stop_test "node$1 does not compact"
    ip netns exec hub tc qdisc replace dev "v$2" root tbf rate 20mbit burst 64k latency 300ms
    # It may have found out, and ended, by itself.
    on "$2" bash -c 'rm -rf /srv/data/*; pkill -KILL -x tgreplica' || true
    wait_until 60 is_in_base_sync "$2" || stop_test "node$2 gets no base sync"
}

is_filled=
fill() {
    # shellcheck disable=SC2016
    timeout 120 ip netns exec hub bash -c '
        exec 3<>"/dev/tcp/$0/$1" && read -r hello <&3 && value=$(openssl rand -hex 30000)
        for ((i = 0; i < 400; i++)); do
            echo "put large-$i $value" >&3 && read -r word rest <&3 && [[ $word == ok ]] || exit 1
        done' "$virtual" "$port" || stop_test "the primary takes no large entries"
}

has_compacted() {
    [[ ! -e $lab/n$1/data/ctrl/start_compaction ]] && compgen -G "$lab/n$1/data/*.compacted" >/dev/null
}

is_in_base_sync() {
    on "$1" "$lab/bin/tgreplica" status --json /srv/data | grep -q '"state":"base sync"'
}

# A machine is lost just when another one has come back.
off_while_one_rejoins() {
    local node=$(($1 % 3 + 1))
    lab kill "$node"
    sleep 2
    wait_until 120 runs "$node" tgreplica || stop_test "node$node does not come back"
    lab kill "$1"
}

runs() {
    on "$1" pgrep -x "$2" >/dev/null
}

both_replicas_off() {
    local node
    for node in 1 2 3; do [[ $node -eq $1 ]] || lab kill "$node"; done
    sleep 10
    for node in 1 2 3; do [[ $node -eq $1 ]] || lab boot "$node"; done
}

# The link of the primary, every second.
link_flaps() {
    local i
    for ((i = 0; i < 15; i++)); do
        lab cut "$1"
        sleep 1
        lab heal "$1"
        sleep 1
    done
}

# A replica with another secret is none, and comes back when it has that of the others.
wrong_secret() {
    local node=$(($1 % 3 + 1))
    echo another-secret-that-the-others-do-not-have >"$lab/n$node/secret"
    on "$node" pkill -KILL -x tgreplica
    sleep 8
    process_killed "$1"
    sleep 10
    cp "$lab/secret" "$lab/n$node/secret"
    on "$node" pkill -KILL -x tgreplica || true
}

# Somebody takes the files away from under the process that serves them.
replica_emptied() {
    rm -rf "${lab:?}/n$(($1 % 3 + 1))/data/"*
}

primary_emptied() {
    rm -rf "${lab:?}/n$1/data/"*
}

# A node comes back with what it had some time ago.
old_copy() {
    local node=$(($1 % 3 + 1))
    lab kill "$node"
    sleep 1
    cp -a "$lab/n$node/data" "$lab/n$node/old"
    wait_until 120 is_whole || stop_test "node$node does not come back"
    sleep 5
    lab kill "$node"
    sleep 1
    rm -rf "$lab/n$node/data"
    mv "$lab/n$node/old" "$lab/n$node/data"
}
