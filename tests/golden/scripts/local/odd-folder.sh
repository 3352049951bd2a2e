#!/bin/sh
#HPCPIPE --name=bet.wf
#HPCPIPE --array=0-1
#HPCPIPE --output=logs/node-0a1b2c3d.%a.out
# hpcpipe 1.2.3: node-0a1b2c3d, 2 of node bet, workflow wf.
# Starts in the run's .hpcpipe folder, to which every path below is relative.
index=$HPCPIPE_INDEX
job=${HPCPIPE_JOB_ID}_$index
attempt=0
position=$((index - 0))
newline='
'
fail() { echo "hpcpipe: $2" >&2; exit "$1"; }

clock() {  # hundredths of a second; Linux tells them without a process being started
  if { read -r up _ </proc/uptime; } 2>/dev/null; then now=${up%.*}${up#*.}; else now=$(date +%s)00; fi
}

each_need() {  # wait a while for upstream outcomes that a common filesystem may show late
  for need; do
    path=${need%:*} tries=0
    until [ -e "$path.pkl" ]; do
      [ -e "$path.${need##*:}.err" ] || [ "$tries" -ge 30 ] &&
        fail 86 "upstream failed: no good outcome at $path"
      tries=$((tries + 1)); ls "${path%/*}" >/dev/null; sleep 1
    done
  done
}

each_made() {  # the record names an output by number: a path could hold what a pickle cannot
  nth=0
  for path; do
    nth=$((nth + 1))
    [ -e "$path" ] && continue
    echo "hpcpipe: ended well but did not make $path" >&2
    error="ended well but did not make output $nth"
    return 1
  done
}

record() {  # the outcome: a pickle in its text form, as hpcpipe/worker.py describes it
  clock
  wall=$((now - started))
  printf '(dVok\nI0%s\nsVjob\nV%s\nsVhost\nV%s\nsVattempt\nI%s\nsVwall\nF%s.%02d\nsVexit\n%ssVsignal\n%ssVterminated\nI0%s\nsVerror\nV%s\ns.%s' \
    "$1" "$job" "$host" "$attempt" "$((wall / 100))" "$((wall % 100))" "$2" "$3" "${terminated:-0}" "$4" "$5" >"$claim"
}

result='' terminated=''
eval "$(sed -n "$((position + 2)){p;q;}" batches/node-0a1b2c3d.tasks)" || fail 1 "cannot read batches/node-0a1b2c3d.tasks"
[ -n "$result" ] || fail 1 "no element $index in batches/node-0a1b2c3d.tasks"
[ -e "$result.pkl" ] && exit 0
needs
{ read -r host </proc/sys/kernel/hostname; } 2>/dev/null || host=$(hostname)

claim=$result.claim mask=$(umask)
umask 077
set -C
until { echo "$host $$ $job" >"$claim"; } 2>/dev/null; do
  [ -e "$claim" ] || fail 1 "cannot write $claim"
  { read -r their_host their_pid their_job <"$claim"; } 2>/dev/null
  [ -n "$their_job" ] || fail 87 "$claim: claimed by an unknown process"
  [ "$their_job" = "$job" ] || { [ "$their_host" = "$host" ] && ! kill -0 "$their_pid" 2>/dev/null; } ||
    fail 87 "$claim: claimed by $their_job on $their_host"
  rm -f "$claim"
done
set +C

clock
started=$now
[ -z "$folder" ] || (umask "$mask" && mkdir -p -- "$folder")
(umask "$mask" && cd -- '/data/it'"'"'s a "cwd" \ of
$(touch pwned) `touch pwned` Zoë ${HOME} %a ;&|' && exec "$@") &
child=$!
trap 'terminated=1; kill -TERM "$child" 2>/dev/null' TERM
wait "$child"
status=$?
while [ -n "$terminated" ] && kill -0 "$child" 2>/dev/null; do wait "$child"; status=$?; done

error="exit $status"
if [ "$status" -eq 0 ] && made; then
  record 1 N N '' "$value" && exec mv -f -- "$claim" "$result.pkl"
  fail 1 "cannot write $claim"
elif [ "$status" -gt 128 ] && [ "$status" -le 192 ]; then  # 255 is no signal
  error="killed by signal $((status - 128))"
  record 0 N "I$((status - 128))$newline" "${terminated:+terminated: }$error" 'N.'
else
  record 0 "I$status$newline" N "$error" 'N.'
fi
mv -f -- "$claim" "$result.node-0a1b2c3d.err"
exit 1
