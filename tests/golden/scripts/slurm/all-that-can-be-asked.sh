#!/bin/sh
#SBATCH --job-name=smooth.wf
#SBATCH --output=logs/node-0a1b2c3d.out
#SBATCH --open-mode=append
#SBATCH --partition=gpu
#SBATCH --account=lab
#SBATCH --cpus-per-task=4
#SBATCH --mem=4096M
#SBATCH --time=01:30:00
#SBATCH --gpus=2
#SBATCH --constraint=a|b
#SBATCH --nice=100
#SBATCH --exclusive=user
#SBATCH --qos=gpu
# hpcpipe 1.2.3: node-0a1b2c3d, 1 of smooth, workflow wf.
# Starts in the run's .hpcpipe folder, to which every path below is relative.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-4}"
export FSLDIR='/opt/it'"'"'s fsl'
export EMPTY=''
module purge
module load "fsl/6.0"
index=0  # SLURM_ARRAY_TASK_ID may be there, inherited from the array that submitted this job
job=$SLURM_JOB_ID
attempt=${SLURM_RESTART_COUNT:-0}
position=$((index - 0))
python='/opt/an env/bin/python3'
if [ ! -x "$python" ]; then
  echo "hpcpipe: no Python at $python on this node; submit with one that every node has" >&2
  exit 88
fi
exec "$python" -P -c 'from hpcpipe.worker import main; main()' batches/node-0a1b2c3d.tasks "$position" "$job" "$attempt"
