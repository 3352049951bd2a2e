"""The site options of Grid Engine, and the variables of its jobs."""

# Annotations are not postponed here: cattrs would read them without what they carry.

from dataclasses import dataclass
from typing import Annotated

from hpcpipe.values import Flag, Line, Name, Text

VARIABLES = (
    r"SGE_(?!(ROOT|CELL|CLUSTER_NAME|\w+_PORT)$)\w+|JOB_ID|NSLOTS|NHOSTS|NQUEUES|PE_HOSTFILE"
)


@dataclass(frozen=True)
class Options:
    """What only Grid Engine knows."""

    options: Annotated[tuple[Line, ...], 'More options for every job: "-l os=linux".'] = ()
    requeue: Annotated[Flag, "Whether a job may be started again after its node failed."] = False
    parallel_environment: Annotated[Name, "For tasks of several cpus; see qconf -spl."] = "smp"
    memory_resource: Annotated[Text, "What memory is asked for by; empty, it is not."] = "h_vmem"
    memory_per_slot: Annotated[Flag, "Whether that is counted per slot, as consumables are."] = True
    time_resource: Annotated[Text, "What time is asked for by; empty, it is not."] = "h_rt"
    gpu_resource: Annotated[Name, "What GPUs are asked for by."] = "gpu"

    @property
    def cell_defaults(self) -> str:
        """The file of the cell's own default options, if there is one: no user wrote it."""
        from hpcpipe.schedulers.sge import cell_folder

        file = cell_folder() / "sge_request"
        return str(file) if file.exists() else ""
