#!/bin/sh
#HPCPIPE --name=smooth.wf
#HPCPIPE --array=0-2
#HPCPIPE --output=logs/node-0a1b2c3d.%a.out
# hpcpipe 1.2.3: node-0a1b2c3d, 3 of smooth, workflow wf.
# Starts in the run's .hpcpipe folder, to which every path below is relative.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
index=$HPCPIPE_INDEX
job=${HPCPIPE_JOB_ID}_$index
attempt=0
position=$((index - 0))
python='/opt/an env/bin/python3'
if [ ! -x "$python" ]; then
  echo "hpcpipe: no Python at $python on this node; submit with one that every node has" >&2
  exit 88
fi
exec "$python" -P -c 'from hpcpipe.worker import main; main()' batches/node-0a1b2c3d.tasks "$position" "$job" "$attempt"
