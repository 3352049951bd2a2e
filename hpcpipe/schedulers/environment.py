"""What a submit command and a task find of the submitter's environment; ``docs/environment.rst``.

A scheduler's variables describe a job to itself, and also set options of the submit command.
Neither may come from outside the plan, so all are removed, whichever scheduler they belong to: a
job of one may submit to another.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

# Kept are the few by which the commands find their scheduler, and how MPI is started.
_SCHEDULERS = (
    r"SLURM_(?!(CONF|CONF_SERVER|JWT|MPI_TYPE|PMIX_\w+)$)\w+|(SBATCH|SALLOC|SRUN)_\w+|SLURMD_\w+",
    r"SGE_(?!(ROOT|CELL|CLUSTER_NAME|\w+_PORT)$)\w+|JOB_ID|NSLOTS|NHOSTS|NQUEUES|PE_HOSTFILE",
    r"PBS_(?!(CONF_FILE|DEFAULT|SERVER|SERVER_HOME|PRIMARY|SECONDARY|EXEC|HOME|\w+_PORT"
    r"|\w+_METHODS?)$)\w+|QSUB_\w+|NCPUS|MOAB_\w+",
    r"LSB_(?!(CONFDIR|SHAREDIR)$)\w+|BSUB_\w+|LS_(SUBCWD|JOBPID|EXECCWD)",
    r"OAR_\w+",
    r"_(?i:CONDOR)_(JOB|MACHINE|SCRATCH|SLOT|ANCESTOR|CHIRP|CREDS|WRAPPER|EXECUT)\w*"
    r"|_(?i:CONDOR_((JOB_)?DEFAULT|SUBMIT|APPEND)_\w+)",
    r"FLUX_(JOB|TASK)_\w+|FLUX_KVS_NAMESPACE",
    r"HPCPIPE_(JOB_ID|INDEX|CPUS|SPOOL|FOLDER|TOKEN|SCRATCH|LAUNCHER|LOG|KEEP_SHORT)",
    r"PMI_\w+|PMIX_(?!MCA_)\w+|PALS_\w+|OMPI_(COMM|UNIVERSE|FIRST|FILE|APP|NUM|ARGV|COMMAND)_\w+",
)
# Also names that many people use: of a job only where another variable shows that this is one.
_IN_GRID_ENGINE = r"PE|QUEUE|REQUEST|REQNAME|RESTARTED|ENVIRONMENT|ARC|TASK_ID|JOB_NAME|JOB_SCRIPT"
_GPUS = r"(CUDA|ROCR|HIP|NVIDIA)_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL|ZE_AFFINITY_MASK"
# Of a terminal, a login or a host, which are not there when a task runs.
_SESSION = (
    r"DISPLAY|XAUTHORITY|WAYLAND_DISPLAY|SSH_\w+|GPG_TTY|TMUX\w*|STY|WINDOWID|COLUMNS|LINES"
    r"|XDG_(SESSION_\w+|RUNTIME_DIR|SEAT|VTNR)|DBUS_SESSION_BUS_ADDRESS|INVOCATION_ID"
    r"|JOURNAL_STREAM|HOST|HOSTNAME|TMPDIR|TMP|TEMP"
)


def left_behind(names: Collection[str], *, gpus: bool = True) -> Iterator[str]:
    """Yield which of these variables neither a submit command nor a task may see.

    ``gpus`` is whether GPUs are granted to each job, so that those of this shell are not its.
    """
    patterns = [*_SCHEDULERS, _SESSION, *[_GPUS][: 1 if gpus else 0]]
    if "SGE_TASK_ID" in names:
        patterns.append(_IN_GRID_ENGINE)
    left = re.compile("|".join(patterns))
    return (name for name in sorted(names) if left.fullmatch(name))


def passed(environment: Mapping[str, str], *, gpus: bool = True) -> dict[str, str]:
    """Return what is left of an environment for a task; ``gpus`` as in `left_behind`."""
    left = {*left_behind(environment, gpus=gpus)}
    return {name: value for name, value in environment.items() if name not in left}
