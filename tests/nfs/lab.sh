#!/bin/bash
# NFS lab: one real Linux NFS server (knfsd on ext4) and K real NFS clients, each a user-mode-linux kernel
# with its own page cache, dentry cache and lock manager. No privileges, no /dev/kvm, no kernel modules on the host.
#   lab.sh install            packages (needs root)
#   lab.sh up K               boot a server and K clients, mount the share at /mnt/shared in each
#   lab.sh exec N CMD...      run CMD on client N (0 = the server) and wait;  bg N CMD...  does not wait, prints a job id
#   lab.sh all CMD...         run CMD on every live client at the same time ($LAB_CLIENT = 2..K+1)
#   lab.sh wait N JOB | crash N | freeze N | thaw N | boot N | down
#   lab.sh run K CMD...       up, all, down
# environment: LAB_OPTS (vers=4.2), LAB_EXPORT (sync), LAB_LEASE (seconds; kernel default 90), LAB_DELAY (netem, e.g. 1ms)
set -u
SRC=$(cd "$(dirname "$0")" && pwd)/lab
RUN=${LAB_RUN:-/tmp/nfslab.$UID}
PYTHON=${LAB_PYTHON:-$(python3.11 -c 'import sys; print(sys.executable)')}
OPTS=${LAB_OPTS:-vers=4.2}
MEM=${LAB_MEM:-256M}
die() { echo "lab: $*" >&2; exit 2; }
# The switch makes a network namespace, the guests enter it: nothing can leave, and the queue of a UNIX datagram
# socket (10 packets by default: each dropped packet costs TCP 200 ms) can be made long.
spawn() {
    local p= ns="unshare -n"; [ "$UID" = 0 ] || ns="unshare -r -n"
    [ -f "$RUN/net.pid" ] && p=$(cat "$RUN/net.pid")
    [ -n "$p" ] && { ns="nsenter -t $p -n"; [ "$UID" = 0 ] || ns="nsenter -t $p -U --preserve-credentials -n"; }
    exec setsid $ns sh -c 'echo 2000 >/proc/sys/net/unix/max_dgram_qlen; exec "$@"' sh "$@"
}
name() { [ "$1" = 0 ] && echo server || echo "c$1"; }

