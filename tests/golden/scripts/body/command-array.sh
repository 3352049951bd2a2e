fail() { echo "hpcpipe: $2" >&2; exit "$1"; }

clock() {  # hundredths of a second; Linux tells them without a process being started
  if { read -r up _ </proc/uptime; } 2>/dev/null; then now=${up%.*}${up#*.}; else now=$(date +%s)00; fi
}

each_need() {  # wait a while for upstream outcomes that a common filesystem may show late
  for need; do
    where=${need%:*} tries=0
    until is_good "$where"; do
      is_bad "$where" "${need##*:}" || [ "$tries" -ge 30 ] &&
        bar 86 "upstream failed: no result at $where"
      tries=$((tries + 1)); ls "${where%/*}" >/dev/null; sleep 1
    done
  done
}

bar() {  # CODE WORDS: this task must not run
  fail "$@"
}

each_made() {  # before the command, note what is there; afterwards: is each there, new, not empty?
  name=$outputs
  for path; do
    fact=''
    [ ! -f "$path" ] || [ -z "$old$begins" ] || fact=$(TZ=UTC0 stat -L -c '%i %y %z' -- "$path" 2>/dev/null)
    if [ -n "$begins" ]; then
      [ -z "$fact" ] || old=$old$fact$path$newline
      continue
    fi
    amiss='' rest=''
    case $newline$old in *"$newline${fact:-none}$path$newline"*)
      amiss=left rest=' as an earlier try had made it: remove it to have it made' ;;
    esac
    [ ! -f "$path" ] || [ -s "$path" ] || amiss=made rest=' empty'
    [ -e "$path" ] || amiss='did not make' rest=''
    if [ -n "$amiss" ]; then
      echo "hpcpipe: ended well but $amiss $path$rest" >&2
      error="ended well but $amiss ${name%%"$newline"*}$rest"
      return 1
    fi
    name=${name#*"$newline"}
  done
  [ -n "$begins" ] || note_made "$@"
}

note_made() {  # what is there now, for those who read it: see worker/made.py
  files=''
  for path; do
    fact=$(LC_ALL=C stat -L -c '%s %.9Y' -- "$path" 2>/dev/null) digest=''
    case $fact in '' | *[!0-9.\ ]*) files=''; return 0 ;; esac
    [ ! -f "$path" ] || [ "${fact% *}" -gt 67108864 ] || digest=$(b2sum <"$path" 2>/dev/null)
    digest=${digest%% *}
    files="$files$fact ${digest:--} "
  done
}

needs() { :; }  # unless the task has some
inputs() { :; }  # the same
takes() { :; }  # unless it reads files that other tasks made

each_taken() {  # are the files as those upstream noted them, whose outcomes are $above?
  facts='' digests=''
  for where in $above; do
    found='' before=''
    case $where in
    *'#'*)
      case $where in '#'*) where=$pack$where ;; esac
      found=$(sed -n "/^${where##*#} ok /,/^sVfiles/{/^sVfiles/{n;p;};}" "${where%#*}" 2>/dev/null) ;;
    *)
      while IFS= read -r line; do
        [ "$before" != sVfiles ] || { found=$line; break; }
        before=$line
      done 2>/dev/null <"$where" ;;
    esac
    found=${found##*"$newline"}
    [ -n "$found" ] || return 0  # by an earlier version
    read_noted ${found#V}
  done
  facts=${facts%"$newline"} look='%s %.9Y' when="after it was made"
  each_same "$@"
}

read_noted() {
  while [ "$#" -gt 2 ]; do
    facts="$facts$1 $2$newline" digests="$digests$3 "
    shift 3
  done
}

each_same() {  # has each file the facts ($look) that were seen, or else the content?
  [ "$(LC_ALL=C TZ=UTC0 stat -L -c "$look" -- "$@" 2>/dev/null)" != "$facts" ] || return 0
  fact=$facts name=$names
  for digest in $digests; do
    path=$1
    if [ ! -e "$path" ]; then
      words="is gone $when" sum=''
      [ "$when" != "while the task ran" ] || sum=$digest  # the task itself has moved it
    else
      words="changed $when" sum=$digest
      [ -d "$path" ] && [ "$when" = "after it was made" ] ||  # of a folder nothing is compared
        [ "$(LC_ALL=C TZ=UTC0 stat -L -c "$look" -- "$path")" = "${fact%%"$newline"*}" ] ||
        sum=$(b2sum <"$path")
    fi
    case $sum in
    "$digest"*) ;;
    *)
      echo "hpcpipe: input $path $words" >&2
      error="input ${name%%"$newline"*} $words" cause=input
      return 1 ;;
    esac
    shift; fact=${fact#*"$newline"} name=${name#*"$newline"}
  done
}

