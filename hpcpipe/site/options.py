"""Tables of a site file that only one scheduler reads.

A scheduler that has options of its own has its table here, and a field of its name in `Site`. A
table's ``options`` are directives that every job gets.
"""

# Annotations are not postponed here: cattrs would read them without what they carry.

from dataclasses import dataclass
from typing import Annotated, Literal

from hpcpipe.schedulers import REGISTRY
from hpcpipe.site.values import Count, Flag, Line, Memory, Name, Text, Variable, one_of

Scheduler = Annotated[str, one_of(*REGISTRY, kind="scheduler")]


@dataclass(frozen=True)
class Local:
    """How much of this machine the local scheduler may fill."""

    cpus: Annotated[Count | None, "Cpus to use at once; unset, all there are."] = None
    memory: Annotated[Memory | None, 'Memory to use at once: "12G"; unset, all there is.'] = None


@dataclass(frozen=True)
class Slurm:
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


@dataclass(frozen=True)
class Sge:
    """What only Grid Engine knows."""

    options: Annotated[tuple[Line, ...], 'More options for every job: "-l os=linux".'] = ()
    requeue: Annotated[Flag, "Whether a job may be started again after its node failed."] = False
    parallel_environment: Annotated[Name, "For tasks of several cpus; see qconf -spl."] = "smp"
    memory_resource: Annotated[Text, "What memory is asked for by; empty, it is not."] = "h_vmem"
    memory_per_slot: Annotated[Flag, "Whether that is counted per slot, as consumables are."] = True
    time_resource: Annotated[Text, "What time is asked for by; empty, it is not."] = "h_rt"
    gpu_resource: Annotated[Name, "What GPUs are asked for by."] = "gpu"


@dataclass(frozen=True)
class Drmaa:
    """The library by which jobs are submitted; that scheduler's own table counts, too."""

    dialect: Annotated[
        Literal["sge"], one_of("sge", kind="dialect"), "The scheduler behind it."
    ] = "sge"
    library: Annotated[Text, "The path of libdrmaa.so; unset, $DRMAA_LIBRARY_PATH."] = ""


@dataclass(frozen=True)
class Oar:
    """What only OAR knows."""

    options: Annotated[tuple[Line, ...], 'More options for every job: "-t besteffort".'] = ()
    core: Annotated[Variable, "The property that a cpu is counted in."] = "core"


@dataclass(frozen=True)
class Ipyparallel:
    """Which of the running IPython clusters is meant; unset, the default one."""

    profile: Annotated[Name | None, "The IPython profile that it was started with."] = None
    cluster_id: Annotated[Name | None, "Its id, where a profile has several."] = None
    connection_file: Annotated[Text | None, "Its ipcontroller-client.json, wherever that is."] = (
        None
    )


@dataclass(frozen=True)
class PBS:
    """What only PBS Professional and OpenPBS know."""

    options: Annotated[tuple[Line, ...], 'More options for every job: "-l place=free".'] = ()
    account: Annotated[Line, 'The option for the account, as far as its name: "-P ".'] = "-A "


@dataclass(frozen=True)
class Torque:
    """What only Torque knows."""

    options: Annotated[tuple[Line, ...], 'More options for every job: "-l feature=haswell".'] = ()
    account: Annotated[Line, 'The option for the account, as far as its name: "-P ".'] = "-A "


@dataclass(frozen=True)
class LSF:
    """What only LSF knows."""

    options: Annotated[tuple[Line, ...], 'More options for every job: "-sla gold".'] = ()
    requeue: Annotated[Flag, "Whether a job may be started again after its node failed."] = False
    account: Annotated[Line, 'The option for the account, as far as its name: "-G ".'] = "-P "
    memory_per_slot: Annotated[Flag, "Whether memory is reserved for each slot."] = False


@dataclass(frozen=True)
class Flux:
    """What only Flux knows."""

    options: Annotated[tuple[Line, ...], 'More options for every job: "--requires=gpu".'] = ()


@dataclass(frozen=True)
class HTCondor:
    """What only HTCondor knows."""

    options: Annotated[
        tuple[Line, ...], 'More lines of every submit description: "getenv = PATH".'
    ] = ()
