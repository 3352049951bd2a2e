#!/bin/bash
# A real Grid Engine 8.1.9 on this one machine, for the tests. Debian 12, as root; without systemd.
#
#     eval "$(tests/clusters/sge.sh up)"      install what is missing, start what is not running
#     eval "$(tests/clusters/sge.sh status)"  say whether it answers; anybody may ask
#     tests/clusters/sge.sh stop | start      its two daemons only; jobs that run go on
#     tests/clusters/sge.sh down [--wipe]     stop what `up` started; --wipe also forgets its jobs
#
# Standard output carries only the `export` line a client needs. README.rst here has the rest.
. "$(dirname "$0")/common.sh"
packages=(gridengine-master gridengine-exec gridengine-client gridengine-drmaa1.0 gcc libc6-dev)
host=$(uname -n)
open=(long short minute) # queues
# Never Debian's own root and cell in /var/lib/gridengine, which may be somebody's.
export SGE_ROOT=$dir/root SGE_CELL=hpcpipe SGE_QMASTER_PORT=27864 SGE_EXECD_PORT=27865
export SGE_SINGLE_LINE=1 # qconf does not read back the lines that it wraps
common=$SGE_ROOT/$SGE_CELL/common
# Debian wraps each of Grid Engine's programs in a script that runs a compiler to learn what machine
# this is: 50 ms for each command and each job. They need no more than the variables above.
programs=/usr/lib/gridengine
PATH=$programs:$PATH

pid_of() { # DAEMON: its process, if it lives; one that nobody reaps keeps its name
    local pid
    pid=$(tr -dc 0-9 2>/dev/null <"$dir/spool/$1/$1.pid") || return 1
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "sge_$1" ] &&
        ! grep -qs '^State:.[ZX]' "/proc/$pid/status" && echo "$pid"
}

# start DAEMON: nothing happens if it lives. Jobs start from the environment of execd.
start() {
    pid_of "$1" >/dev/null && return
    mkdir -p "$dir/spool/$1" && chown sgeadmin: "$dir/spool/$1"
    (cd / && exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 SGE_ROOT="$SGE_ROOT" \
        SGE_CELL="$SGE_CELL" SGE_QMASTER_PORT="$SGE_QMASTER_PORT" SGE_EXECD_PORT="$SGE_EXECD_PORT" \
        SGE_EXECD_PIDFILE="$dir/spool/execd/execd.pid" \
        timeout "$patience" env LD_PRELOAD="$dir/loopback.so" "$programs/sge_$1") </dev/null >>"$dir/log/start.log" 2>&1 ||
        fail "$1 did not start" "$dir/log/start.log"
}

stop() { # DAEMON
    local pid
    pid=$(pid_of "$1") || return 0
    kill "$pid"
    for _ in {1..300}; do pid_of "$1" >/dev/null || return 0; sleep 0.1; done
    say "$1 did not end in 30 s"
    kill -9 "$pid"
    while pid_of "$1" >/dev/null; do sleep 0.1; done
}

master_answers() { timeout 10 qconf -sh >/dev/null 2>&1; }
# A sixth column would be a state: alarm, unknown, error, disabled.
queue_open() { timeout 10 qstat -f -q long | awk '/^long@/ && NF == 5 { up = 1 } END { exit !up }'; }