find_place() {  # of the task: where its outcome and its claim go
  good=results/$node/$key.pkl bad=results/$node/$key.node-0a1b2c3d.err own=results/$node/$key.claim
}

is_good() {  # a file, or a line in a pack, as hpcpipe/worker/outcome.py describes it
  case $1 in
  *.pack#*) grep -q "^${1##*#} ok " "${1%#*}" 2>/dev/null ;;
  *) [ -e "$1" ] ;;
  esac
}

any_good() {  # of outcomes that sh has written: is one there, and not cut short?
  for where; do
    case $where in
    *.pack#*)
      found=$(sed -n "/^$key ok /,/^\$/p" "${where%#*}" 2>/dev/null)
      found=${found##*"$key ok "}
      length=${found%% *} text=${found#*"$newline"}
      [ "${#text}" != "$length" ] || return 0 ;;
    *) [ ! -e "$where" ] || return 0 ;;
    esac
  done
  return 1
}

take_folder() {  # an earlier version of the task is about to lose its files: see worker/outcome.py
  (umask "$mask" && mkdir -p -- "$folder")
  mine="$key" kept=''
  while read -r other where; do
    case $other in
    "$key") kept=$kept$other${where:+ $where}$newline ;;
    *[!0-9a-f]* | '') ;;
    *)
      [ -z "$where" ] || echo "$where" >>"results/$node/$other.damaged"
      rm -f -- "results/$node/$other.pkl" ;;
    esac
  done 2>/dev/null <"$folder/.hpcpipe-task"
  case $newline$kept in
  *"$newline$mine$newline"*) ;;
  *) printf '%s%s\n' "$kept" "$mine" >"$folder/.hpcpipe-task" ;;
  esac
}

has_succeeded() {  # here, or in an earlier job that may not have ended, which its line names
  is_good "$good" || { [ -n "$elsewhere" ] && look_elsewhere; }
}

adopt() {  # put what another job has left where those that wait for this one look for it
  [ -e "$good" ] ||
    { printf '%s ok %s\n' "$key" "$found" >"$own.$$" && mv -f -- "$own.$$" "$good"; } ||
    fail 93 "cannot write $good"
}

is_bad() {
  case $1 in
  *.pack#*) grep -q "^${1##*#} err " "${1%#*}" 2>/dev/null ;;
  *) [ -e "${1%.pkl}.$2.err" ] ;;
  esac
}

outcome() {  # two pickles in their text form; a copy of them stands in for a digest
  clock
  wall=$((now - started)) part=$(((now - started) % 100))
  [ "$part" -gt 9 ] || part=0$part
  outcome="(dVok${newline}I0$1${newline}sVjob${newline}V$job${newline}sVhost${newline}V$host${newline}s\
Vattempt${newline}I${attempt:-0}${newline}sVwall${newline}F$((wall / 100)).$part${newline}s\
Vexit${newline}$2sVsignal${newline}$3sVterminated${newline}I0${terminated:-0}${newline}s\
Verror${newline}V$4${newline}s${cause:+Vcause${newline}V$cause${newline}s}${files:+Vfiles${newline}V$files${newline}s}.$5"
  length=$((2 * ${#outcome}))
}

put() {  # KEEP_AS, then those of outcome
  status=$1; shift
  outcome "$@"
  printf '%s %s %s =\n%s%s\n' "$key" "$status" "$length" "$outcome" "$outcome" >"$claim" ||
    fail 93 "cannot write $claim"
  [ "$status" = ok ] && exec mv -f -- "$claim" "$good"
  mv -f -- "$claim" "$bad"
  exit 1
}

sign() {  # make the first line of every claim
  { read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null || boot=-
  { read -r _ ns _ </proc/2/stat; } 2>/dev/null || ns=''
  case $boot$ns in  # only the machine's own pid namespace shows its kernel threads
  -*) ns=- ;;
  *'(kthreadd)') ns='pid:[4026531836]' ;;
  *) ns=$(readlink /proc/self/ns/pid) || ns=- ;;
  esac
  find_self || pid=$$ start=-
  mine="$host $boot $ns $pid $start ${attempt:--} ${job:--} node-0a1b2c3d"
}

find_self() {  # this very process, be it a subshell: its pid and start
  { read -r stat </proc/self/stat; } 2>/dev/null || return 1
  pid=${stat%% *}
  after_name
  set -- $stat
  start=${20}
}

after_name() {  # cut $stat there; a name may hold anything, and ${stat##*) } takes sh much longer
  while :; do case $stat in *')'*) stat=${stat#*')'} ;; *) return ;; esac; done
}

lives() {  # PID START
  if ! { read -r stat <"/proc/$1/stat"; } 2>/dev/null; then
    [ "$boot" = - ] && kill -0 "$1" 2>/dev/null
    return
  fi
  after_name
  set -- "$2" $stat
  case $2 in Z | X) return 1 ;; esac
  [ "$1" = - ] || [ "$1" = "${21}" ]
}

