@@
     where=${need%:*} tries=0
+    case $where in '#'*) where=$pack$where tries=30 ;; esac  # in this very pack, or never
     until is_good "$where"; do
@@
 bar() {  # CODE WORDS: this task must not run
-  fail "$@"
+  echo "hpcpipe: $2" >&2
+  clock
+  started=$now barred=$1
+  put err 0 N N "$2" N.
 }
@@
 
+# A pipe that holds one line is a lock: of the list of tasks, the pack, and the element's log.
+lock() { until read -r _ <&4; do :; done; }
+unlock() { echo >&4; }
+
 find_place() {  # of the task: where its outcome and its claim go
   good=results/$node/$key.pkl bad=results/$node/$key.node-0a1b2c3d.err own=results/$node/$key.claim
+}
+
+find_pack() {
+  pack=packs/node-0a1b2c3d.$position.pack
 }
@@
   (umask "$mask" && mkdir -p -- "$folder")
-  mine="$key" kept=''
+  mine="$key $pack" kept=''
   while read -r other where; do
@@
 adopt() {  # put what another job has left where those that wait for this one look for it
-  [ -e "$good" ] ||
-    { printf '%s ok %s\n' "$key" "$found" >"$own.$$" && mv -f -- "$own.$$" "$good"; } ||
-    fail 93 "cannot write $good"
+  lock
+  {
+    echo
+    if [ -e "$good" ]; then cat -- "$good"; else printf '%s ok %s\n' "$key" "$found"; fi
+  } >>"$pack"
+  unlock
 }
@@
 Vexit${newline}$2sVsignal${newline}$3sVterminated${newline}I0${terminated:-0}${newline}s\
