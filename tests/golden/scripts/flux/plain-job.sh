#!/bin/sh
#flux: --job-name=smooth.wf
#flux: --ntasks=1
exec >>"logs/node-0a1b2c3d.out" 2>&1
# hpcpipe 1.2.3: node-0a1b2c3d, 1 of smooth, workflow wf.
# Starts in the run's .hpcpipe folder, to which every path below is relative.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
index=0  # FLUX_JOB_CC may be there, inherited from the array that submitted this job
job=$FLUX_JOB_ID
attempt=0  # a job is never started again
position=$((index - 0))
python='/opt/an env/bin/python3'
if [ ! -x "$python" ]; then
  echo "hpcpipe: no Python at $python on this node; submit with one that every node has" >&2
  exit 88
fi
exec "$python" -P -c 'from hpcpipe.worker import main; main()' batches/node-0a1b2c3d.tasks "$position" "$job" "$attempt"
