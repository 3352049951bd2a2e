#!/bin/bash
# Stops and starts a scheduler for tests, which are an ordinary user's who may do neither. As root,
# from the `up` of a script here: attend.sh begin|end SCRIPT DIR USER. A word written to DIR/ask,
# "stop" or "start", is done, and then written to DIR/answer.
set -euo pipefail

verb=$1 script=$(realpath "$2") dir=$3 user=$4
pid=$(cat "$dir/attend.pid" 2>/dev/null || true)
lives() { [ -n "$pid" ] && grep -qszx "$1" "/proc/$pid/cmdline"; }

case $verb in
begin)
    lives "$script" && exit
    ! lives "$dir" || kill "$pid" # of another checkout: two would take words from each other
    for pipe in ask answer; do
        [ -p "$dir/$pipe" ] || mkfifo -m 600 "$dir/$pipe"
        chown "$user" "$dir/$pipe"
    done
    setsid bash "$0" attend "$script" "$dir" "$user" </dev/null >>"$dir/log/attend.log" 2>&1 &
    echo $! >"$dir/attend.pid"
    ;;
attend)
    unset HPCPIPE_TEST_LOCKED # the lock that `up` holds will have been let go
    while true; do
        while read -r word; do
            case $word in stop | start) "$script" "$word" || word=failed ;; *) word=unknown ;; esac
            timeout 60 tee "$dir/answer" <<<"$word"
        done <"$dir/ask"
    done
    ;;
end) ! lives "$dir" || kill "$pid" ;;
esac
