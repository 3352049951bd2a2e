#!/bin/bash
# A real ipyparallel cluster on this one machine, for the tests: a controller that keeps its records,
# and four engines, all of an ordinary user and on loopback only.
#
#     eval "$(tests/clusters/ipyparallel.sh up)"      start what is not running
#     eval "$(tests/clusters/ipyparallel.sh status)"  say whether it answers
#     tests/clusters/ipyparallel.sh down [--wipe]     stop what `up` started; --wipe forgets its tasks
#
# $PYTHON, by default .venv/bin/python here, must have hpcpipe[ipyparallel] installed, and the user
# must be able to run it. Standard output carries only the `export` line a client needs.
set -euo pipefail
umask 022

here=$(realpath "$(dirname "$0")")
python=${PYTHON:-$(realpath -ms "$here/../../.venv/bin/python")}
dir=$(realpath -ms "${HPCPIPE_TEST_IPYPARALLEL_DIR:-/tmp/hpcpipe-ipyparallel}")
patience=${HPCPIPE_TEST_WAIT:-60} # seconds that any one process gets to answer
user=$(id -un)
[ "$user" != root ] || user=${HPCPIPE_TEST_USER:-hpcpipe}
engines=4
export IPYTHONDIR=$dir/ipython

say() { printf 'ipyparallel.sh: %s\n' "$*" >&2; }
fail() { say "$1"; tail -n 12 "${@:2}" >&2 || true; exit 1; } # fail WHAT LOG...

as_user() { # COMMAND...
    local home
    home=$(getent passwd "$user" | cut -d: -f6)
    if [ "$(id -un)" = "$user" ]; then "$@"; else
        setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups env HOME="$home" "$@"
    fi
}

alive() { [ -s "$dir/$1.pid" ] && grep -qsz ipyparallel "/proc/$(cat "$dir/$1.pid")/cmdline"; }

# start NAME MODULE [OPTION...]: nothing happens if it lives. Not even the terminal is left to it.
start() {
    local name=$1
    shift
    alive "$name" && return
    as_user sh -c 'name=$1; shift; setsid "$@" </dev/null >>"$name.log" 2>&1 & echo $! >"$name.pid"' \
        sh "$dir/$name" "$python" -P -m "$@"
}

stop() { # NAME: with all that it started
    alive "$1" || return 0
    kill -TERM "$(cat "$dir/$1.pid")"
    for _ in {1..50}; do alive "$1" || return 0; sleep 0.1; done
    kill -KILL -- "-$(cat "$dir/$1.pid")"
}

answers() {
    as_user timeout 20 "$python" -P - "$engines" <<'PYTHON'
import sys
import ipyparallel
with ipyparallel.Client(timeout=5) as client:
    sys.exit(len(client.ids) != int(sys.argv[1]))
PYTHON
}

await() { # WHAT LOG COMMAND...
    local what=$1 log=$2 deadline=$((SECONDS + patience))
    shift 2
    until "$@" >"$dir/await.log" 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$what after $patience s" "$log" "$dir/await.log"
        sleep 0.2
    done
}

up() {
    local engine
    as_user mkdir -p "$dir"
    rm -f "$dir/await.log" # root's, where tests of the user start it again
    # A connection file of a controller that is gone would be believed.
    alive controller || rm -f "$IPYTHONDIR"/profile_default/security/ipcontroller-*.json
    start controller ipyparallel.controller --ip=127.0.0.1 --location=127.0.0.1 --sqlitedb
    await "the controller is silent" "$dir/controller.log" \
        test -s "$IPYTHONDIR/profile_default/security/ipcontroller-engine.json"
    for ((engine = 1; engine <= engines; engine++)); do
        start "engine$engine" ipyparallel.engine
    done
    await "not all engines are there" "$dir/engine1.log" answers
    status
}

status() {
    answers >/dev/null 2>&1 || fail "no cluster of $engines engines answers" "$dir/controller.log"
    say "$("$python" -c 'import ipyparallel; print("ipyparallel", ipyparallel.__version__)'), $engines engines"
    printf 'export HPCPIPE_TEST_IPYPARALLEL=%q IPYTHONDIR=%q\n' "$dir" "$IPYTHONDIR"
}

down() {
    local engine
    for ((engine = 1; engine <= engines; engine++)); do stop "engine$engine"; done
    stop controller
}

case "$*" in
status) status ;;
up) up ;;
down) down ;;
"down --wipe") down; rm -rf "$dir" ;;
*) say "usage: ipyparallel.sh up|status|down [--wipe]"; exit 1 ;;
esac
