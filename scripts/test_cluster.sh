#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Failures in a real cluster: three nodes of Corosync and Pacemaker in namespaces of this machine, the resource agent of
# dist/pacemaker, the mini engine, and clients that record what was acknowledged. Needs root.
# Usage: scripts/test_cluster.sh [--tls] [--limits] [--agent | --all | <round>...]
# With --tls the nodes replicate over TLS, with certificates of their own and a list of revoked ones. The rounds are in
# tests/cluster/rounds.sh, see --help. Default: the first four, which `.ci/run` does too. After each round there is one
# primary, all that was acknowledged is there, no two nodes acknowledged at one time, and the time without service is
# printed; at the end all three nodes have the same content. With --limits it fails when a round takes longer than it
# may on a machine that does nothing else. With --agent only the resource agent is called by itself, in odd orders.
set -euo pipefail
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# shellcheck source=tests/cluster/rounds.sh
. tests/cluster/rounds.sh

usage="usage: scripts/test_cluster.sh [--tls] [--limits] [--agent | --all | <round>...]; rounds: ${all[*]}"
rounds=() tls_dir="" with_limits="" agent_only=""
for argument in "$@"; do
    case $argument in
    --help) echo "$usage" && exit 0 ;;
    --tls) tls_dir=/srv/tls ;;
    --limits) with_limits=yes ;;
    --agent) agent_only=yes ;;
    --all) rounds=("${all[@]}") ;;
    *)
        [[ " ${all[*]} " == *" $argument "* ]] || fail "no such round: $argument; $usage"
        rounds+=("$argument")
        ;;
    esac
done
[[ ${#rounds[@]} -gt 0 ]] || rounds=("${all[@]:0:4}")

not_run() {
    say "NOT RUN: the cluster tests: $*"
    exit 0
}

[[ $EUID -eq 0 ]] || not_run "they need root"
# No service of the machine's own is to be started by an installation.
install_cluster() {
    local package missing=()
    for package in pacemaker corosync pacemaker-cli-utils crmsh resource-agents iproute2 jq libxml2-utils openssl; do
        package_is_installed "$package" || missing+=("$package")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    local policy=/usr/sbin/policy-rc.d own=
    if [[ ! -e $policy ]]; then
        own=yes
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    install_now "${missing[@]}" || not_run "the cluster's packages cannot be installed"
    [[ -z $own ]] || rm -f "$policy"
}

# What the nodes are made of; in namespaces of its own, so that nothing is left.
check_machine() {
    unshare --mount --uts --ipc --pid --net --fork bash -c '
        ip link add br0 type bridge && ip link add v1 type veth peer name v2 &&
            mount -t overlay overlay -o lowerdir=/usr/lib:/usr/sbin /mnt' 2>/dev/null ||
        not_run "namespaces, bridges or overlays are not allowed here"
}

set_up
install_cluster
check_machine
build_release -DBUILD_TESTS=OFF

readonly top=$PWD
readonly lab=$PWD/target/cluster
readonly port=7000
readonly virtual=10.77.0.10
background=()

lab() {
    local call=$1
    shift
    "$top/tests/cluster/lab.sh" "$call" "$lab" "$@"
}

on() {
    local node=$1
    shift
    lab enter "$node" "$@"
}

clean_up() {
    kill "${background[@]}" 2>/dev/null || true
    lab stop >/dev/null 2>&1 || true
    give_back
}
trap clean_up EXIT

stop_test() {
    printf 'error: %s\n' "$*" >&2
    local node
    for node in 1 2 3; do
        printf -- '-- node %s\n' "$node" >&2
        timeout 10 "$top/tests/cluster/lab.sh" enter "$lab" "$node" crm_mon -1rA >&2 || true
        tail -n 15 "$lab/n$node/tgreplica.log" "$lab/n$node/engine.log" >&2 || true
    done
    exit 1
}

now() {
    python3 -c 'import time; print(f"{time.monotonic():.6f}")'
}

# --- the cluster ---

# Carries out what the fence agent asks for. A node that was powered off for fencing is powered on again.
power_switch() {
    local request node
    while :; do
        for request in "$lab"/power/*.node*; do
            [[ -e $request ]] || continue
            node=${request##*.node}
            case ${request##*/} in
            off.*) lab kill "$node" || true ;;
            reboot.*)
                lab kill "$node" || true
                (
                    sleep 5
                    lab boot "$node"
                ) &
                ;;
            on.*) lab boot "$node" ;;
            esac
            rm -f "$request"
        done
        sleep 0.1
    done
}

