#!/bin/bash
# A real Slurm on this one machine, for the tests. Debian 12, as root; systemd is not needed.
#
#     eval "$(tests/clusters/slurm.sh up)"      install what is missing, start what is not running
#     eval "$(tests/clusters/slurm.sh status)"  say whether it answers; anybody may ask
#     tests/clusters/slurm.sh stop | start      slurmctld only; jobs that run go on
#     tests/clusters/slurm.sh down [--wipe]     stop what `up` started; --wipe also forgets its jobs
#
# Standard output carries only the `export` line a client needs. README.rst here has the rest.
. "$(dirname "$0")/common.sh"
packages=(slurmctld slurmd slurmdbd slurm-client slurm-wlm-basic-plugins slurm-wlm-mysql-plugin
    munge mariadb-server)
nodes=(lab1 lab2 lab3 lab4)
name=$(uname -n)
mark='# for the tests of hpcpipe' # on our line of /etc/hosts
export SLURM_CONF=$dir/etc/slurm.conf # never /etc/slurm, which may be somebody's

# start DAEMON [OPTION...] -- [ARGUMENT...]: nothing happens if it lives; `slurmd-lab1` is a slurmd.
# Not even the terminal is left to a daemon, or `eval "$(slurm.sh up)"` would wait for its end.
start() {
    local daemon=$1
    shift
    start-stop-daemon --start --oknodo --quiet --pidfile "$dir/run/$daemon.pid" \
        --exec "/usr/sbin/${daemon%%-*}" "$@" </dev/null >>"$dir/log/start.log" 2>&1 ||
        fail "$daemon did not start" "$dir/log/start.log"
}

# --exec and not --name: where nobody reaps the dead (a container), a name outlives its process.
stop() {
    start-stop-daemon --stop --oknodo --quiet --pidfile "$dir/run/$1.pid" \
        --exec "/usr/sbin/${1%%-*}" --retry TERM/20/KILL/5 >&2
    rm -f "$dir/run/$1.pid"
}

