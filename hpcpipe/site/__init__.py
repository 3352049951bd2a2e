"""A site: one cluster's settings as frozen values, and how each of them is read.

The fields are the keys of a site file. A field's type carries the kind of its value and, last, its
documentation; a table's is its class's. A table that only one scheduler reads is its adapter's to
define, and in ``tables`` here. Where the files lie is not known here.
"""

# Annotations are not postponed here: cattrs would read them without what they carry.

from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Annotated, Any, Literal

from hpcpipe.resources import Resources
from hpcpipe.schedulers import REGISTRY, find_adapter
from hpcpipe.site.queues import Cost as Cost
from hpcpipe.site.queues import Queue as Queue
from hpcpipe.site.queues import Step as Step
from hpcpipe.values import (
    Amount,
    Count,
    Date,
    Flag,
    Folder,
    Kind,
    Line,
    Lines,
    Memory,
    Name,
    Natural,
    Setting,
    Text,
    Time,
    Variable,
    one_of,
    text,
)


def _scheduler(value: object) -> str:
    return find_adapter(text(value)).name


Scheduler = Annotated[
    str,
    Kind(
        f"{', '.join(f'``{name}``' for name in REGISTRY)}, or one that a package adds",
        {"anyOf": [{"enum": [*REGISTRY]}, {"type": "string"}]},
        _scheduler,
    ),
]
Said = Annotated[
    Literal["account", "cpus", "memory", "time"], one_of("account", "cpus", "memory", "time")
]
Prefer = Annotated[Literal["soonest", "cheapest"], one_of("soonest", "cheapest")]
Network = Annotated[Literal["open", "proxy", "none"], one_of("open", "proxy", "none")]


@dataclass(frozen=True)
class Defaults:
    """What a task gets that does not ask."""

    cpus: Annotated[Count | None, "Cpus of a task that asks for none."] = None
    memory: Annotated[Memory | None, 'Memory of a task that asks for none: "2G".'] = None
    time: Annotated[Time | None, 'Time of a task that asks for none: "30m".'] = None
    gpus: Annotated[Natural | None, "GPUs of a task that asks for none."] = None
    queue: Annotated[Name | None, "The queue to prefer where it fits and none is asked for."] = None
    account: Annotated[Name | None, "The account to charge where none is asked for."] = None
    account_from: Annotated[
        Variable | None, 'The variable that names the account, where it is set: "PROJECT".'
    ] = None
    notify: Annotated[
        Line | None,
        'What is run when a run has ended: "mail -s "$HPCPIPE_VERDICT" ada"; '
        'with "mail" alone the scheduler sends mail.',
    ] = None
    prefer: Annotated[
        Prefer | None, "What to choose among queues by; unset, the order of the file."
    ] = None

    def resources(self) -> Resources:
        """Return them as resources, which a task's own override."""
        others = ("account_from", "notify")
        own = {name: value for name, value in asdict(self).items() if name not in others}
        return Resources(**own)


@dataclass(frozen=True)
class Limits:
    """How much at once, and how often."""

    array_size: Annotated[Natural, "Elements in one array; 0 where arrays are refused."] = 1000
    array_throttle: Annotated[Count | None, "Elements of one array that may run at a time."] = None
    elements_count: Annotated[Flag, "Whether each element of an array counts as a job."] = True
    max_jobs: Annotated[Count | None, "Jobs queued and running at a time, in all queues."] = None
    overflow: Annotated[
        Literal["refused", "held"],
        one_of("refused", "held"),
        "What becomes of a job above max_jobs.",
    ] = "refused"
    watch_memory: Annotated[
        Flag, "Whether each job keeps its own limit of memory, as the scheduler does not."
    ] = False
    log_size: Annotated[
        Memory | None, 'Size over which a log loses its middle: "100M"; unset, any.'
    ] = None
    cores: Annotated[Count | None, "Cores that one user gets at a time; unset, unknown."] = None
    shortest_job: Annotated[
        Time | None, "The shortest job worth a place in the queue; shorter tasks are packed."
    ] = None
    calls: Annotated[Count, "Scheduler calls per submission before dependencies are relaxed."] = 200
    submits_per_minute: Annotated[Count | None, "Submit commands in a minute; unset, any."] = None
    cancels: Annotated[Count | None, "Jobs in one cancel command; unset, any."] = None
    poll_seconds: Annotated[Natural, "Age of a scheduler's answer before it is asked again."] = 15
    settle_seconds: Annotated[Natural, "How late the common filesystem may show a file."] = 30


@dataclass(frozen=True)
class Environment:
    """What surrounds a task on its node."""

    shell: Annotated[Line, "The script's first line, after #!."] = "/bin/sh"
    inherit: Annotated[
        Flag, "Whether a task gets the variables of the shell that hpcpipe is typed in."
    ] = True
    prologue: Annotated[tuple[Text, ...], "Lines of sh that run before the task: module load."] = ()
    variables: Annotated[Mapping[Variable, Text], "Variables exported to the task."] = field(
        default_factory=dict
    )
    launcher: Annotated[
        Line | None, 'What starts MPI programs here, exported as HPCPIPE_LAUNCHER: "srun".'
    ] = None