begin_cluster() {
    lab stop >/dev/null 2>&1 || true
    rm -rf "$lab"
    mkdir -p "$lab"/{ocf/tsurugi,sbin,bin,power,clients}
    ln -s "$top/target/release/tgreplica" "$top/build/examples/mini_engine/mini_engine" "$lab/bin"
    install -m 755 dist/pacemaker/limestone "$lab/ocf/tsurugi/limestone"
    install -m 755 tests/cluster/fence_lab "$lab/sbin/fence_lab"
    head -c 32 /dev/urandom | base64 >"$lab/secret"
    chmod 600 "$lab/secret"
    cat >"$lab/engine.sh" <<ENGINE
#!/bin/bash
# The commands of the engine, as the agent calls them. Nobody on a node reaps what has ended.
running() { pgrep -x -r D,R,S,T mini_engine; }
case \$1 in
start)
    setsid "$lab/bin/mini_engine" serve --dir "\${ENGINE_DIR:-/srv/data}" --port $port --name "\$(hostname)" \
        --durable propagated </dev/null >>/srv/engine.log 2>&1 &
    ;;
stop)
    pkill -TERM -x mini_engine
    [[ ! -e /srv/kill_at_end ]] || { rm /srv/kill_at_end && pkill -KILL -x mini_engine; }
    for ((i = 0; i < 300; i++)); do running >/dev/null || exit 0; sleep 0.1; done
    exit 1
    ;;
check) running >/dev/null && exec 3<>/dev/tcp/127.0.0.1/$port ;;
esac
ENGINE
    chmod +x "$lab/engine.sh"
    lab start
    ip netns exec hub ip addr add 10.77.0.100/24 dev br0
    power_switch 2>"$lab/power.log" &
    background+=($!)
    local node
    mkdir -p "$lab"/n{1,2,3}/data
    for node in 1 2 3; do cp -p "$lab/secret" "$lab/n$node/secret"; done
    [[ -z $tls_dir ]] || make_certificates
    for node in 1 2 3; do
        wait_until 90 node_is_online "$node" || not_run "Corosync and Pacemaker do not come up here"
    done
}

# For each node a certificate for its address, of one CA, which has revoked that of a fourth one.
make_certificates() {
    local node ca="$lab/ca"
    mkdir -p "$ca"
    (
        cd "$ca"
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 2 -subj '/CN=the CA of a test' \
            -addext keyUsage=critical,keyCertSign,cRLSign -keyout ca.key -out ca.pem
        for node in 1 2 3 4; do
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj "/CN=node$node" -keyout key$node.pem \
                -out request
            printf 'subjectAltName=IP:10.77.0.%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$node" >extensions
            openssl x509 -req -in request -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions \
                -out cert$node.pem
        done
        touch index.txt && echo 01 >crlnumber
        printf '%s\n' '[ca]' 'default_ca = own' '[own]' 'database = index.txt' 'crlnumber = crlnumber' \
            'default_md = sha256' 'default_crl_days = 2' >ca.conf
        openssl ca -config ca.conf -keyfile ca.key -cert ca.pem -revoke cert4.pem
        openssl ca -config ca.conf -keyfile ca.key -cert ca.pem -gencrl -out crl.pem
    ) >"$ca/log" 2>&1 || stop_test "no certificates can be made: $(tail -n 3 "$ca/log")"
    for node in 1 2 3; do
        mkdir -p "$lab/n$node/tls"
        cp "$ca/ca.pem" "$ca/crl.pem" "$lab/n$node/tls/"
        install -m 600 "$ca/key$node.pem" "$lab/n$node/tls/key.pem"
        cp "$ca/cert$node.pem" "$lab/n$node/tls/cert.pem"
    done
}

