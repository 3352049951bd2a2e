#!/bin/bash
# A real HTCondor, Debian 13's 23.9.6, on this one machine, for the tests. Debian 12, as root.
#
#     eval "$(tests/clusters/htcondor.sh up)"      unpack it if need be, start what is not running
#     eval "$(tests/clusters/htcondor.sh status)"  say whether it answers; anybody may ask
#     tests/clusters/htcondor.sh stop | start      schedd only; jobs that run go on
#     tests/clusters/htcondor.sh down [--wipe]     stop what `up` started; --wipe also forgets its jobs
#
# Standard output carries only the `export` line a client needs. README.rst here has the rest.
. "$(dirname "$0")/common.sh"
root=$dir/root # what is in Debian 13's packages
export CONDOR_CONFIG=$dir/etc/condor_config # never /etc/condor, which may be somebody's
export PATH=$dir/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# Debian 12 has no package of it. Those of Debian 13, and all that they need, are fetched by an apt
# with lists of its own, from where this machine has Debian from.
install_packages() {
    [ ! -e "$root/ready" ] || return 0
    say "unpacking Debian 13's condor"
    { fetch && unpack; } >"$dir/log/apt.log" 2>&1 </dev/null ||
        fail "Debian 13's condor is not to be had" "$dir/log/apt.log"
    touch "$root/ready"
}
fetch() {
    local mirror apt=$dir/apt
    command -v patchelf || apt-get install -y --no-install-recommends patchelf ||
        { apt-get update && apt-get install -y --no-install-recommends patchelf; } || return
    mirror=$(apt-get indextargets --format '$(RELEASE) $(SITE)' 'Created-By: Packages' |
        awk '/^(bookworm|stable|oldstable) / { print $2; exit }')
    rm -rf "$apt" "$root"
    mkdir -p "$apt"/{lists,archives}/partial
    printf 'deb [signed-by=%s] %s trixie main\n' /usr/share/keyrings/debian-archive-keyring.gpg \
        "${mirror:-http://deb.debian.org/debian}" >"$apt/sources.list"
    printf '%s "%s";\n' Dir::Etc::SourceList "$apt/sources.list" Dir::Etc::SourceParts /dev/null \
        Dir::Etc::PreferencesParts /dev/null Dir::State::Lists "$apt/lists" \
        Dir::State::Status /dev/null Dir::Cache::Archives "$apt/archives" \
        APT::Sandbox::User root Debug::NoLocking true >"$apt/conf"
    APT_CONFIG=$apt/conf apt-get update &&
        APT_CONFIG=$apt/conf apt-get install -y --no-install-recommends --download-only condor
}

# Its programs, and theirs only, are led to Debian 13's loader and libraries.
unpack() {
    local lib=$root/usr/lib/x86_64-linux-gnu file
    for file in "$dir"/apt/archives/{condor,lib,zlib}*.deb; do
        dpkg -x "$file" "$root" || return
    done
    for file in "$root"/usr/{bin,sbin,libexec/condor}/condor_*; do
        [ "$(head -c 4 "$file")" != $'\177ELF' ] ||
            patchelf --set-interpreter "$lib/ld-linux-x86-64.so.2" \
                --force-rpath --set-rpath "$root/usr/lib:$lib" "$file" || return
    done
    mkdir -p "$dir/bin" # not all of usr/bin is to be found by who uses it
    ln -sf "$root"/usr/bin/condor_* "$dir/bin"
    rm -r "$dir/apt"
}

write_config() {
    mkdir -p "$dir"/{etc,run,spool,execute}
    chown condor: "$dir"/{log,run,spool,execute}
    sed "s|@dir@|$dir|g; s|@ids@|$(id -u condor).$(id -g condor)|" "$here/htcondor/condor_config" \
        >"$dir/etc/new"
    mv "$dir/etc/new" "$CONDOR_CONFIG" # at once, as clients may be reading the old one
}

schedd_answers() { timeout 10 condor_q -totals; }
slot_is_there() { [ -n "$(timeout 10 condor_status -af Name)" ]; }
no_jobs() { [ -z "$(timeout 10 condor_q -allusers -af ClusterId || echo unknown)" ]; }
schedd_is_gone() {
    local master pid
    master=$(cat "$dir/run/master.pid")
    for pid in $(cat "/proc/$master/task/$master/children"); do
        [ "$(cat "/proc/$pid/comm")" != condor_schedd ] || return 1
    done
}

# Not even the terminal is left to a daemon, or `eval "$(htcondor.sh up)"` would wait for its end.
start_daemons() {
    master --start --background --make-pidfile --output "$dir/log/master.out" \
        --startas /usr/bin/env -- -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
        CONDOR_CONFIG="$CONDOR_CONFIG" "$root/usr/sbin/condor_master" -f </dev/null >&2
    await "schedd is silent" "$dir/log/SchedLog" schedd_answers
    await "there is no slot" "$dir/log/StartLog" slot_is_there
}
master() {
    start-stop-daemon --quiet --oknodo --pidfile "$dir/run/master.pid" \
        --exec "$root/usr/sbin/condor_master" "$@"
}

# At once, for only so are its jobs left to run: else they are taken back to wait.
halt() {
    tell condor_off -fast -daemon schedd
    await "schedd does not end" "$dir/log/SchedLog" schedd_is_gone
}
resume() {
    tell condor_on -daemon schedd
    await "schedd is silent" "$dir/log/SchedLog" schedd_answers
}
tell() {
    "$root/usr/sbin/$1" "${@:2}" >"$dir/log/tell.log" 2>&1 || fail "$1 failed" "$dir/log/tell.log"
}

up() {
    begin
    install_packages
    id condor >/dev/null 2>&1 || useradd --system -d /nonexistent -s /usr/sbin/nologin condor
    write_config
    start_daemons
}

status() {
    [ -e "$CONDOR_CONFIG" ] || die "there is no cluster in $dir"
    schedd_answers >/dev/null 2>&1 || die "schedd does not answer"
    slot_is_there || die "there is no slot"
    say "HTCondor $(condor_version | awk 'NR == 1 { print $2 }'), $(condor_config_val NUM_CPUS) cores"
    printf 'export HPCPIPE_TEST_HTCONDOR=%q CONDOR_CONFIG=%q PATH=%q:"$PATH" HPCPIPE_TEST_USER=%q\n' \
        "$dir" "$CONDOR_CONFIG" "$dir/bin" "$user"
}

down() {
    [ -e "$CONDOR_CONFIG" ] || return 0
    if schedd_answers >/dev/null 2>&1; then # jobs first: they would run again after the next `up`
        timeout 20 condor_rm -all >/dev/null 2>&1 || true
        for _ in {1..100}; do ! no_jobs || break; sleep 0.2; done
    fi
    master --stop --retry QUIT/20/KILL/5 >&2
}

main "$@"