@dataclass(frozen=True)
class Software:
    """One program of the catalogue: where it is, and how a script sets it up."""

    name: Annotated[Name | None, "The program's name; unset, the table's own."] = None
    version: Annotated[Name | None, 'Its version: "6.0.7"; unset, unknown.'] = None
    setup: Annotated[Lines, 'Lines of sh that set it up, in order: "module load fsl/6.0.7".'] = ()
    queues: Annotated[tuple[Name, ...], "Queues that have it; unset, all."] = ()
    licences: Annotated[
        tuple[Line, ...], 'Licences a task takes, in the scheduler\'s words: "matlab:1".'
    ] = ()
    at_once: Annotated[Count | None, "Elements of one array that may use it at a time."] = None
    once: Annotated[Text, "What a person must do once, on a login node, before it works."] = ""


@dataclass(frozen=True)
class Account:
    """An account that jobs are charged to."""

    description: Annotated[Text, "Whose it is, in one sentence."] = ""
    budget: Annotated[Amount | None, "What one submission may cost at worst; unset, any."] = None
    options: Annotated[tuple[Line, ...], 'More options for its jobs: "-P Gold".'] = ()


@dataclass(frozen=True)
class Nodes:
    """What compute nodes can and cannot do."""

    may_submit: Annotated[Flag | None, "Whether jobs may submit jobs; unset, unknown."] = None
    network: Annotated[Network | None, "Whether they reach the internet; unset, unknown."] = None
    home: Annotated[Flag, "Whether they can write to the home folder."] = True
    common: Annotated[Flag, "Whether they share a filesystem with the login node."] = True


@dataclass(frozen=True)
class Scratch:
    """Disk for what need not be kept."""

    common: Annotated[Text | None, 'The common scratch folder, in sh\'s words: "$SCRATCH".'] = None
    local: Annotated[
        Text | None, 'Node-local disk, in sh\'s words, exported as HPCPIPE_SCRATCH: "$TMPDIR".'
    ] = None
    option: Annotated[
        Line | None, 'How node-local disk is asked for, with {gb} or {mb}: "--gres=lscratch:{gb}".'
    ] = None
    per_cpu: Annotated[Flag, "Whether the scheduler multiplies that option by the cpus."] = False
    purge_days: Annotated[Count | None, "Days after which common scratch is emptied."] = None


@dataclass(frozen=True)
class Site:
    """One cluster's settings; as it stands, a laptop's."""

    name: Annotated[Name, "The site's name; unset, the file's name without .toml."] = "local"
    description: Annotated[Text, "What this site is, in one sentence."] = ""
    scheduler: Annotated[Scheduler, "Who runs the jobs."] = "local"
    hosts: Annotated[tuple[Text, ...], "Patterns of login hosts, as `hostname` prints them."] = ()
    detect: Annotated[
        tuple[Setting, ...], 'Variables that tell this site by their value: "CC_CLUSTER=narval".'
    ] = ()
    detect_command: Annotated[
        Name | None, 'A command that identifies this site where it is found: "sbatch".'
    ] = None
    detect_version: Annotated[
        Text, "How its --version begins, if other schedulers have a command of that name."
    ] = ""
    extends: Annotated[Text | None, "Another site, by name or path, that this one changes."] = None
    as_of: Annotated[Date | None, "The day on which the settings were last checked."] = None
    sources: Annotated[tuple[Text, ...], "Where the settings are documented."] = ()
    tried: Annotated[Text, "What was tried of it, and on what."] = ""
    check: Annotated[Text, 'The command that tells the limits as they are now: "qlimits".'] = ""
    retires: Annotated[Date | None, "The day from which the cluster is no more."] = None
    charged_in: Annotated[Text, "What costs and budgets are counted in."] = "core-hours"
    templates: Annotated[Folder | None, "Template overrides, relative to the site file."] = None
    mandatory: Annotated[tuple[Said, ...], "What each job must say, by itself or a default."] = ()
    refused: Annotated[
        tuple[Line, ...], 'Options refused here; a directive with one is left out: "--export".'
    ] = ()
    defaults: Defaults = field(default_factory=Defaults)
    limits: Limits = field(default_factory=Limits)
    environment: Environment = field(default_factory=Environment)
    nodes: Nodes = field(default_factory=Nodes)
    scratch: Scratch = field(default_factory=Scratch)
    queues: Annotated[tuple[Queue, ...], "The queues, in the order they are considered."] = ()
    software: Annotated[Mapping[Name, Software], "The catalogue of software."] = field(
        default_factory=dict
    )
    accounts: Annotated[Mapping[Name, Account], "The accounts; unset, taken at their word."] = (
        field(default_factory=dict)
    )
    tables: Mapping[str, Any] = field(default_factory=dict)  # by scheduler, see `table`

    def table(self, scheduler: str) -> Any:
        """Return the options that only this scheduler's adapter reads; None where it has none."""
        options = find_adapter(scheduler).options
        return self.tables.get(scheduler) or (options() if options else None)

    @property
    def written_for(self) -> str:
        """Whose directives the scripts have: the scheduler's, or those that DRMAA hands on."""
        return str(getattr(self.table(self.scheduler), "dialect", self.scheduler))

    @property
    def own(self) -> Any:
        """The options of that scheduler."""
        return self.table(self.written_for)


def keys(table: type[Any]) -> list[Field[Any]]:
    """Return the keys of a table of the site file, given its class; for `Site`, without the tables
    of the adapters."""
    return [one for one in fields(table) if (table, one.name) != (Site, "tables")]
