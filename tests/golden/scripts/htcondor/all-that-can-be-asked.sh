#!/bin/sh
#HTCONDOR should_transfer_files = NO
#HTCONDOR request_cpus = 4
#HTCONDOR request_memory = 4096
#HTCONDOR request_gpus = 2
#HTCONDOR allowed_job_duration = 5400
#HTCONDOR accounting_group = lab
#HTCONDOR --qos=gpu
#HTCONDOR --constraint=a|b
ad() { sed -n "s/^$1 = \"*\([^\"]*\)\"*$/\1/p" "$_CONDOR_JOB_AD"; }
node=$(ad DAGNodeName)
exec >>"logs/node-0a1b2c3d.out" 2>&1
# hpcpipe 1.2.3: node-0a1b2c3d, 1 of smooth, workflow wf.
# Starts in the run's .hpcpipe folder, to which every path below is relative.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-4}"
export FSLDIR='/opt/it'"'"'s fsl'
export EMPTY=''
module purge
module load "fsl/6.0"
index=0
job=$(ad DAGManJobId)/$node
attempt=$(ad NumJobStarts)  # those before this one
position=$((index - 0))
python='/opt/an env/bin/python3'
if [ ! -x "$python" ]; then
  echo "hpcpipe: no Python at $python on this node; submit with one that every node has" >&2
  exit 88
fi
exec "$python" -P -c 'from hpcpipe.worker import main; main()' batches/node-0a1b2c3d.tasks "$position" "$job" "$attempt"