boot() {  # boot N   (0 = server, clients are 1..K -> address 10.77.0.N+1)
    local n=$1 nm role disk=
    nm=$(name "$n"); role=client
    mkdir -p "$RUN/ctl/$nm"; rm -f "$RUN/ctl/$nm"/*
    if [ "$n" = 0 ]; then
        role=server
        [ -f "$RUN/disk.img" ] || { truncate -s "${LAB_DISK:-1G}" "$RUN/disk.img"; mkfs.ext4 -q -F "$RUN/disk.img"; }
        disk="ubda=$RUN/disk.img"
    fi
    spawn linux.uml mem="$MEM" umid="nfslab-$$-$nm" uml_dir="$RUN/uml" rootfstype=hostfs rootflags=/ ro quiet $disk \
        "eth0=daemon,02:00:00:00:00:0$((n+1)),unix,$RUN/net.sock" con=null con0=null,fd:1 con1=null,fd:1 ssl=null \
        init="$SRC/guest-init.sh" LAB_RUN="$RUN" LAB_SRC="$SRC" LAB_NAME="$nm" LAB_N=$((n+1)) LAB_ROLE=$role LAB_PYTHON="$PYTHON" \
        LAB_OPTS="${OPTS//,/;}" LAB_EXPORT="${LAB_EXPORT:-}" LAB_LEASE="${LAB_LEASE:-}" LAB_DELAY="${LAB_DELAY:-}" \
        LAB_NLMGRACE="${LAB_NLMGRACE:-}" LAB_NOGRACE="${LAB_NOGRACE:-}" \
        </dev/null >>"$RUN/$nm.console" 2>&1 &
    echo $! > "$RUN/$nm.pid"
}
ready() {  # wait until guest N is ready
    local nm t=0; nm=$(name "$1")
    while [ ! -f "$RUN/ctl/$nm/ready" ]; do
        [ -f "$RUN/ctl/$nm/failed" ] && die "$nm: $(cat "$RUN/ctl/$nm/failed")"
        kill -0 "$(cat "$RUN/$nm.pid")" 2>/dev/null || die "$nm died; see $RUN/$nm.console"
        sleep 0.05; t=$((t+1)); [ $t -gt 1200 ] && die "$nm not ready in 60 s; see $RUN/$nm.console"
    done
    return 0
}
pids() { # every process of guest N: the kernel and its tracees share the session setsid made
    local p; p=$(cat "$RUN/$(name "$1").pid"); ps -o pid= -s "$p"
}
submit() { # submit N CMD...
    local nm id; nm=$(name "$1"); shift
    id=j$(date +%s%N)$RANDOM
    printf '%s\n' "$*" > "$RUN/ctl/$nm/$id.new"; mv "$RUN/ctl/$nm/$id.new" "$RUN/ctl/$nm/$id.cmd"; echo "$id"
}
await() { # await N JOB
    local nm; nm=$(name "$1")
    while [ ! -f "$RUN/ctl/$nm/$2.rc" ]; do
        kill -0 "$(cat "$RUN/$nm.pid")" 2>/dev/null || { cat "$RUN/ctl/$nm/$2.out" 2>/dev/null; return 137; }
        sleep 0.02
    done
    cat "$RUN/ctl/$nm/$2.out"; return "$(cat "$RUN/ctl/$nm/$2.rc")"
}
clients() { cat "$RUN/clients"; }
up() {
    [ -e "$RUN/net.pid" ] && die "already up in $RUN"
    mkdir -p "$RUN/modroot/lib" "$RUN/uml" "$RUN/share"
    ln -sfn /usr/lib/uml/modules "$RUN/modroot/lib/modules"
    spawn uml_switch -unix "$RUN/net.sock" </dev/null >"$RUN/net.log" 2>&1 & echo $! > "$RUN/net.pid"
    while [ ! -S "$RUN/net.sock" ]; do sleep 0.02; done
    boot 0
    local i l=
    # guests booted at once have equal jiffies and equal pids, and NFSv3 tells exclusive creates apart by just these two
    for i in $(seq 1 "$1"); do [ -n "${LAB_TWINS:-}" ] || sleep 0.2; boot "$i"; l="$l $i"; done
    echo $l > "$RUN/clients"
    for i in 0 $(clients); do ready "$i"; done
}
crash() { kill -9 $(pids "$1") 2>/dev/null; }
down() {
    local i nm p
    for i in 0 $(clients 2>/dev/null); do
        nm=$(name "$i"); [ -f "$RUN/$nm.pid" ] || continue
        kill -9 $(pids "$i") 2>/dev/null
    done
    [ -f "$RUN/net.pid" ] && kill "$(cat "$RUN/net.pid")" 2>/dev/null
    [ -n "${LAB_KEEP:-}" ] || rm -rf "$RUN"
    rm -f "$RUN/net.pid"
}
c=${1:-help}; [ $# -gt 0 ] && shift
case $c in
install) export DEBIAN_FRONTEND=noninteractive; apt-get update -qq && apt-get install -y -qq --no-install-recommends \
            user-mode-linux uml-utilities nfs-common nfs-kernel-server kmod iproute2 e2fsprogs ;;
up)     up "${1:-2}" ;;
boot)   boot "$1"; ready "$1" ;;
exec)   n=$1; shift; await "$n" "$(submit "$n" "$*")" ;;
bg)     n=$1; shift; submit "$n" "$*" ;;
wait)   await "$1" "$2" ;;
all)    declare -A J; r=0
        for i in $(clients); do J[$i]=$(submit "$i" "$*"); done
        for i in $(clients); do await "$i" "${J[$i]}" | sed "s/^/[c$i] /"; x=${PIPESTATUS[0]}; [ "$x" = 0 ] || r=$x; done; exit $r ;;
crash)  crash "$1" ;;
freeze) kill -STOP "$(cat "$RUN/$(name "$1").pid")" ;;  # the kernel alone: what it traces stops with it
thaw)   kill -CONT "$(cat "$RUN/$(name "$1").pid")" ;;
down)   down ;;
run)    k=$1; shift; trap down EXIT; up "$k"; "$0" all "$*" ;;
*)      sed -n 2,13p "$0" ;;
esac
