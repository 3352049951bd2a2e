"""The site options of Slurm, and the variables of its jobs."""

# Annotations are not postponed here: cattrs would read them without what they carry.

from dataclasses import dataclass
from typing import Annotated, Literal

from hpcpipe.values import Count, Flag, Line, Name, one_of

VARIABLES = (
    r"SLURM_(?!(CONF|CONF_SERVER|JWT|MPI_TYPE|PMIX_\w+)$)\w+|(SBATCH|SALLOC|SRUN)_\w+|SLURMD_\w+"
)


@dataclass(frozen=True)
class Options:
    """What only Slurm knows."""

    options: Annotated[tuple[Line, ...], 'More options for every job: "--constraint=cpu".'] = ()
    requeue: Annotated[Flag, "Whether Slurm may start a job again after its node failed."] = False
    cluster: Annotated[Name | None, "The cluster, where one Slurm serves several: --clusters."] = (
        None
    )
    memory: Annotated[
        Literal["node", "cpu", "none"],
        one_of("node", "cpu", "none"),
        "How memory is asked for: --mem, --mem-per-cpu, or not at all.",
    ] = "node"
    gpus: Annotated[
        Literal["gpus", "gres", "none"],
        one_of("gpus", "gres", "none"),
        "How GPUs are asked for: --gpus, --gres=gpu, or not at all, where the queue is enough.",
    ] = "gpus"
    signal: Annotated[
        Name | None, 'A signal ahead of the time limit, and how long ahead: "TERM@60".'
    ] = None
    nodes: Annotated[Flag, "Whether a job must say how many machines: --nodes=1."] = False
    nice: Annotated[
        Count | None,
        "How much nicer each batch is than the one before, to keep the planned order: --nice.",
    ] = None
