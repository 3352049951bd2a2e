"""A site: one cluster's settings as frozen values, and how each of them is read.

The fields are the keys of a site file. A field's type carries the function that reads it and, last,
its documentation; a table's is its class's. Where the files lie is not known here.
"""

# Annotations are not postponed here: cattrs would read them without what they carry.

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, get_args

from hpcpipe.errors import ConfigError, near
from hpcpipe.model import Resources, parse_memory, parse_time


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{shown(value)} is not text; put it in quotes")
    return value


def _line(value: object) -> str:
    if not _text(value).isprintable() or not value:
        raise ConfigError(f"{value!r} is not one line of text")
    return _text(value)


def _name(value: object) -> str:
    if not re.fullmatch(r"[\w.@:+-]+", _text(value)):
        raise ConfigError(f"{value!r} is not a name; use letters, digits and . @ : + - _")
    return _text(value)


def _variable(value: object) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", _text(value)):
        raise ConfigError(f"{value!r} is not the name of a variable")
    return _text(value)


def _scheduler(value: object) -> str:
    known = get_args(get_args(Scheduler)[0])
    if value not in known:
        raise ConfigError(f"{_text(value)!r} is no scheduler{near(_text(value), known)}")
    return _text(value)


def _dialect(value: object) -> str:
    if value != "sge":
        raise ConfigError(f"{_text(value)!r} is no dialect of DRMAA's; there is 'sge'")
    return _text(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{value!r} is neither true nor false")
    return value


def _count(value: object, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{shown(value)} is not a whole number of at least {least}")
    return value


def _natural(value: object) -> int:
    return _count(value, least=0)


def _memory(value: object) -> int:
    return parse_memory(value if type(value) is int else _text(value))


def _time(value: object) -> int:
    return parse_time(value if type(value) is int else _text(value))


def _date(value: object) -> str:
    try:
        return date.fromisoformat(str(value)).isoformat()
    except ValueError:
        raise ConfigError(f"{shown(value)} is not a date; write for example 2025-01-31") from None


def _folder(value: object) -> Path:
    return Path(_text(value))


def shown(value: object) -> str:
    """Write a value as the site file has it, and not as Python would."""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, str) else str(value)


# One name for each way of reading. To mypy these are the plain types.
Text = Annotated[str, _text]
Line = Annotated[str, _line]
Name = Annotated[str, _name]
Variable = Annotated[str, _variable]
Scheduler = Annotated[Literal["local", "slurm", "sge", "drmaa", "oar", "ipyparallel"], _scheduler]
Dialect = Annotated[Literal["sge"], _dialect]
Flag = Annotated[bool, _flag]
Count = Annotated[int, _count]
Natural = Annotated[int, _natural]
Memory = Annotated[int, _memory]
Time = Annotated[int, _time]
Date = Annotated[str, _date]
Folder = Annotated[Path, _folder]


@dataclass(frozen=True)
class Defaults:
    """What a task gets that does not ask."""

    cpus: Annotated[Count | None, "Cpus of a task that asks for none."] = None
    memory: Annotated[Memory | None, 'Memory of a task that asks for none: "2G".'] = None
    time: Annotated[Time | None, 'Time of a task that asks for none: "30m".'] = None
    gpus: Annotated[Natural | None, "GPUs of a task that asks for none."] = None
    queue: Annotated[Name | None, "The queue to prefer where it fits and none is asked for."] = None
    account: Annotated[Name | None, "The account to charge where none is asked for."] = None

    def resources(self) -> Resources:
        """Give them as resources, to lay a task's own over."""
        return Resources(**asdict(self))


@dataclass(frozen=True)
class Limits:
    """How much at once, and how often."""

    array_size: Annotated[Natural, "Elements in one array; 0 where arrays are refused."] = 1000
    calls: Annotated[Count, "Scheduler calls per submission before dependencies are relaxed."] = 200
    poll_seconds: Annotated[Natural, "Age of a scheduler's answer before it is asked again."] = 15
    settle_seconds: Annotated[Natural, "How late the common filesystem may show a file."] = 30


@dataclass(frozen=True)
class Environment:
    """What surrounds a task on its node."""

    prologue: Annotated[tuple[Text, ...], "Lines of sh that run before the task: module load."] = ()
    variables: Annotated[Mapping[Variable, Text], "Variables exported to the task."] = field(
        default_factory=dict
    )


@dataclass(frozen=True)
class Queue:
    """One queue (on Slurm a partition) and what a task may ask of it; unset means no limit."""

    name: Annotated[Name, "The queue's name, as the scheduler spells it."]
    description: Annotated[Text, "What the queue is for, in one sentence."] = ""
    default: Annotated[Flag, "Whether this queue is considered before the others."] = False
    named: Annotated[Flag, "Whether the scheduler is told the queue's name."] = True
    max_time: Annotated[Time | None, 'The longest time a task may ask for: "4h".'] = None
    max_memory: Annotated[Memory | None, 'The most memory one task may ask for: "500G".'] = None
    max_cpus: Annotated[Count | None, "The most cpus one task may ask for."] = None
    max_gpus: Annotated[Natural, "The most GPUs one task may ask for; unset, none."] = 0
    options: Annotated[tuple[Line, ...], 'More options for jobs of this queue: "--qos=long".'] = ()


@dataclass(frozen=True)
class Slurm:
    """What only Slurm knows."""

    options: Annotated[tuple[Line, ...], 'More options for every job: "--constraint=cpu".'] = ()
    requeue: Annotated[Flag, "Whether Slurm may start a job again after its node failed."] = False


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

    dialect: Annotated[Dialect, "The scheduler behind it."] = "sge"
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
class Local:
    """How much of this machine the local scheduler may fill."""

    cpus: Annotated[Count | None, "Cpus to use at once; unset, all there are."] = None
    memory: Annotated[Memory | None, 'Memory to use at once: "12G"; unset, all there is.'] = None


@dataclass(frozen=True)
class Site:
    """One cluster's settings; as it stands, a laptop's."""

    name: Annotated[Name, "The site's name; unset, the file's name without .toml."] = "local"
    description: Annotated[Text, "What this site is, in one sentence."] = ""
    scheduler: Annotated[Scheduler, "Who runs the jobs."] = "local"
    hosts: Annotated[tuple[Text, ...], "Patterns of login hosts, as `hostname` prints them."] = ()
    extends: Annotated[Text | None, "Another site, by name or path, that this one changes."] = None
    as_of: Annotated[Date | None, "The day on which the settings were last checked."] = None
    sources: Annotated[tuple[Text, ...], "Where the settings are documented."] = ()
    templates: Annotated[Folder | None, "Template overrides, relative to the site file."] = None
    defaults: Defaults = field(default_factory=Defaults)
    limits: Limits = field(default_factory=Limits)
    environment: Environment = field(default_factory=Environment)
    queues: Annotated[tuple[Queue, ...], "The queues, in the order they are considered."] = ()
    slurm: Slurm = field(default_factory=Slurm)
    sge: Sge = field(default_factory=Sge)
    drmaa: Drmaa = field(default_factory=Drmaa)
    oar: Oar = field(default_factory=Oar)
    ipyparallel: Ipyparallel = field(default_factory=Ipyparallel)
    local: Local = field(default_factory=Local)

    @property
    def written_for(self) -> str:
        """Whose directives the scripts have: the scheduler's, or those that DRMAA hands on."""
        return self.drmaa.dialect if self.scheduler == "drmaa" else self.scheduler
