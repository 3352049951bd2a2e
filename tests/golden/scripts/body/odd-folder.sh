@@
   [ -z "$folder" ] || take_folder
-  (enlist && umask "$mask" && cd -- /data/here && interruptible "$@") &
+  (enlist && umask "$mask" && cd -- '/data/it'"'"'s a "cwd" \ of
+$(touch pwned) `touch pwned` Zoë ${HOME} %a ;&|' && interruptible "$@") &
   child=$!
