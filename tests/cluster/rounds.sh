# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# The rounds of scripts/test_cluster.sh: each breaks something. `$1` is the number of the node that is primary.

# shellcheck disable=SC2034 # used by who sources this
readonly all=(process_killed node_off link_cut replica_killed disk_full moved two_failures all_off engine_paused
    replica_paused nodes_apart replica_disk_full killed_while_it_ends new_disk)
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