is_gone() {  # the holder of the claim that says $text: provably dead?
  head=1 alive='' ended='' their_job=''
  while read -r one two three four five six seven eight; do
    if [ -n "$head" ]; then
      head='' their_host=$one their_boot=$two their_ns=$three their_pid=$four
      their_attempt=$six their_job=$seven their_batch=$eight
      ! lives "$four" "$five" || alive=1
    elif [ "$one" = ended ]; then
      ended=1
    elif lives "$one" "$two"; then
      alive=1
    fi
  done <<EOF
$text
EOF
  case $their_pid in '' | *[!0-9]*) their_job='' ;; esac
  [ -n "$their_job" ] || return 1  # its holder is just writing it
  if [ "$their_boot$their_ns" = "$boot$ns" ] && { [ "$boot" != - ] || [ "$their_host" = "$host" ]; }; then
    [ -z "$alive" ]
    return
  fi
  if [ "$their_host" = "$host" ] && [ "$their_boot" != "$boot" ]; then
    case "$boot $their_boot" in '- '* | *' -') ;; *) return 0 ;; esac
  fi
  [ -z "$ended" ] || return 0
  [ "$their_job" != - ] && [ "$their_job $their_batch" = "$job node-0a1b2c3d" ] || return 1
  [ -z "$attempt" ] || [ "$their_attempt" -lt "$attempt" ] 2>/dev/null
}

hold() {  # CLAIM; sets overtook where it was taken over. 1 and holder if somebody has it
  claim=$1 ticket=$1 overtook='' seen='' nth=0 tries=0
  set -C
  while ! { echo "$mine" >"$ticket"; } 2>/dev/null || ! takes_over; do
    if ! text=$(cat -- "$ticket" 2>/dev/null); then  # let go between the two looks
      tries=$((tries + 1))
      [ "$tries" -lt 100 ] || fail 1 "cannot write $ticket"
      ticket=$claim seen='' nth=0
    elif is_gone; then
      seen=$seen$text$newline nth=$((nth + 1))
      ticket=$claim$nth
    else
      set +C
      [ -n "$text" ] || is_writable || fail 93 "cannot write $ticket"
      holder='an unknown process'
      [ -z "$their_job" ] || holder="process $their_pid on $their_host, job $their_job"
      return 1
    fi
  done
  set +C
}

is_writable() {  # or is the disk full?
  { echo "$mine" >"$claim.$$"; } 2>/dev/null
  set -- $?
  rm -f -- "$claim.$$"
  return "$1"
}

takes_over() {  # with a ticket only if all claims are as they were, when they were found dead
  [ "$nth" -gt 0 ] || return 0
  set -- "$claim"
  while [ "$#" -lt "$nth" ]; do set -- "$@" "$claim$#"; done
  if [ "$(cat -- "$@" 2>/dev/null)$newline" = "$seen" ]; then
    mv -f -- "$ticket" "$claim"
    shift
    [ "$#" -eq 0 ] || rm -f -- "$@"
    overtook=1
  else
    rm -f -- "$ticket"
    return 1
  fi
}

enlist() {  # this process, which runs the command: the claim holds as long as it lives
  if find_self; then echo "$pid $start" >>"$claim"; fi
  kill -0 $$ 2>/dev/null || exit 1  # who would record its end was killed
}

