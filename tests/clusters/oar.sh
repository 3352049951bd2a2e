#!/bin/bash
# A real OAR on this one machine, for the tests. Debian 12, as root; systemd is not needed.
#
#     eval "$(tests/clusters/oar.sh up)"      install what is missing, start what is not running
#     eval "$(tests/clusters/oar.sh status)"  say whether it answers; anybody may ask
#     tests/clusters/oar.sh down [--wipe]     stop what `up` started; --wipe also forgets its jobs
#
# Standard output carries only the `export` line a client needs. README.rst here has the rest.
. "$(dirname "$0")/common.sh"
packages=(oar-server oar-node oar-user oar-server-pgsql oar-user-pgsql libjson-perl postgresql-15)
cores=10
conf=/etc/oar/oar.conf # the only one that OAR's commands read
sql=/usr/lib/postgresql/15/bin
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# start NAME PROGRAM [OPTION...] -- [ARGUMENT...]: nothing happens if it lives.
# Not even the terminal is left to a daemon, or `eval "$(oar.sh up)"` would wait for its end.
start() {
    local name=$1 program=$2
    shift 2
    start-stop-daemon --start --oknodo --quiet --pidfile "$dir/run/$name.pid" --exec "$program" \
        "$@" </dev/null >>"$dir/log/$name.log" 2>&1 || fail "$name did not start" "$dir/log/$name.log"
}

stop() { # NAME PROGRAM SIGNAL
    start-stop-daemon --stop --oknodo --quiet --pidfile "$dir/run/$1.pid" --exec "$2" \
        --retry "$3/20/KILL/5" >&2
    rm -f "$dir/run/$1.pid"
}

database_answers() { "$sql/pg_isready" -qh "$dir/sql" -p 27865; }
almighty_answers() { (: <>/dev/tcp/127.0.0.1/27866) 2>/dev/null; }
node_is_alive() { [ "$(timeout 20 oarnodes -s | grep -c Alive)" = "$cores" ]; }

install_packages() {
    [ "$(dpkg-query -W -f '${Status}\n' "${packages[@]}" 2>/dev/null | grep -c 'ok installed')" \
        != ${#packages[@]} ] || return 0
    say "installing ${packages[*]}"
    local policy=/usr/sbin/policy-rc.d made=
    # The packages would start a PostgreSQL, and an OAR without a database, of their own.
    [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod 755 $policy; made=yes; }
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update && apt-get install -y --no-install-recommends "${packages[@]}"; } \
        >"$dir/log/apt.log" 2>&1 </dev/null || fail "apt-get failed" "$dir/log/apt.log"
    [ -z "$made" ] || rm $policy
}

# OAR's commands run as user oar and read /etc/oar/oar.conf, whoever calls them. So ours goes there,
# and the one that was there comes back with `down`.
write_config() {
    local file
    for file in "$here"/oar/*; do sed "s|@dir@|$dir|g" "$file" >"$dir/etc/${file##*/}"; done
    [ -e "$dir/etc/theirs.conf" ] || cp -p $conf "$dir/etc/theirs.conf"
    grep -q '^DB_BASE_PASSWD=""' "$dir/etc/theirs.conf" ||
        die "$conf is of an OAR in use; this script would take its place"
    install -o oar -g root -m 600 "$dir/etc/oar.conf" $conf
}

# No port and no password: whoever may open the socket, in a folder for group oar, is believed.
start_database() {
    local log=$dir/log/postgres.log
    if [ ! -e "$dir/sql/ready" ]; then
        stop postgres "$sql/postgres" INT # left, as its folder, by an `up` that was killed
        rm -rf "$dir/sql"
        install -d -o postgres -g oar -m 750 "$dir/sql"
        setpriv --reuid postgres --regid postgres --clear-groups "$sql/initdb" -D "$dir/sql/data" \
            -A trust -E UTF8 --locale C.UTF-8 >"$log" 2>&1 || fail "initdb failed" "$log"
    fi
    start postgres "$sql/postgres" --background --make-pidfile --chuid postgres --output "$log" -- \
        -D "$dir/sql/data" -k "$dir/sql" -p 27865 -h '' -c fsync=off
    await "PostgreSQL is silent" "$log" database_answers
    [ -e "$dir/sql/ready" ] ||
        oar-database --create --db-admin-user postgres --db-admin-pass unused >"$dir/log/create.log" 2>&1 ||
        fail "OAR's tables were not made" "$dir/log/create.log"
    touch "$dir/sql/ready"
}

# What the setuid /usr/sbin/Almighty would set up, and that it listens on loopback only.
start_almighty() {
    start almighty /usr/bin/perl --background --make-pidfile --chuid oar --group oar \
        --output "$dir/log/almighty.log" --startas /usr/bin/env -- -i \
        PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/oar/oardodo LANG=C.UTF-8 \
        HOME=/var/lib/oar USER=oar LOGNAME=oar OARUSER=oar OARDO_USER=oar \
        OARDO_UID="$(id -u oar)" OARDIR=/usr/lib/oar OARCONFFILE=$conf \
        OARXAUTHLOCATION=/usr/bin/xauth PERL5OPT="-I$dir/etc -MLoopback" \
        /usr/bin/perl /usr/lib/oar/Almighty
    await "Almighty is silent" "$dir/log/oar.log" almighty_answers
}

resume() {
    start_database
    start_almighty
}

halt() {
    stop almighty /usr/bin/perl TERM
    stop postgres "$sql/postgres" INT
}

# One node, this machine; its cores are only counted.
add_node() {
    local have
    { # an earlier `up` may have done any of these, so only the end is judged
        oarproperty -a core
        oarproperty -a host -c
        oarnotify --add-queue long,2,oar_sched_gantt_with_timesharing_and_fairsharing_and_quotas
        have=$(oarnodes -s | grep -c :)
        while [ "$have" -lt "$cores" ]; do
            have=$((have + 1))
            oarnodesetting -n -a -h localhost -p host=localhost -p core=$have
        done
        oarnodesetting -s Alive -h localhost # a test that was killed may have left it down
    } >"$dir/log/node.log" 2>&1 || true
    await "the node is not alive" "$dir/log/node.log" node_is_alive
}

up() {
    begin
    install_packages
    chown oar "$dir/log"
    install -d -o oar -m 700 "$dir/ssh"
    write_config
    mkdir -p /run/sshd
    start sshd /usr/sbin/sshd -- -f "$dir/etc/sshd_config"
    resume
    add_node
}

status() {
    [ -e "$dir/etc/oar.conf" ] || die "there is no cluster in $dir"
    almighty_answers || die "Almighty does not answer"
    node_is_alive || die "the node is not alive"
    say "$(oarsub -V), $cores cores"
    printf 'export HPCPIPE_TEST_OAR=%q HPCPIPE_TEST_USER=%q\n' "$dir" "$user"
}

down() {
    [ -e "$dir/etc/theirs.conf" ] || return 0
    if almighty_answers; then # jobs first: their processes are no children of a daemon here
        oardel --sql "state NOT IN ('Terminated', 'Error')" >"$dir/log/oardel.log" 2>&1 || true
        for _ in {1..150}; do [ -n "$(oarstat)" ] || break; sleep 0.2; done
    fi
    halt
    stop sshd /usr/sbin/sshd TERM
    mv "$dir/etc/theirs.conf" $conf
}

main "$@"