-Verror${newline}V$4${newline}s${cause:+Vcause${newline}V$cause${newline}s}${files:+Vfiles${newline}V$files${newline}s}.$5"
+Verror${newline}V$4${newline}s${cause:+Vcause${newline}V$cause${newline}s}${files:+Vfiles${newline}V$files${newline}s}${barred:+Vbarred${newline}I$barred${newline}s}.$5"
   length=$((2 * ${#outcome}))
@@
 
-put() {  # KEEP_AS, then those of outcome
+put() {  # KEEP_AS, then those of outcome; leaves with 0, or 10 with a claim to be removed later
   status=$1; shift
   outcome "$@"
-  printf '%s %s %s =\n%s%s\n' "$key" "$status" "$length" "$outcome" "$outcome" >"$claim" ||
-    fail 93 "cannot write $claim"
-  [ "$status" = ok ] && exec mv -f -- "$claim" "$good"
-  mv -f -- "$claim" "$bad"
-  exit 1
+  lock
+  printf '\n%s %s %s =\n%s%s\n' "$key" "$status" "$length" "$outcome" "$outcome" >>"$pack" || status=full
+  unlock
+  [ "$status" != full ] || fail 93 "cannot write $pack"
+  if [ "$status" = ok ] && [ -n "$elsewhere" ]; then  # there nobody looks into this pack
+    printf '%s ok %s =\n%s%s\n' "$key" "$length" "$outcome" "$outcome" >"$claim" &&
+      exec mv -f -- "$claim" "$good"
+    rm -f -- "$claim"
+    fail 93 "cannot write $good"
+  fi
+  [ "$status" != ok ] || exit 10
+  [ -n "$barred" ] || rm -f -- "$claim"
+  exit 0
 }
@@
   when="since it was planned"
-  inputs || put err 0 N N "$error" N.
+  [ "$these" = "$compared" ] || inputs || put err 0 N N "$error" N.
   old='' begins=1
@@
   trap 'terminated=1; kill -TERM "$child" 2>/dev/null' TERM ALRM
-  (enlist && umask "$mask" && cd -- /data/here && interruptible "$@") &
+  (enlist && umask "$mask" && cd -- /data/here && interruptible "$@") 4<&- 5>&- &
   child=$!
@@
 sign
-read_lines "$((position + 2)){p;q;}" || fail 1 "cannot read batches/node-0a1b2c3d.tasks"
-eval "$lines"
-[ -n "$key" ] || fail 1 "no element $index in batches/node-0a1b2c3d.tasks"
-find_place
-! has_succeeded || { adopt; exit 0; }
-needs
-hold "$own" || fail 87 "$claim is claimed by $holder"
-if has_succeeded; then  # whoever had it until now has succeeded
-  adopt
-  rm -f -- "$claim"
-  exit 0
-fi
-run "$@"
+in_turn() {  # the tasks whose lines are on fd 3
+  claims='' held=0
+  while [ -z "$terminated" ] && IFS= read -r line <&3; do
+    eval "${line%%; folder=*}"
+    these=${line#*; facts=}  # its inputs, if it has any
+    find_place
+    (
+      needs() { :; }  # not those of a task before
+      eval "$line"
+      log=logs/node-0a1b2c3d.$key.out
+      exec 5>&1 >>"$log" 2>&1
+      trap publish EXIT
+      [ -z "$again" ] || ! any_good "$pack#$key" || exit 0
+      ! has_succeeded || { adopt; exit 0; }
+      needs
+      hold "$own" || bar 87 "$claim is claimed by $holder"
+      # Whoever had it until now may have succeeded.
+      [ -z "$overtook" ] || ! any_good "$pack#$key" || exit 11
+      ! has_succeeded || { adopt; exit 11; }
+      run "$@"
+    ) 3<&- &
+    task=$!
+    [ -z "$terminated" ] || kill -TERM "$task" 2>/dev/null
+    await "$task"
+    compared=''
+    case $status in
+    0) ;;
+    10 | 11)
+      claims="$claims $own" held=$((held + 1))
+      [ "$status" -eq 11 ] || compared=$these ;;  # just now, which the next with the same need not repeat
+    93) code=$status ;;
+    *) code=1 ;;  # it could not write, or was killed before it could
+    esac
+    [ "$held" -lt 64 ] || let_go
+  done
+  let_go
+}
+
+let_go() {  # of tasks that succeeded, many at a time: it takes a process
+  [ -z "$claims" ] || rm -f -- $claims
+  claims='' held=0
+}
+
+publish() {  # put what a task wrote into the element's log; a scheduler may kill cat before sh
+  trap '' TERM ALRM  # in an EXIT trap, dash takes a read that a signal ended for a success
+  lock
+  { echo "hpcpipe: task $node $key" && cat "$log"; } >&5 && rm -f "$log"
+  unlock
+}
+
+take() {  # the lines of the next strand
+  lock
+  strand='' nth=0
+  while [ "$nth" -lt 2 ] && IFS= read -r line <&3; do
+    strand=${strand:+$strand$newline}$line nth=$((nth + 1))
+  done
+  unlock
+  [ -n "$strand" ]
+}
+
+lane() {  # its number
+  trap 'terminated=1; kill -TERM "$task" 2>/dev/null' TERM ALRM
+  share='' nth=0
+  for gpu in $(echo "${CUDA_VISIBLE_DEVICES:-0,1}" | tr , ' '); do
+    [ $((nth / 1)) -ne "$1" ] || share=${share:+$share,}$gpu
+    nth=$((nth + 1))
+  done
+  export CUDA_VISIBLE_DEVICES="$share"
+  while [ -z "$terminated" ] && take; do
+    in_turn 3<<EOF
+$strand
+EOF
+  done
+  exit "$code"
+}
+
+set -- 0 8 16
+shift "$position"
+first=$1 last=$2
+find_pack
+hold "$pack.claim" || fail 87 "$claim is claimed by $holder"
+whole=$claim again='' barred=''
+[ ! -s "$pack" ] || again=1  # this ran before
+code=0 task='' compared=''
+read_lines "$((first + 2)),$((last + 1))p" || fail 1 "cannot read batches/node-0a1b2c3d.tasks"
+pipe=${TMPDIR:-/tmp}/hpcpipe.${pack##*/}.$$
+{ mkfifo "$pipe" && exec 4<>"$pipe"; } || fail 1 "cannot make $pipe"
+rm -f "$pipe"
+unlock
+lanes='' nth=0
+trap 'terminated=1; kill -TERM $lanes 2>/dev/null' TERM ALRM
+exec 3<<EOF
+$lines
+EOF
+while [ "$nth" -lt 2 ]; do
+  lane "$nth" &
+  lanes="$lanes $!" nth=$((nth + 1))
+done
+[ -z "$terminated" ] || kill -TERM $lanes 2>/dev/null
+for task in $lanes; do
+  await "$task"
+  [ "$status" -eq 0 ] || code=$status
+done
+rm -f -- "$whole"
+[ -z "$terminated" ] || exit 1
+exit "$code"