# What a replica says to somebody who shows the certificate of node `$1`.
shown_certificate() {
    local node
    node=$(($(primary) % 3 + 1))
    sleep 1 | ip netns exec hub openssl s_client -connect "10.77.0.$node:5433" -CAfile "$lab/ca/ca.pem" \
        -cert "$lab/ca/cert$1.pem" -key "$lab/ca/key$1.pem" -verify_return_error 2>&1 || true
}

check_certificates() {
    [[ $(shown_certificate 4) == *"certificate revoked"* ]] || stop_test "a revoked certificate is taken"
    [[ $(shown_certificate 1) != *alert* ]] || stop_test "the certificate of a node is not taken"
}

node_is_online() {
    on 1 crm_mon -1 2>/dev/null | grep -q "Online:.*node$1"
}

# wait_until <seconds> <command...>
wait_until() {
    local end=$((SECONDS + $1))
    shift
    until "$@" 2>/dev/null; do
        ((SECONDS < end)) || return 1
        sleep 0.3
    done
}

configure() {
    local nodes='node1=tcp://10.77.0.1:5433 node2=tcp://10.77.0.2:5433 node3=tcp://10.77.0.3:5433'
    cat >"$lab/cluster.crm" <<CRM
property stonith-enabled=true no-quorum-policy=stop
rsc_defaults migration-threshold=INFINITY failure-timeout=10s resource-stickiness=1
primitive fence stonith:fence_lab params folder="$lab/power" pcmk_host_list="node1 node2 node3" \
    op monitor interval=60s
primitive store ocf:tsurugi:limestone \
    params directory=/srv/data nodes="$nodes" quorum=1 secret_file=/srv/secret bindir="$top/target/release" \
    ${tls_dir:+tls_dir=$tls_dir} \
    timeout_ms=3000 log=/srv/tgreplica.log engine_start="$lab/engine.sh start" engine_stop="$lab/engine.sh stop" \
    engine_check="$lab/engine.sh check" \
    op start timeout=60s interval=0 op stop timeout=60s interval=0 op promote timeout=60s interval=0 \
    op demote timeout=60s interval=0 op notify timeout=20s interval=0 \
    op monitor interval=2s timeout=20s role=Promoted op monitor interval=3s timeout=20s role=Unpromoted
clone data store meta promotable=true notify=true promoted-max=1 clone-max=3 interleave=true
primitive address ocf:heartbeat:IPaddr2 params ip=$virtual cidr_netmask=24 nic=eth0 \
    op monitor interval=5s timeout=20s
colocation address_with_primary inf: address data:Promoted
order primary_then_address Mandatory: data:promote address:start symmetrical=false
CRM
    on 1 crm --force configure load update "$lab/cluster.crm" || stop_test "the configuration is not accepted"
}

# What the OCF standard asks of an agent, on a node where nothing is configured yet, and what it does not ask.
check_agent() {
    on 1 "$top/tests/cluster/agent.sh" "$lab/ocf/tsurugi/limestone" "$lab" ||
        stop_test "the agent does what is not expected"
    on 1 "$top/build/examples/mini_engine/mini_engine" run --dir /srv/data --ack-file /srv/tester.acks --seconds 1 \
        2>/dev/null >&2
    on 1 ocf-tester -n tester -o directory=/srv/data -o secret_file="$lab/secret" -o bindir="$top/target/release" \
        -o nodes="node1=tcp://127.0.0.1:5433 node2=tcp://10.77.0.2:5433" -o log=/srv/tester.log \
        -o engine_start="$lab/engine.sh start" -o engine_stop="$lab/engine.sh stop" \
        -o engine_check="$lab/engine.sh check" "$lab/ocf/tsurugi/limestone" >"$lab/tester" 2>&1 ||
        { cat "$lab/tester" >&2 && stop_test "the agent is not what the OCF standard expects"; }
    on 1 bash -c 'rm -rf /srv/data && mkdir /srv/data'
    on 1 attrd_updater -n limestone-tester -D
}

