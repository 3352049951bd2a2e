#!/bin/sh
#$ -N smooth.wf
#$ -S /bin/sh
#$ -cwd
#$ -j y
#$ -t 1-3
#$ -o logs/node-0a1b2c3d.$TASK_ID.out
#$ -r n
# hpcpipe 1.2.3: node-0a1b2c3d, 3 of smooth, workflow wf.
# Starts in the run's .hpcpipe folder, to which every path below is relative.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
index=$SGE_TASK_ID
job=$JOB_ID.$index
attempt=${RESTARTED:-0}
position=$((index - 1))
python='/opt/an env/bin/python3'
if [ ! -x "$python" ]; then
  echo "hpcpipe: no Python at $python on this node; submit with one that every node has" >&2
  exit 88
fi
exec "$python" -P -c 'from hpcpipe.worker import main; main()' batches/node-0a1b2c3d.tasks "$position" "$job" "$attempt"
