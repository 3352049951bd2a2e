printf '%s\n' 'wf (run 3)   finished: it'"'"'s "all" $HOME' '  work  3 done'
