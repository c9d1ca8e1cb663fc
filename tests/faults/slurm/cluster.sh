#!/bin/bash
# A Slurm cluster of a head and two nodes on one machine, each with a network, host name, processes, /tmp and home of its
# own, and a common folder /shared. Wants root, Linux, and Debian's packages slurm-wlm and munge. Nothing is installed.
#
#   cluster.sh up FOLDER                     builds it; what it keeps lies in FOLDER, the common folder in FOLDER/shared
#   cluster.sh in FOLDER NODE COMMAND...     runs a command on head, n1 or n2: sinfo, sbatch, scancel, ps ...
#   cluster.sh kill FOLDER NODE              a node is lost: all of its processes are killed; `start` brings it back
#   cluster.sh down FOLDER                   takes it apart; FOLDER stays
#
# The network of a node is cut by `ip -n slurm-n2 link set eth0 down`.
set -euo pipefail
[ $# -ge 2 ] || { sed -n "2,10p" "$0"; exit 2; }
do=$1 here=$(realpath -m "$2") node=${3:-}
nodes=(head n1 n2)
declare -A address=([head]=10.78.0.10 [n1]=10.78.0.11 [n2]=10.78.0.12)

configure() {
    mkdir -p "$here"/{shared,etc,processes} /shared
    { echo 127.0.0.1 localhost; for one in "${nodes[@]}"; do echo "${address[$one]} $one"; done; } >"$here/etc/hosts"
    (umask 077; head -c 64 /dev/urandom >"$here/etc/munge.key")
    echo CgroupPlugin=cgroup/v1 >"$here/etc/cgroup.conf" # slurmd wants to know, and uses none
    cat >"$here/etc/slurm.conf" <<CONF
ClusterName=two
SlurmctldHost=head
SlurmUser=root
StateSaveLocation=/run/slurmctld
SlurmdSpoolDir=/run/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SlurmdTimeout=30
ReturnToService=2
MinJobAge=86400
NodeName=n[1-2] CPUs=2 RealMemory=4000
PartitionName=all Nodes=n[1-2] Default=YES
CONF
}

boot() { # process 1 of a node
    hostname "$node"
    mount --bind "$here/shared" /shared
    mount --bind "$here/etc/hosts" /etc/hosts
    mount -t tmpfs own /run
    mkdir -p /run/{munge,slurm,slurmd,slurmctld}
    cp "$here"/etc/{munge.key,slurm.conf,cgroup.conf} /run/slurm
    mount --bind /run/slurm /etc/slurm
    mount -t tmpfs own /home
    mount -t tmpfs own /tmp
    munged --force --key-file=/etc/slurm/munge.key --socket=/run/munge/munge.socket.2 --pid-file=/run/munge/pid \
        --log-file=/run/munge/log --seed-file=/run/munge/seed
    if [ "$node" = head ]; then slurmctld -L /run/slurmctld.log; else slurmd -L /run/slurmd.log; fi
    while sleep 1; do :; done
}

start() {
    local one=$1 net=slurm-$1
    if ! ip -n "$net" link show lo >/dev/null 2>&1; then
        ip netns add "$net"
        ip link add "v-$one" type veth peer name eth0 netns "$net"
        ip link set "v-$one" master slurm up
        ip -n "$net" addr add "${address[$one]}/24" dev eth0
        ip -n "$net" link set eth0 up
        ip -n "$net" link set lo up
    fi
    setsid ip netns exec "$net" unshare --mount --uts --ipc --pid --fork --mount-proc \
        "$0" boot "$here" "$one" >"$here/$one.log" 2>&1 </dev/null &
    until pgrep -P $! >"$here/processes/$one"; do kill -0 $! && sleep 0.2; done
}

case $do in
up) configure
    ip link add slurm type bridge
    ip link set slurm up
    for one in "${nodes[@]}"; do start "$one"; done ;;
boot) boot ;;
start) start "$node" ;;
in) nsenter -t "$(cat "$here/processes/$node")" -m -u -i -n -p env HOME=/home "${@:4}" ;;
kill) kill -KILL "$(cat "$here/processes/$node")" ;;
down)
    for one in "${nodes[@]}"; do
        kill -KILL "$(cat "$here/processes/$one")" || true
        ip netns del "slurm-$one" || true
    done
    ip link del slurm
    rmdir /shared ;;
esac
