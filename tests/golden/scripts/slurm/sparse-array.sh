#!/bin/sh
#SBATCH --job-name=smooth.wf
#SBATCH --array=1,4-5
#SBATCH --output=logs/node-0a1b2c3d.%a.out
#SBATCH --open-mode=append
#SBATCH --no-requeue
# hpcpipe 1.2.3: node-0a1b2c3d, 3 of smooth, workflow wf.
# Starts in the run's .hpcpipe folder, to which every path below is relative.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
index=$SLURM_ARRAY_TASK_ID
job=${SLURM_ARRAY_JOB_ID}_$index
attempt=${SLURM_RESTART_COUNT:-0}
position=0
for listed in 1 4 5; do
  [ "$listed" = "$index" ] && break
  position=$((position + 1))
done
python='/opt/an env/bin/python3'
if [ ! -x "$python" ]; then
  echo "hpcpipe: no Python at $python on this node; submit with one that every node has" >&2
  exit 88
fi
exec "$python" -P -c 'from hpcpipe.worker import main; main()' batches/node-0a1b2c3d.tasks "$position" "$job" "$attempt"
