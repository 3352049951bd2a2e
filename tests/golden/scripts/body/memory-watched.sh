page=$(getconf PAGESIZE 2>/dev/null) || page=4096
list() {  # pid, parent and KiB of every process; not every node has ps
  if [ -e /proc/self/stat ]; then
    cat /proc/[0-9]*/stat 2>/dev/null | awk -v page="$page" '
      # A program may have any name: the last bracket ends it.
      { start = $1; sub(/^.*\) /, ""); print start + 0, $2, $22 * page / 1024 }'
  else
    ps -A -o pid= -o ppid= -o rss=
  fi
}

processes() {  # KiB that a process and all below it hold; then these, itself first
  list | awk -v top="$1" '
    { held[$1] = $3; below[$2] = below[$2] " " $1 }
    END {
      n = split(top, all)
      for (i = 1; i <= n; i++) {
        sum += held[all[i]]
        m = split(below[all[i]], more)
        for (j = 1; j <= m; j++) all[++n] = more[j]
      }
      printf "%d", sum
      for (i = 1; i <= n; i++) printf " %s", all[i]
    }'
}

watch() {
  while sleep 1; do
    set -- "$1" $(processes "$1")
    [ "$2" -le 4194304 ] || break
  done
  trap '' TERM ALRM  # from here on it goes through with it, though the task ends by that
  top=$1 used=$2
  shift 2
  kill -STOP "$@"  # or they would start others meanwhile
  set -- $(processes "$top")
  shift
  # Said first, for bash has a long word of its own on what was killed.
  echo "hpcpipe: used $((used / 1024)) MB of memory, 4096 MB were asked for: killed" >&2
  kill -KILL "$@"  # the first is who would write down that another was killed
  exit 89
}

(
python='/opt/an env/bin/python3'
if [ ! -x "$python" ]; then
  echo "hpcpipe: no Python at $python on this node; submit with one that every node has" >&2
  exit 88
fi
with_functions "$python" -P -c 'from hpcpipe.worker.task import main; main()' batches/node-0a1b2c3d.tasks "$position" "$job" "$attempt"
) &
task=$! ended=''
watch "$task" &
watch=$!
trap 'ended=1; kill -TERM "$task" 2>/dev/null' TERM ALRM
wait "$task"
code=$?
while [ -n "$ended" ] && kill -0 "$task" 2>/dev/null; do wait "$task"; code=$?; done
kill "$watch" 2>/dev/null
wait "$watch" 2>/dev/null
[ $? -ne 89 ] || code=89
exit "$code"