primary() {
    local node found
    for node in 1 2 3; do
        found=$(on "$node" "$top/target/release/tgreplica" status --json /srv/data 2>/dev/null) || continue
        [[ $found == *'"role":"primary"'* ]] && echo "$node" && return
    done
    return 1
}

is_acknowledging() {
    local before
    before=$(wc -l <"$lab/clients/address")
    sleep 0.5
    [[ $(wc -l <"$lab/clients/address") -gt $before ]]
}

# One node serves with its engine, the others stream.
is_whole() {
    local node document streaming=0 primaries=0
    for node in 1 2 3; do
        document=$(on "$node" timeout 5 "$top/target/release/tgreplica" status --json /srv/data 2>/dev/null) || return 1
        case $document in
        *'"role":"primary"'*) primaries=$((primaries + 1)) ;;
        *'"state":"streaming"'*) streaming=$((streaming + 1)) ;;
        esac
    done
    [[ $primaries -eq 1 && $streaming -eq 2 ]]
}

# A client on the address of the cluster, and one on each node, which would hear a node that acknowledges when it must
# not. The latter live in the node's network and survive its power.
begin_clients() {
    ip netns exec hub python3 tests/cluster/client.py "$virtual" "$port" address "$lab/clients/address" &
    background+=($!)
    local node
    for node in 1 2 3; do
        ip netns exec "node$node" python3 tests/cluster/client.py "10.77.0.$node" "$port" "local$node" \
            "$lab/clients/local$node" &
        background+=($!)
    done
}

# --- a round ---

play() {
    local round=$1 node since gap
    wait_until 120 is_whole || stop_test "before $round: not all nodes are there"
    wait_until 30 is_acknowledging || stop_test "before $round: nothing is acknowledged"
    node=$(primary)
    since=$(now)
    say "$round (primary: node$node)"
    "$round" "$node"
    wait_until 120 is_acknowledging || stop_test "$round: nothing is acknowledged any more"
    wait_until 120 is_whole || stop_test "$round: not all nodes came back"
    gap=$(python3 tests/cluster/judge.py gap "$lab/clients/address" "$since")
    printf '  without service for %s s, now node%s is primary\n' "$gap" "$(primary)"
    if [[ ${gap%.*} -ge ${limits[$round]:-1000} ]]; then
        printf '  more than the %s s that are allowed on a machine of its own\n' "${limits[$round]}"
        [[ -z $with_limits ]] || stop_test "$round takes too long"
    fi
    python3 tests/cluster/judge.py reigns "$lab"/clients/* >"$lab/reigns" || stop_test "$round: two nodes acknowledged"
}

compare_content() {
    kill "${background[@]:1}" 2>/dev/null || true
    sleep 1
    wait_until 60 is_whole || stop_test "not all nodes are there at the end"
    # An orderly end of the primary gives the replicas what they lack.
    on 1 crm resource stop data >/dev/null
    local node
    for node in 1 2 3; do
        wait_until 60 nobody_serves "$node" || stop_test "node $node does not stop"
        wait_until 60 dump "$node" ||
            stop_test "the content of node $node cannot be read: $(tail -n 1 "$lab/dump$node.log")"
    done
    python3 tests/cluster/judge.py content "$lab"/dump? -- "$lab"/clients/* || stop_test "acknowledged entries are lost"
}

# An engine that ends answers no more while it still puts its log in order.
dump() {
    target/release/tglogutil dump --live --json "$lab/n$1/data" >"$lab/dump$1" 2>"$lab/dump$1.log"
}

nobody_serves() {
    local code=0
    on "$1" "$top/target/release/tgreplica" status /srv/data >/dev/null 2>&1 || code=$?
    [[ $code -eq 6 ]]
}

say "three nodes"
begin_cluster
say "the agent by itself"
check_agent
[[ -z $agent_only ]] || exit 0
configure
wait_until 90 primary >/dev/null || stop_test "nobody was promoted"
begin_clients
if [[ -n $tls_dir ]]; then
    wait_until 120 is_whole || stop_test "not all nodes are there"
    check_certificates
fi
for round in "${rounds[@]}"; do
    play "$round"
done
cat "$lab/reigns"
compare_content
say "all ${#rounds[@]} rounds held"
