#!/bin/sh
#PBS -N smooth.wf
#PBS -t 0-2
#PBS -r n
#PBS -j oe
#PBS -o /dev/null
#PBS -m n
#PBS -l nodes=1:ppn=1
folder=$(printf '%b.' "$(printf %s "$HPCPIPE_FOLDER" | sed 's/%/\\0/g')")
cd -- "${folder%.}" || exit 1
exec >>"logs/node-0a1b2c3d.$PBS_ARRAYID.out" 2>&1
# hpcpipe 1.2.3: node-0a1b2c3d, 3 of smooth, workflow wf.
# Starts in the run's .hpcpipe folder, to which every path below is relative.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
index=$PBS_ARRAYID
job=$PBS_JOBID
attempt=0  # Torque does not tell a job how often it was started
position=$((index - 0))
python='/opt/an env/bin/python3'
if [ ! -x "$python" ]; then
  echo "hpcpipe: no Python at $python on this node; submit with one that every node has" >&2
  exit 88
fi
exec "$python" -P -c 'from hpcpipe.worker import main; main()' batches/node-0a1b2c3d.tasks "$position" "$job" "$attempt"
