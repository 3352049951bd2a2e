#!/bin/sh
#PBS -N smooth.wf
#PBS -r n
#PBS -j oe
#PBS -o localhost:/dev/null
#PBS -m n
#PBS -q gpu
#PBS -P lab
#PBS -l select=1:ncpus=4:mem=4096mb:ngpus=2
#PBS -l walltime=01:30:00
#PBS -l place=free
#PBS --qos=gpu
#PBS --constraint=a|b
folder=$(printf '%b.' "$(printf %s "$HPCPIPE_FOLDER" | sed 's/%/\\0/g')")
cd -- "${folder%.}" || exit 1
exec >>"logs/node-0a1b2c3d.out" 2>&1
# hpcpipe 1.2.3: node-0a1b2c3d, 1 of smooth, workflow wf.
# Starts in the run's .hpcpipe folder, to which every path below is relative.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-4}"
export FSLDIR='/opt/it'"'"'s fsl'
export EMPTY=''
module purge
module load "fsl/6.0"
index=0
job=$PBS_JOBID
attempt=0  # PBS does not tell a job how often it was started
position=$((index - 0))
python='/opt/an env/bin/python3'
if [ ! -x "$python" ]; then
  echo "hpcpipe: no Python at $python on this node; submit with one that every node has" >&2
  exit 88
fi
exec "$python" -P -c 'from hpcpipe.worker import main; main()' batches/node-0a1b2c3d.tasks "$position" "$job" "$attempt"
