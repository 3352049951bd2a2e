#!/bin/sh
#BSUB -J node-0a1b2c3d.wf[2,5-6]
#BSUB -o /dev/null
#BSUB -n 1
#BSUB -R "span[hosts=1]"
#BSUB -rn
exec >>"logs/node-0a1b2c3d.$LSB_JOBINDEX.out" 2>&1
# hpcpipe 1.2.3: node-0a1b2c3d, 3 of smooth, workflow wf.
# Starts in the run's .hpcpipe folder, to which every path below is relative.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
index=$LSB_JOBINDEX
job="${LSB_JOBID}[$index]"
attempt=0  # LSF does not tell a job how often it was started
position=0
for listed in 2 5 6; do
  [ "$listed" = "$index" ] && break
  position=$((position + 1))
done
python='/opt/an env/bin/python3'
if [ ! -x "$python" ]; then
  echo "hpcpipe: no Python at $python on this node; submit with one that every node has" >&2
  exit 88
fi
exec "$python" -P -c 'from hpcpipe.worker import main; main()' batches/node-0a1b2c3d.tasks "$position" "$job" "$attempt"
