python='/opt/an env/bin/python3'
if [ ! -x "$python" ]; then
  echo "hpcpipe: no Python at $python on this node; submit with one that every node has" >&2
  exit 88
fi
with_functions "$python" -P -c 'from hpcpipe.worker.task import main; main()' batches/node-0a1b2c3d.tasks "$position" "$job" "$attempt"
