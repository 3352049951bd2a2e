# What the scripts here that start a scheduler as root have in common; each sources it first. Such a
# script has the functions up, status and down, and halt and resume: of the servers alone, while jobs
# that run go on.
set -euo pipefail
umask 022

script=$(basename "$0") # NAME.sh
here=$(realpath "$(dirname "$0")")
wanted=HPCPIPE_TEST_$(basename "$0" .sh | tr '[:lower:]' '[:upper:]')_DIR
dir=$(realpath -ms "${!wanted:-/tmp/hpcpipe-${script%.sh}}") # all that it writes
user=${HPCPIPE_TEST_USER:-hpcpipe}
patience=${HPCPIPE_TEST_WAIT:-60} # seconds that any one daemon gets to answer

say() { printf '%s: %s\n' "$script" "$*" >&2; }
die() { say "$1"; exit 1; }
fail() { say "$1"; tail -n 12 "${@:2}" >&2 || true; exit 1; } # fail WHAT LOG...

# await WHAT LOG COMMAND...: until the command succeeds, or patience ends.
await() {
    local what=$1 log=$2 deadline=$((SECONDS + patience))
    shift 2
    until "$@" >"$dir/log/await.log" 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$what after $patience s" "$log" "$dir/log/await.log"
        sleep 0.1
    done
}

begin() { # of `up`: the folder, the user, and who attends to the tests
    mkdir -p "$dir"/{etc,run,log} && touch "$dir/made-by-$script"
    id "$user" >/dev/null 2>&1 || useradd -m -s /bin/bash "$user"
}
# A mailer, which only notes the words that it is given in $dir/mail, a line a mail.
write_mailer() {
    printf '#!/bin/sh\necho "$*" >>%q\n' "$dir/mail" >"$dir/etc/mail"
    chmod 755 "$dir/etc/mail"
    touch "$dir/mail" && chmod 666 "$dir/mail"
}
attend() { "$here/attend.sh" "$1" "$here/$script" "$dir" "$user"; } # begin|end

# Two at once would start everything twice. flock -o keeps the lock out of the daemons' hands.
as_root_alone() {
    [ "$(id -u)" = 0 ] || die "$1 needs root"
    [ -n "${HPCPIPE_TEST_LOCKED:-}" ] ||
        HPCPIPE_TEST_LOCKED=1 exec flock -o "$here/$script" bash "$here/$script" "$@"
    [ ! -e "$dir" ] || { [ -O "$dir" ] && [ ! -L "$dir" ] && [ -e "$dir/made-by-$script" ]; } ||
        die "$dir is there, but this script did not make it"
    cd /
}

main() { # up|status|stop|start|down [--wipe]
    case "$*" in
    status) status ;;
    up) as_root_alone up; up; attend begin; status ;;
    stop) as_root_alone stop; halt ;;
    start) as_root_alone start; resume ;;
    down | "down --wipe")
        as_root_alone "$@"
        attend end
        down
        [ -z "${2:-}" ] || rm -rf "$dir"
        ;;
    *) die "usage: $script up|status|stop|start|down [--wipe]" ;;
    esac
}
