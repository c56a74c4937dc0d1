#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The resource agent in odd orders and states, on a node of lab.sh where no resource is configured.
# usage: agent.sh AGENT FOLDER   FOLDER holds `bin`, `engine.sh` and `secret`. Ends with 1 at the first surprise.
set -u
readonly agent=$1 folder=$2
readonly data=/srv/agent/data
export OCF_ROOT=/usr/lib/ocf OCF_RESOURCE_INSTANCE=odd:0 OCF_RESKEY_CRM_meta_timeout=30000 \
    OCF_RESKEY_CRM_meta_interval=2000 OCF_RESKEY_directory=$data OCF_RESKEY_secret_file=$folder/secret \
    OCF_RESKEY_bindir=$folder/bin OCF_RESKEY_nodes="node1=tcp://127.0.0.1:5433 node2=tcp://127.0.0.1:5434" \
    OCF_RESKEY_log=/srv/agent/log OCF_RESKEY_engine_start="ENGINE_DIR=$data $folder/engine.sh start" \
    OCF_RESKEY_engine_stop="$folder/engine.sh stop" OCF_RESKEY_engine_check="$folder/engine.sh check"
readonly ok=0 generic=1 not_installed=5 not_configured=6 not_running=7 promoted=8 failed_promoted=9

surprise() {
    printf 'error: the agent: %s\n' "$*" >&2
    tail -n 5 /srv/agent/said /srv/agent/log >&2
    finish
    exit 1
}

# Nothing of this is left to what comes next on this node.
finish() {
    pkill -KILL -x mini_engine
    pkill -KILL -x tgreplica
    attrd_updater -n limestone-odd -D
}

# expect <code> <action> [<variable>=<value>...]
expect() {
    local wanted=$1 action=$2 code=0
    shift 2
    env "$@" timeout 120 "$agent" "$action" >/srv/agent/said 2>&1 || code=$?
    [[ $code -eq $wanted ]] || surprise "$now: $action $* gave $code, $wanted was expected"
}

# How many processes of that name there are, which have not ended.
count() {
    pgrep -c -r D,R,S,T -x "$1"
}

serve() {
    [[ $(count tgreplica) -eq $1 && $(count mini_engine) -eq $2 ]] ||
        surprise "$now: $(count tgreplica) replicas and $(count mini_engine) engines, expected $1 and $2"
}

is_stopped() {
    expect $not_running monitor
    serve 0 0
}

pause() {
    kill -STOP "$(pgrep -r D,R,S -x "$1")"
}

# What this node says that it has, and what its directory says.
said() {
    attrd_updater -n limestone-odd -Q 2>/dev/null | sed -nE 's/.*value="([^"]*)".*/\1/p'
}

has() {
    "$folder/bin/tgreplica" status --json $data | jq -r '"\(.claim.term // 0):\(.claim.epoch // 0):\(.term // 0)"'
}

calls_twice() {
    expect $not_running demote
    expect $not_running promote
    expect $ok stop
    is_stopped
    expect $ok start
    expect $ok start
    expect $ok monitor
    expect $ok demote
    serve 1 0
    expect $ok promote
    expect $ok promote
    expect $promoted monitor
    expect $generic start
    serve 0 1
    expect $ok demote
    expect $ok demote
    expect $ok monitor
    serve 1 0
    expect $ok stop
    expect $ok stop
    is_stopped
    expect $not_running demote
}

strange_notifications() {
    expect $ok notify OCF_RESKEY_CRM_meta_notify_type='a -n b' OCF_RESKEY_CRM_meta_notify_operation=-1
    expect $ok notify OCF_RESKEY_CRM_meta_notify_type=pre OCF_RESKEY_CRM_meta_notify_operation=promote
    expect $ok notify OCF_RESKEY_CRM_meta_notify_type=pre OCF_RESKEY_CRM_meta_notify_operation=promote \
        OCF_RESKEY_directory=/nowhere
}

crashes() {
    expect $ok start
    pkill -KILL -x tgreplica
    is_stopped
    expect $ok start
    expect $ok promote
    pkill -KILL -x mini_engine
    is_stopped
    expect $not_running demote
    expect $ok stop
    expect $ok start
    expect $ok promote
    expect $ok stop
    is_stopped
}

hanging() {
    expect $ok start
    pause tgreplica
    expect $generic monitor
    expect $ok notify OCF_RESKEY_CRM_meta_notify_type=pre OCF_RESKEY_CRM_meta_notify_operation=promote
    [[ -z $(said) ]] || surprise "$now: one that does not answer says $(said)"
    expect $generic promote
    SECONDS=0
    expect $ok stop
    ((SECONDS < 30)) || surprise "$now: it took $SECONDS s to stop a replica that does not answer"
    is_stopped
    expect $ok start
    expect $ok promote
    pause mini_engine
    expect $failed_promoted monitor
    expect $generic start
    SECONDS=0
    expect $ok demote
    ((SECONDS < 30)) || surprise "$now: it took $SECONDS s to demote an engine that does not answer"
    serve 1 0
    expect $ok promote
    pause mini_engine
    expect $ok stop
    is_stopped
    # One that has the directory and has not begun to serve it.
    flock --no-fork $data/limestone-manifest.json sleep 1000 &
    while flock -n $data/limestone-manifest.json true; do sleep 0.1; done
    expect $failed_promoted monitor
    expect $generic start
    expect $ok stop
    is_stopped
}

