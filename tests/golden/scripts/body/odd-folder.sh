@@
   trap 'terminated=1; kill -TERM "$child" 2>/dev/null' TERM ALRM
-  (enlist && umask "$mask" && cd -- /data/here && interruptible "$@") &
+  (enlist && umask "$mask" && cd -- '/data/it'"'"'s a "cwd" \ of
+$(touch pwned) `touch pwned` Zoë ${HOME} %a ;&|' && interruptible "$@") &
   child=$!
