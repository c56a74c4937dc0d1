#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Three Pacemaker nodes on one machine: each has network, mount, pid, uts and ipc namespaces of its own; real corosync,
# real pacemakerd. Debian packages: pacemaker corosync pacemaker-cli-utils crmsh resource-agents iproute2 (with a
# policy-rc.d that starts no service).
#   lab.sh start FOLDER          makes the nodes; all three are online after about 30 s
#   lab.sh enter FOLDER N CMD…   runs a command on node N, e.g. `crm_mon -1`, `crm configure …`
#   lab.sh kill FOLDER N         power off: everything of the node dies at once (the others see it after 3 to 5 s)
#   lab.sh boot FOLDER N         starts a killed node again
#   lab.sh cut FOLDER N | heal FOLDER N     takes its link away and gives it back
#   lab.sh stop FOLDER
# On a node /srv is its own folder, and what FOLDER/ocf and FOLDER/sbin hold is installed as resource and fence agents.
# Node N has the address 10.77.0.N; FOLDER/nN is its own folder and survives `kill`.
set -u
call=${1:?start, enter, kill, cut, heal or stop}; lab=$(mkdir -p "${2:?folder}" && cd "$2" && pwd); shift 2
boot() { # boot N
  cat > "$lab/n$1/boot.sh" <<B
#!/bin/bash
hostname node$1
mount -t proc proc /proc
for d in /run /dev/shm /var/lib/corosync /var/log /etc/corosync; do mount -t tmpfs tmpfs \$d; done
mount --bind "$lab/n$1" /srv
mkdir -p /srv/pacemaker
mount --bind /srv/pacemaker /var/lib/pacemaker
mount -t overlay overlay -o lowerdir="$lab/ocf":/usr/lib/ocf/resource.d /usr/lib/ocf/resource.d
mount -t overlay overlay -o lowerdir="$lab/sbin":/usr/sbin /usr/sbin
mkdir -p /run/{lock,corosync,crm,pacemaker} /var/log/{cluster,pacemaker,crmsh}
mkdir -p /var/lib/pacemaker/{cib,pengine,blackbox,cores}
chown -R hacluster:haclient /var/lib/pacemaker /var/log/pacemaker /run/crm
cp "$lab/corosync.conf" "$lab/authkey" /etc/corosync/; chmod 400 /etc/corosync/authkey
corosync -f > "$lab/n$1/corosync.log" 2>&1 &
sleep 3
pacemakerd > "$lab/n$1/pacemaker.log" 2>&1 &
exec sleep 1000000
B
  chmod +x "$lab/n$1/boot.sh"
  ip netns exec "node$1" unshare --mount --uts --ipc --pid --fork --propagation private setsid "$lab/n$1/boot.sh" \
    > "$lab/n$1/boot.log" 2>&1 &
  echo $! > "$lab/n$1/pid"
}
first() { pgrep -P "$(cat "$lab/n$1/pid")" | head -1; }
case $call in
start)
  ip netns add hub; ip netns exec hub ip link add br0 type bridge; ip netns exec hub ip link set br0 up
  for i in 1 2 3; do
    mkdir -p "$lab/n$i" "$lab/ocf" "$lab/sbin"; ip netns add node$i
    ip link add v$i netns hub type veth peer name eth0 netns node$i
    ip netns exec hub ip link set v$i master br0 up
    ip netns exec node$i ip addr add 10.77.0.$i/24 dev eth0
    ip netns exec node$i ip link set eth0 up; ip netns exec node$i ip link set lo up
  done
  head -c 128 /dev/urandom > "$lab/authkey"
  {
    printf 'totem {\n  version: 2\n  cluster_name: lab\n  transport: knet\n'
    printf '  crypto_cipher: aes256\n  crypto_hash: sha256\n  token: 1000\n}\nnodelist {\n'
    for i in 1 2 3; do
      printf '  node {\n    ring0_addr: 10.77.0.%d\n    name: node%d\n    nodeid: %d\n  }\n' $i $i $i
    done
    printf '}\nquorum {\n  provider: corosync_votequorum\n}\n'
    printf 'logging {\n  to_stderr: yes\n  to_syslog: no\n}\n'
  } > "$lab/corosync.conf"
  for i in 1 2 3; do boot $i; done ;;
boot) boot "$1" ;;
enter) n=$1; shift; nsenter -t "$(first "$n")" -m -u -i -p -n -- "$@" ;;
kill) kill -9 "$(first "$1")" ;;
cut) ip netns exec hub ip link set "v$1" down ;;
heal) ip netns exec hub ip link set "v$1" up ;;
stop)
  for i in 1 2 3; do p=$(first $i); [ -n "$p" ] && kill -9 "$p"; ip netns del node$i; done
  ip netns del hub ;;
esac