# The directory goes away from under whoever serves it.
directory_taken() {
    local served_by
    for served_by in tgreplica mini_engine; do
        local failed=$generic
        [[ $served_by == tgreplica ]] || failed=$failed_promoted
        # Emptied.
        begin_with $served_by
        rm -rf ${data:?}/*
        expect $failed monitor
        expect $ok stop
        is_stopped
        # In place of it an old copy.
        restore
        begin_with $served_by
        mv $data /srv/agent/moved && restore
        expect $failed monitor
        expect $generic start
        expect $ok stop
        is_stopped
        # Nothing.
        restore
        begin_with $served_by
        mv $data /srv/agent/moved
        expect $failed monitor
        expect $ok stop
        is_stopped
        restore
    done
}

# The engine would find out by itself and end.
begin_with() {
    expect $ok start
    [[ $1 == tgreplica ]] || { expect $ok promote && pause mini_engine; }
}

restore() {
    rm -rf $data /srv/agent/moved.old
    [[ ! -e /srv/agent/moved ]] || mv /srv/agent/moved /srv/agent/moved.old
    cp -a /srv/agent/copy $data
}

directory_missing() {
    rm -rf $data
    expect $not_running monitor
    expect $not_installed start
    expect $not_installed promote
    expect $not_running demote
    expect $not_installed validate-all
    expect $ok stop
    restore
    echo garbage >$data/epoch
    expect $not_running monitor
    expect $generic start
    expect $ok stop
    [[ -z $(said) ]] || surprise "$now: a damaged directory says $(said)"
    restore
    chown nobody $data
    chmod 500 $data
    expect $not_installed start OCF_RESKEY_user=nobody
    expect $not_running monitor OCF_RESKEY_user=nobody
    expect $ok stop OCF_RESKEY_user=nobody
    restore
    expect $not_installed monitor OCF_RESKEY_bindir=/nowhere
    expect $ok stop OCF_RESKEY_bindir=/nowhere
    expect $ok start
    expect $ok stop OCF_RESKEY_bindir=/nowhere
    is_stopped
}

wrong_settings() {
    local two=$OCF_RESKEY_nodes injected="a[\$(touch /srv/agent/run)]"
    expect $ok validate-all
    expect $not_configured validate-all OCF_RESKEY_directory=
    expect $not_configured validate-all OCF_RESKEY_directory=data
    expect $not_configured validate-all OCF_RESKEY_nodes=node1
    expect $not_configured validate-all OCF_RESKEY_nodes="$two node1=tcp://127.0.0.1:5435"
    local quorum
    for quorum in 0 2 -1 08 1x 99999999999999999999 "$injected"; do
        expect $not_configured validate-all OCF_RESKEY_quorum="$quorum"
    done
    [[ ! -e /srv/agent/run ]] || surprise "$now: a setting was carried out"
    expect $not_configured validate-all OCF_RESKEY_timeout_ms=10s
    expect $not_configured validate-all OCF_RESKEY_mode=strickt
    expect $not_configured validate-all OCF_RESKEY_mode=degrade
    expect $ok validate-all OCF_RESKEY_mode='degrade 500'
    # Of this node alone: the others go on.
    expect $not_installed validate-all OCF_RESKEY_nodes="${two//node1/node4}"
    expect $not_installed validate-all OCF_RESKEY_secret_file=/nowhere
    expect $not_installed validate-all OCF_RESKEY_user=nobody
    expect $not_installed validate-all OCF_RESKEY_user=no-such-user
    expect $not_installed validate-all OCF_RESKEY_tls_dir=/nowhere
    expect $not_installed validate-all OCF_RESKEY_log=/nowhere/log
    expect 3 migrate_to
    is_stopped
}

at_one_time() {
    local i
    for i in 1 2 3; do "$agent" start >/dev/null 2>&1 & done
    for i in $(jobs -p); do wait "$i" || surprise "$now: one of three starts failed"; done
    serve 1 0
    "$agent" promote >/srv/agent/said 2>&1 &
    # Until it has its turn.
    while kill -0 $! && flock -n /run/resource-agents/limestone-odd.turn true; do sleep 0.05; done 2>/dev/null
    expect $promoted monitor
    wait $! || surprise "$now: a promotion failed"
    "$agent" demote >/dev/null 2>&1 &
    expect $ok stop
    wait $!
    expect $ok stop
    is_stopped
}

# A node that was stopped says what it has, not what it had when it was looked at last.
last_words() {
    expect $ok start
    attrd_updater -n limestone-odd -U 1:1:1
    expect $ok stop
    [[ $(said) == "$(has)" ]] || surprise "$now: it said $(said), its directory has $(has)"
    [[ $(said) != 1:1:1 ]] || surprise "$now: it said nothing when it ended"
}

rm -rf /srv/agent && mkdir -p $data
"$folder/bin/mini_engine" run --dir $data --ack-file /srv/agent/acks --seconds 1 >/dev/null 2>&1
cp -a $data /srv/agent/copy
for now in calls_twice strange_notifications crashes hanging directory_taken directory_missing wrong_settings \
    at_one_time last_words; do
    $now
done
finish
rm -rf /srv/agent