install_packages() {
    [ "$(dpkg-query -W -f '${Status}\n' "${packages[@]}" 2>/dev/null | grep -c 'ok installed')" \
        != ${#packages[@]} ] || return 0
    say "installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    local denied= part
    # Nothing of Debian's own cell is to be set up or started.
    for part in common master exec client; do
        printf 'gridengine-%s shared/gridengineconfig boolean false\n' "$part"
    done | debconf-set-selections
    [ -e /usr/sbin/policy-rc.d ] || {
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
        denied=yes
    }
    { apt-get update && apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends \
        "${packages[@]}"; } >"$dir/log/apt.log" 2>&1 </dev/null || fail "apt-get failed" "$dir/log/apt.log"
    [ -z "$denied" ] || rm /usr/sbin/policy-rc.d
}

make_cell() {
    local part debian=/usr/share/gridengine
    mkdir -p "$common" "$dir"/spool/{db,qmaster,execd}
    for part in bin lib util utilbin; do ln -sfn "/var/lib/gridengine/$part" "$SGE_ROOT/$part"; done
    write_mailer
    [ -e "$dir/loopback.so" ] ||
        gcc -O2 -shared -fPIC -o "$dir/loopback.so" "$here/sge/loopback.c" -ldl
    sed "s|@dir@|$dir|g" "$here/sge/bootstrap" >"$common/bootstrap"
    echo "$host" >"$common/act_qmaster"
    # What looks up 127.0.0.1 finds whichever name comes first in /etc/hosts: all are this host.
    awk -v host="$host" '$1 ~ /^127\./ { sub(/#.*/, ""); for (i = 2; i <= NF; i++) seen[$i] }
        END { delete seen[host]; printf host; for (name in seen) printf " " name; print "" }' \
        /etc/hosts >"$common/host_aliases"
    [ ! -e "$dir/spool/ready" ] || return 0
    sed -e "s|/var/spool/gridengine/execd|$dir/spool/execd|; /^reporting_params/d; /^load_report/d" \
        -e '/^max_aj_tasks/d; /^mailer/d; /^loglevel/d' "$debian/default-configuration" >"$dir/global"
    cat >>"$dir/global" <<END
reporting_params accounting=true reporting=false flush_time=00:00:01 accounting_flush_time=00:00:00 joblog=false sharelog=00:00:00
load_report_time 00:00:02
max_aj_tasks 1000
mailer $dir/etc/mail
loglevel log_info
END
    chown -R sgeadmin: "$dir/spool" "$SGE_ROOT/$SGE_CELL"
    { rm -rf "$dir"/spool/db/*
        as_admin spoolinit berkeleydb libspoolb "$dir/spool/db" init
        as_admin spooldefaults configuration "$dir/global"
        as_admin spooldefaults complexes $debian/util/resources/centry
        as_admin spooldefaults usersets $debian/util/resources/usersets
        as_admin spooldefaults managers sgeadmin
    } >"$dir/log/spool.log" 2>&1 || fail "the cell could not be made" "$dir/log/spool.log"
    touch "$dir/spool/ready"
}
as_admin() { setpriv --reuid sgeadmin --regid sgeadmin --clear-groups "$@"; }

# tell OPTION FILE [NAME=VALUE...]: qconf, with a file of sge/ in which names are replaced.
tell() {
    local option=$1 fill="s|@host@|$host|g" pair
    shift
    for pair in "${@:2}"; do fill+=";s|@${pair%%=*}@|${pair#*=}|g"; done
    sed "$fill" "$here/sge/$1" >"$dir/told"
    qconf "$option" "$dir/told" >>"$dir/log/qconf.log" 2>&1
}
# put NOUN NAME FILE [NAME=VALUE...]: add it, or change it if it is there.
put() {
    local noun=$1 name=$2
    shift 2
    tell "-A$noun" "$@" "name=$name" || tell "-M$noun" "$@" "name=$name" ||
        fail "$noun $name was refused" "$dir/log/qconf.log"
}

configure() {
    : >"$dir/log/qconf.log"
    { qconf -as "$host" || true
        qconf -se "$host" || {
            printf '%s\n' "hostname $host" 'load_scaling NONE' 'complex_values NONE' \
                'user_lists NONE' 'xuser_lists NONE' 'projects NONE' 'xprojects NONE' \
                'usage_scaling NONE' 'report_variables NONE' >"$dir/told"
            qconf -Ae "$dir/told"
        }
        { qconf -sc | grep -vE '^(#|h_vmem |gpu |fsl |spm_lic )'; cat "$here/sge/complexes"; } >"$dir/told"
        qconf -Mc "$dir/told"
        # Schedule at once: tests wait for it. Load counts for nothing on a machine of two cores.
        qconf -ssconf | sed -E -e 's/^(schedule_interval) .*/\1 0:0:1/' \
            -e 's/^(flush_submit_sec|flush_finish_sec) .*/\1 1/' -e 's/^(schedd_job_info) .*/\1 true/' \
            -e 's/^(job_load_adjustments) .*/\1 NONE/' >"$dir/told"
        qconf -Msconf "$dir/told"
        qconf -rattr exechost complex_values "h_vmem=32G,slots=40,gpu=2,fsl=1" "$host"
        qconf -rattr exechost complex_values "spm_lic=2" global
    } >>"$dir/log/qconf.log" 2>&1 || fail "qconf failed" "$dir/log/qconf.log"
    put p smp pe 'rule=$pe_slots'
    put p mpi pe 'rule=$round_robin'
    put q long queue slots=40 h_rt=INFINITY state=default
    put q short queue slots=4 h_rt=04:00:00 state=default
    put q minute queue slots=4 h_rt=00:01:00 state=default
    put q closed queue slots=1 h_rt=INFINITY state=disabled
    qmod -e "${open[@]}" >"$dir/log/qmod.log" 2>&1 || fail "queues do not open" "$dir/log/qmod.log"
}

up() {
    begin
    install_packages
    make_cell
    resume
}

resume() {
    start qmaster
    await "qmaster is silent" "$dir/spool/qmaster/messages" master_answers
    configure
    start execd
    await "queue long does not open" "$dir/spool/qmaster/messages" queue_open
}

# A job that execd is being handed (state t) when it ends stays so for minutes, in its slot. So none
# is handed over any more, and those that are on their way arrive.
none_underway() { timeout 10 qstat -s r -u '*' | awk 'NR > 2 && $5 ~ /t/ { found = 1 } END { exit found }'; }
halt() {
    if master_answers; then
        qmod -d "${open[@]}" >"$dir/log/qmod.log" 2>&1 || fail "it schedules on" "$dir/log/qmod.log"
        await "a job is neither here nor there" "$dir/spool/qmaster/messages" none_underway
    fi
    stop execd
    stop qmaster
}

status() {
    [ -e "$common/bootstrap" ] || die "there is no cluster in $dir"
    master_answers || die "qmaster does not answer"
    queue_open || die "queue long is not open"
    qstat -g c >&2
    printf 'export SGE_ROOT=%q SGE_CELL=%q SGE_QMASTER_PORT=%q SGE_EXECD_PORT=%q HPCPIPE_TEST_USER=%q PATH=%s\n' \
        "$SGE_ROOT" "$SGE_CELL" "$SGE_QMASTER_PORT" "$SGE_EXECD_PORT" "$user" \
        "$programs:\"\${PATH#$programs:}\""
}

down() {
    [ -e "$common/bootstrap" ] || return 0
    if master_answers; then # jobs first: they would outlive execd
        timeout 20 qdel -u '*' >/dev/null 2>&1 || true
        for _ in {1..50}; do [ -n "$(timeout 10 qstat -u '*')" ] || break; sleep 0.2; done
    fi
    halt
}

main "$@"