await() {  # a process, whatever signal comes meanwhile; leaves its status
  wait "$1"
  status=$?
  while [ -n "$terminated" ] && kill -0 "$1" 2>/dev/null; do wait "$1"; status=$?; done
}

count_kills() {  # of this job's cgroup, by the kernel, for memory
  kills=0
  [ -z "$events" ] || while read -r what count; do
    [ "$what" != oom_kill ] || kills=$count
  done <"$events"
}

interruptible() {  # the words of the command
  case $1 in *=*) trap - INT QUIT; exec "$@" ;; esac  # env would take it for a variable
  case $heed in
  env) with_functions env --default-signal=INT,QUIT -- "$@" ;;
  perl) with_functions perl -e '$SIG{INT} = $SIG{QUIT} = "DEFAULT"; exec {$ARGV[0]} @ARGV; exit 127' -- "$@" ;;
  *) trap - INT QUIT; with_functions "$@" ;;
  esac
}

run() {  # the words of the command
  clock
  started=$now files=''
  takes || put err 0 N N "$error" N.
  when="since it was planned"
  inputs || put err 0 N N "$error" N.
  old='' begins=1
  made
  begins=''
  count_kills
  before=$kills
  [ -z "$folder" ] || take_folder
  child=''
  trap 'terminated=1; kill -TERM "$child" 2>/dev/null' TERM ALRM
  (enlist && umask "$mask" && cd -- /data/here && interruptible "$@") &
  child=$!
  [ -z "$terminated" ] || kill -TERM "$child" 2>/dev/null  # it came just before
  await "$child"

  error="exit $status" when="while the task ran"
  count_kills
  if [ "$kills" -gt "$before" ]; then  # the command may have gone on without it
    error="the kernel killed $((kills - before)) of its processes for memory" cause=memory
    put err 0 "I$status$newline" "N" "$error" 'N.'
  elif [ "$status" -eq 0 ] && [ -n "$terminated" ]; then  # a script goes on after its trap
    error="told to end, it ended with 0, finished or not"
    put err 0 "I0$newline" "N" "$error" 'N.'
  elif [ "$status" -eq 0 ] && inputs && made; then
    put ok 1 "N" "N" '' "$value"
  elif [ "$status" -gt 128 ] && [ "$status" -le 192 ]; then  # 255 is no signal
    error="killed by signal $((status - 128))"
    put err 0 "N" "I$((status - 128))$newline" "${terminated:+terminated: }$error" 'N.'
  else
    put err 0 "I$status$newline" "N" "$error" 'N.'
  fi
}

read_lines() {  # WHICH of the tasks; on the way, find out what interruptible can use
  heed=''
  if [ -z "${BASH_VERSION-}${ZSH_VERSION-}${KSH_VERSION-}" ]; then  # these can by themselves
    heed=env
    ! lines=$(LC_ALL=C env --default-signal=INT sed -n "$1" batches/node-0a1b2c3d.tasks 2>/dev/null) || return 0
    heed=''
    ! command -v perl >/dev/null || heed=perl
  fi
  lines=$(LC_ALL=C sed -n "$1" batches/node-0a1b2c3d.tasks)
}

key='' terminated='' cause='' elsewhere=''
{ read -r host </proc/sys/kernel/hostname; } 2>/dev/null || host=$(hostname)
events=${HPCPIPE_MEMORY_EVENTS-}
[ -n "$events" ] || while IFS=: read -r _ what where; do
  case ,$what, in
  ,,) events=/sys/fs/cgroup$where/memory.events ;;
  *,memory,*) events=/sys/fs/cgroup/memory$where/memory.oom_control; break ;;
  esac
done 2>/dev/null </proc/self/cgroup
[ -r "$events" ] || events=''
what=''
{ read -r _ && read -r what mask; } 2>/dev/null </proc/self/status
[ "$what" = Umask: ] || mask=$(umask)
umask 077
sign
read_lines "$((position + 2)){p;q;}" || fail 1 "cannot read batches/node-0a1b2c3d.tasks"
eval "$lines"
[ -n "$key" ] || fail 1 "no element $index in batches/node-0a1b2c3d.tasks"
find_place
! has_succeeded || { adopt; exit 0; }
needs
hold "$own" || fail 87 "$claim is claimed by $holder"
if has_succeeded; then  # whoever had it until now has succeeded
  adopt
  rm -f -- "$claim"
  exit 0
fi
run "$@"
