#!/bin/sh
#SBATCH --job-name=strip+1.wf
#SBATCH --array=0-1
#SBATCH --output=logs/node-0a1b2c3d.%a.out
#SBATCH --open-mode=append
#SBATCH --no-requeue
#SBATCH --partition=whole
#SBATCH --cpus-per-task=4
#SBATCH --mem=8192M
#SBATCH --time=00:40:00
#SBATCH --gpus=2
# hpcpipe 1.2.3: node-0a1b2c3d, 16 of strip warp, workflow wf.
# Starts in the run's .hpcpipe folder, to which every path below is relative.
export OMP_NUM_THREADS=2  # of each task, not of all that run side by side
export SLURM_CPUS_PER_TASK=2
index=$SLURM_ARRAY_TASK_ID
job=${SLURM_ARRAY_JOB_ID}_$index
attempt=${SLURM_RESTART_COUNT:-0}
position=$((index - 0))
newline='
'
fail() { echo "hpcpipe: $2" >&2; exit "$1"; }

clock() {  # hundredths of a second; Linux tells them without a process being started
  if { read -r up _ </proc/uptime; } 2>/dev/null; then now=${up%.*}${up#*.}; else now=$(date +%s)00; fi
}

each_need() {  # wait a while for upstream outcomes that a common filesystem may show late
  for need; do
    where=${need%:*} tries=0
    case $where in '#'*) where=$pack$where tries=30 ;; esac  # in this very pack, or never
    until is_good "$where"; do
      is_bad "$where" "${need##*:}" || [ "$tries" -ge 30 ] &&
        fail 86 "upstream failed: no good outcome at $where"
      tries=$((tries + 1)); ls "${where%/*}" >/dev/null; sleep 1
    done
  done
}

is_good() {  # a file, or a line in a pack, as hpcpipe/outcome.py describes it
  case $1 in
  *.pack#*) grep -q "^${1##*#} ok " "${1%#*}" 2>/dev/null ;;
  *) [ -e "$1" ] ;;
  esac
}

is_bad() {
  case $1 in
  *.pack#*) grep -q "^${1##*#} err " "${1%#*}" 2>/dev/null ;;
  *) [ -e "${1%.pkl}.$2.err" ] ;;
  esac
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

outcome() {  # a pickle in its text form
  clock
  wall=$((now - started)) part=$(((now - started) % 100))
  [ "$part" -gt 9 ] || part=0$part
  outcome="(dVok${newline}I0$1${newline}sVjob${newline}V$job${newline}sVhost${newline}V$host${newline}s\
Vattempt${newline}I$attempt${newline}sVwall${newline}F$((wall / 100)).$part${newline}s\
Vexit${newline}$2sVsignal${newline}$3sVterminated${newline}I0${terminated:-0}${newline}s\
Verror${newline}V$4${newline}s.$5"
}

# A pipe that holds one line is a lock: of the list of tasks, the pack, and the element's log.
lock() { until read -r _ <&4; do :; done; }
unlock() { echo >&4; }

keep() {  # KEEP_AS, then those of outcome
  status=$1; shift
  outcome "$@"
  lock
  printf '\n%s %s %s\n%s\n' "$key" "$status" "${#outcome}" "$outcome" >>"$pack" || status=full
  unlock
  [ "$status" != full ] || fail 1 "cannot write $pack"
  [ "$status" = ok ] || exit 1
  exit 0
}

hold() {  # take the claim: of a task, or of a pack
  claim=$1 mask=$(umask)
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
}

await() {  # a process, whatever signal comes meanwhile; leaves its status
  wait "$1"
  status=$?
  while [ -n "$terminated" ] && kill -0 "$1" 2>/dev/null; do wait "$1"; status=$?; done
}

run() {  # the words of the command
  clock
  started=$now
  [ -z "$folder" ] || (umask "$mask" && mkdir -p -- "$folder")
  (umask "$mask" && cd -- /data/here && exec "$@") 4<&- 5>&- &
  child=$!
  trap 'terminated=1; kill -TERM "$child" 2>/dev/null' TERM
  await "$child"

  error="exit $status"
  if [ "$status" -eq 0 ] && made; then
    keep ok 1 "N" "N" '' "$value"
  elif [ "$status" -gt 128 ] && [ "$status" -le 192 ]; then  # 255 is no signal
    error="killed by signal $((status - 128))"
    keep err 0 "N" "I$((status - 128))$newline" "${terminated:+terminated: }$error" 'N.'
  else
    keep err 0 "I$status$newline" "N" "$error" 'N.'
  fi
}

key='' terminated=''
{ read -r host </proc/sys/kernel/hostname; } 2>/dev/null || host=$(hostname)
in_turn() {  # the tasks whose lines are on fd 3
  while [ -z "$terminated" ] && IFS= read -r line <&3; do
    (
      eval "$line"
      log=logs/node-0a1b2c3d.$key.out
      exec 5>&1 >>"$log" 2>&1
      trap publish EXIT
      [ -z "$again" ] || ! is_good "$pack#$key" || exit 0
      [ ! -e "results/$node/$key.pkl" ] || exit 0
      needs
      run "$@"
    ) 3<&- &
    task=$!
    [ -z "$terminated" ] || kill -TERM "$task" 2>/dev/null
    await "$task"
    note
  done
}

note() {  # how a task went, or those of a lane
  [ "$status" -eq 0 ] || { [ "$status" -eq 86 ] && gated=1; } || code=1
}

leave() {
  [ "$code" -ne 0 ] || [ -z "$gated" ] || code=86
  exit "$code"
}

publish() {  # put what a task wrote into the element's log
  lock
  { echo "hpcpipe: task $node $key"; cat "$log"; } >&5
  rm -f "$log"
  unlock
}

take() {  # the lines of the next strand
  lock
  strand='' nth=0
  while [ "$nth" -lt 2 ] && IFS= read -r line <&3; do
    strand=${strand:+$strand$newline}$line nth=$((nth + 1))
  done
  unlock
  [ -n "$strand" ]
}

lane() {  # its number
  trap 'terminated=1; kill -TERM "$task" 2>/dev/null' TERM
  mine='' nth=0
  for gpu in $(echo "${CUDA_VISIBLE_DEVICES:-0,1}" | tr , ' '); do
    [ $((nth / 1)) -ne "$1" ] || mine=${mine:+$mine,}$gpu
    nth=$((nth + 1))
  done
  export CUDA_VISIBLE_DEVICES="$mine"
  while [ -z "$terminated" ] && take; do
    in_turn 3<<EOF
$strand
EOF
  done
  leave
}

set -- 0 8 16
shift "$position"
first=$1 last=$2 pack=packs/node-0a1b2c3d.$position.pack
hold "$pack.claim"
again=''
[ ! -s "$pack" ] || again=1  # this ran before
code=0 gated='' task=''
pipe=${TMPDIR:-/tmp}/hpcpipe.${pack##*/}.$$
{ mkfifo "$pipe" && exec 4<>"$pipe"; } || fail 1 "cannot make $pipe"
rm -f "$pipe"
unlock
lanes='' nth=0
trap 'terminated=1; kill -TERM $lanes 2>/dev/null' TERM
exec 3<<EOF
$(sed -n "$((first + 2)),$((last + 1))p" batches/node-0a1b2c3d.tasks)
EOF
while [ "$nth" -lt 2 ]; do
  lane "$nth" &
  lanes="$lanes $!" nth=$((nth + 1))
done
[ -z "$terminated" ] || kill -TERM $lanes 2>/dev/null
for task in $lanes; do
  await "$task"
  note
done
rm -f "$claim"
[ -z "$terminated" ] || exit 1
leave