dbd_answers() { timeout 10 sacctmgr -n list cluster >/dev/null; }
ctld_answers() { timeout 10 scontrol ping >/dev/null; }
nodes_up() {
    [ "$(timeout 10 sinfo -hNp short -o %T | grep -cxE 'idle|mixed|allocated')" = ${#nodes[@]} ]
}

# Slurm listens on what the host name resolves to, and srun hangs unless that is the address its
# connections come from; so until `down` it is 127.0.0.1 (Debian's own line says 127.0.1.1).
address() { getent ahostsv4 "$name" | awk 'NR == 1 { print $1 }'; }
use_loopback() {
    [ "$(address)" != 127.0.0.1 ] || return 0
    say "until \`down\`, /etc/hosts has $name on 127.0.0.1"
    printf '%s\n%s\n' "127.0.0.1 $name ${name%%.*} $mark" "$(cat /etc/hosts)" >/etc/hosts
    [ "$(address)" = 127.0.0.1 ] || die "$name is still $(address), where Slurm must not listen"
}
leave_loopback() {
    ! grep -q "$mark" /etc/hosts || printf '%s\n' "$(grep -v "$mark" /etc/hosts)" >/etc/hosts
}

install_packages() {
    [ "$(dpkg-query -W -f '${Status}\n' "${packages[@]}" 2>/dev/null | grep -c 'ok installed')" \
        != ${#packages[@]} ] || return 0
    say "installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update && apt-get install -y --no-install-recommends "${packages[@]}"; } \
        >"$dir/log/apt.log" 2>&1 </dev/null || fail "apt-get failed" "$dir/log/apt.log"
}

write_config() {
    local file
    mkdir -p "$dir"/{etc,run} "${nodes[@]/#/$dir/spool/}"
    install -d -o slurm -g slurm "$dir/state" "$dir/log"
    touch "$dir/etc/gpu0" "$dir/etc/gpu1"
    write_mailer
    for file in "$here"/slurm/*.conf; do
        sed "s|@dir@|$dir|g; s|@host@|${name%%.*}|g" "$file" >"$dir/etc/new"
        mv "$dir/etc/new" "$dir/etc/${file##*/}" # at once, as clients may be reading the old one
    done
    chown slurm: "$dir/etc/slurmdbd.conf"
    chmod 600 "$dir/etc/slurmdbd.conf"
}

# One munged serves the whole machine, so one that answers is used as it is.
start_munge() {
    munge -n >/dev/null 2>&1 && return
    install -d -o munge -g munge /run/munge "$dir/munge"
    [ -e /etc/munge/munge.key ] ||
        setpriv --reuid munge --regid munge --clear-groups mungekey --create
    start munged --background --make-pidfile --chuid munge --output "$dir/log/munged.log" -- \
        --foreground --pid-file="$dir/munge/pid" --seed-file="$dir/munge/seed"
    await "munged is silent" "$dir/log/munged.log" munge -n
}

# No port and no password: slurmdbd comes through the socket and is known by its user.
start_database() {
    local log=$dir/log/mariadb-install.log sql=(mariadb --no-defaults --socket "$dir/sql/socket")
    if [ ! -e "$dir/sql/ready" ]; then
        rm -rf "$dir/sql" # left by an `up` that was killed
        install -d -o mysql -g mysql "$dir/sql" "$dir/sql/data"
        mariadb-install-db --no-defaults --user=mysql --datadir="$dir/sql/data" --skip-test-db \
            --force >"$log" 2>&1 || fail "mariadb-install-db failed" "$log"
        touch "$dir/sql/ready"
    fi
    start mariadbd --background --make-pidfile --chuid mysql --output "$dir/log/mariadbd.log" -- \
        --no-defaults --skip-networking --datadir="$dir/sql/data" --socket="$dir/sql/socket" \
        --innodb-flush-log-at-trx-commit=0
    await "mariadbd is silent" "$dir/log/mariadbd.log" "${sql[@]}" -e 'select 1'
    "${sql[@]}" -e "create database if not exists slurm_acct;
        create user if not exists slurm@localhost identified via unix_socket;
        grant all on slurm_acct.* to slurm@localhost"
}

# Both users may submit to both accounts. Only an Administrator may set a node DOWN and RESUME it.
add_accounts() {
    { # an earlier `up` may have done any of these, so only the end is judged
        sacctmgr -iQ add cluster hpcpipe
        sacctmgr -iQ add account lab,teach
        sacctmgr -iQ add user root account=lab,teach defaultaccount=lab
        sacctmgr -iQ add user "$user" account=lab,teach defaultaccount=lab adminlevel=Administrator
    } >"$dir/log/accounts.log" 2>&1 || true
    sacctmgr -nP show assoc user="$user" account=teach format=user | grep -qx "$user" ||
        fail "slurmdbd did not take the accounts" "$dir/log/accounts.log" "$dir/log/slurmdbd.log"
}

# After a machine went down under a running cluster, slurmctld still believes in the jobs of that
# time: nobody runs them any more, but they hold cores until their time limit.
forget_the_dead() {
    squeue -ho %A | sort -u | timeout 60 xargs -r scancel || true
    await "jobs of an earlier time do not end" "$dir/log/slurmctld.log" no_jobs
}
no_jobs() { [ -z "$(timeout 10 squeue -ho %A || echo unknown)" ]; }

up() {
    local node began=
    begin
    install_packages
    use_loopback
    write_config
    start_munge
    start_database
    MYSQL_UNIX_PORT=$dir/sql/socket start slurmdbd --
    await "slurmdbd is silent" "$dir/log/slurmdbd.log" dbd_answers
    add_accounts
    ctld_answers || began=yes
    start_controller
    for node in "${nodes[@]}"; do start "slurmd-$node" -- -N "$node"; done
    # A test that was killed may have left a node down.
    sinfo -hNp short -t down,drain -o 'nodename=%N' |
        xargs -rn1 scontrol update state=resume || true
    await "a node is not up" "$dir/log/slurmctld.log" nodes_up
    [ -z "$began" ] || forget_the_dead
}

start_controller() {
    start slurmctld --
    await "slurmctld is silent" "$dir/log/slurmctld.log" ctld_answers
}
halt() { stop slurmctld; }
resume() {
    start_controller
    await "a node is not up" "$dir/log/slurmctld.log" nodes_up
}

status() {
    [ -e "$SLURM_CONF" ] || die "there is no cluster in $dir"
    dbd_answers || die "slurmdbd does not answer"
    ctld_answers || die "slurmctld does not answer"
    sinfo -o '%P %a %l %D %T %N' >&2
    nodes_up || die "not every node is up"
    printf 'export SLURM_CONF=%q HPCPIPE_TEST_USER=%q\n' "$SLURM_CONF" "$user"
}

down() {
    local daemon
    [ -e "$SLURM_CONF" ] || return 0
    if ctld_answers; then # jobs first: a slurmstepd would outlive its slurmd
        squeue -ho %A | sort -u | timeout 60 xargs -r scancel || true
        for _ in {1..100}; do [ -n "$(squeue -ht R,CG)" ] || break; sleep 0.2; done
    fi
    for daemon in "${nodes[@]/#/slurmd-}"; do stop "$daemon" & done
    wait
    for daemon in slurmctld slurmdbd mariadbd; do stop "$daemon"; done
    # Another Slurm on this machine may have come to use the munged that we started.
    grep -qszx /usr/sbin/slurmctld /proc/[0-9]*/cmdline || stop munged
    leave_loopback
}

main "$@"
