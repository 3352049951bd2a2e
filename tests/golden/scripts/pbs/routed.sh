#!/bin/bash -l
#PBS -N bet.wf
#PBS -J 0-1%2
#PBS -j oe
#PBS -o localhost:/dev/null
#PBS -m n
#PBS -q standard
#PBS -A lab
#PBS -l select=1:ncpus=3:mem=4096mb:ngpus=1:a100_1g.5gb:nvme:hdr
#PBS -l matlab=1
#PBS -l walltime=00:01:30
#PBS --qos=taskfarm
#PBS --wckey=paid
#PBS --gres=lscratch:2
folder=$(printf '%b.' "$(printf %s "$HPCPIPE_FOLDER" | sed 's/%/\\0/g')")
cd -- "${folder%.}" || exit 1
exec >>"logs/node-0a1b2c3d.$PBS_ARRAY_INDEX.out" 2>&1
# hpcpipe 1.2.3: node-0a1b2c3d, 2 of bet, workflow wf.
# Starts in the run's .hpcpipe folder, to which every path below is relative.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-3}"
export HPCPIPE_LAUNCHER='srun --mpi=pmix'
# fsl 6.0.7, spm 12
module load biology
module load fsl/6.0.7
module load spm
export HPCPIPE_SCRATCH="$TMPDIR"
index=$PBS_ARRAY_INDEX
job=$PBS_JOBID
attempt=0  # PBS does not tell a job how often it was started
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

keep() {
  status=$1; shift
  outcome "$@"
  printf %s "$outcome" >"$claim" || fail 1 "cannot write $claim"
  [ "$status" = ok ] && exec mv -f -- "$claim" "$result.pkl"
  mv -f -- "$claim" "$result.node-0a1b2c3d.err"
  exit 1
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
  (umask "$mask" && cd -- /data/here && exec "$@") &
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
eval "$(sed -n "$((position + 2)){p;q;}" batches/node-0a1b2c3d.tasks)" || fail 1 "cannot read batches/node-0a1b2c3d.tasks"
[ -n "$key" ] || fail 1 "no element $index in batches/node-0a1b2c3d.tasks"
result=results/$node/$key
[ -e "$result.pkl" ] && exit 0
needs
hold "$result.claim"
run "$@"
