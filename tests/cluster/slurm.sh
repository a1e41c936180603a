#!/bin/bash
# A SLURM of one node on this machine, from Debian's packages: slurm.sh start|stop FOLDER
#
# All state, the configuration and the key of munge lie in FOLDER; commands find it by SLURM_CONF=FOLDER/slurm.conf.
# The node is said to have two cores and two GPUs, whatever there is. A job that goes back to the queue starts again
# within seconds (cred_expire), not minutes. Exit code 3: it cannot be started here.
set -euo pipefail

action=${1:-}
folder=${2:-}
if [[ $action != start && $action != stop || -z $folder ]]; then
    echo "usage: $0 start|stop FOLDER" >&2
    exit 2
fi

refuse() {
    echo "SLURM cannot be started here: $1" >&2
    exit 3
}

# ends a daemon by the file that has its process id, and waits for it
end() {
    local pid
    [[ -s $1 ]] || return 0
    pid=$(<"$1")
    kill "$pid" 2>/dev/null || return 0
    for _ in {1..100}; do # a zombie has ended: in a container there may be no init to reap it
        grep -qs "^State:[[:space:]]*[^ZX]" "/proc/$pid/status" || return 0
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
}

# a port of this machine on which nothing listens
free_port() {
    local port
    while port=$((20000 + RANDOM % 12000)) && (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
    echo $port
}

stop() {
    [[ -e $folder/slurm.conf ]] || return 0
    export SLURM_CONF=$folder/slurm.conf
    if timeout 5 scontrol ping >/dev/null 2>&1; then
        timeout 10 scancel --user="$(id -un)" || true
        for _ in {1..100}; do # jobs end within KillWait
            [[ -n $(timeout 5 squeue --noheader 2>/dev/null) ]] || break
            sleep 0.5
        done
    fi
    end "$folder/slurmd.pid"
    end "$folder/slurmctld.pid"
    end "$folder/munged.pid"
    rm -rf "$folder"
}

start() {
    local missing="" command host
    [[ $EUID -eq 0 ]] || refuse "it needs root"
    for command in munged slurmctld slurmd squeue; do
        [[ -n $(PATH=$PATH:/usr/sbin type -P $command) ]] || missing+=" $command"
    done
    [[ -z $missing ]] || refuse "missing:$missing; apt-get install slurmctld slurmd slurm-client munge"
    id munge >/dev/null 2>&1 || refuse "there is no user munge; apt-get install munge"
    [[ ! -e $folder ]] || refuse "$folder exists"
    export PATH=$PATH:/usr/sbin

    mkdir -p "$folder"/{state,spool,munge}
    folder=$(realpath "$folder")
    host=$(hostname -s)
    dd if=/dev/urandom of="$folder/munge/key" bs=128 count=1 status=none
    chown -R munge: "$folder/munge"
    chmod 711 "$folder" "$folder/munge"
    chmod 400 "$folder/munge/key"
    cat >"$folder/slurm.conf" <<EOF
ClusterName=plifctl
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobRequeue=1
KillWait=20
OverTimeLimit=0
InactiveLimit=0
MinJobAge=60
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
EOF
    touch "$folder/plugstack.conf"
    printf 'Name=gpu File=%s\n' /dev/null /dev/zero >"$folder/gres.conf"
    echo "PlugStackConfig=$folder/plugstack.conf" >>"$folder/slurm.conf"
    trap 'tail -n 5 "$folder"/*.log >&2 || true; stop' ERR

    setpriv --reuid=munge --regid=munge --clear-groups munged --key-file="$folder/munge/key" \
        --socket="$folder/munge/socket" --pid-file="$folder/munge/munged.pid" \
        --seed-file="$folder/munge/seed" --log-file="$folder/munge/log"
    ln -s munge/munged.pid "$folder/munged.pid"
    slurmctld -f "$folder/slurm.conf"
    slurmd -f "$folder/slurm.conf" -N "$host"
    export SLURM_CONF=$folder/slurm.conf
    for _ in {1..100}; do
        [[ $(timeout 5 sinfo --noheader --format=%T 2>/dev/null) == idle ]] && break
        sleep 0.2
    done
    [[ $(sinfo --noheader --format=%T) == idle ]]
    echo "export SLURM_CONF=$folder/slurm.conf"
}

"$action"
