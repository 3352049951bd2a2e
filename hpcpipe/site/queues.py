"""A site's queues: what each takes, offers and costs."""

# Annotations are not postponed here: cattrs would read them without what they carry.

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from hpcpipe.site.values import Amount, Count, Flag, Line, Memory, Name, Natural, Text, Time, one_of


@dataclass(frozen=True)
class Step:
    """A time limit up to a size; of several, the first that a task's size is within holds."""

    max_time: Annotated[Time, 'The longest time up to this size: "48h".']
    nodes: Annotated[Count | None, "The most machines it holds for; a task takes one."] = None
    cpus: Annotated[Count | None, "The most cpus it holds for."] = None


@dataclass(frozen=True)
class Cost:
    """What a queue charges an account, in core-hours or what the site says in charged_in."""

    rate: Annotated[Amount, "Charged per unit and hour."] = 1.0
    unit: Annotated[
        Literal["core", "node", "gpu"],
        one_of("core", "node", "gpu"),
        "What is counted: cores (of an exclusive machine all), machines, or GPUs.",
    ] = "core"
    memory_per_core: Annotated[
        Memory | None, 'Memory that counts as a core of its own: "4G"; unset, memory is free.'
    ] = None
    least: Annotated[Time | None, 'The shortest time that is charged: "15m".'] = None


@dataclass(frozen=True)
class Queue:
    """One queue (on Slurm a partition) and what a task may ask of it; unset means no limit."""

    name: Annotated[Name, "The queue's name: the scheduler's own, unless spelled says another."]
    description: Annotated[Text, "What the queue is for, in one sentence."] = ""
    default: Annotated[Flag, "Whether this queue is considered before the others."] = False
    only_asked: Annotated[Flag, "Whether a task gets here only by naming the queue."] = False
    preemptible: Annotated[
        Flag, "Whether jobs may be ended for others; such a queue is considered last."
    ] = False
    named: Annotated[Flag, "Whether the scheduler is told a queue's name at all."] = True
    spelled: Annotated[Name | None, 'The name it is told instead: "main@desched1".'] = None
    appears_as: Annotated[
        tuple[Name, ...], "Names under which the scheduler shows its jobs, where they differ."
    ] = ()
    options: Annotated[tuple[Line, ...], 'More options for jobs of this queue: "--qos=long".'] = ()
    # How long
    max_time: Annotated[Time | None, 'The longest time a task may ask for: "4h".'] = None
    min_time: Annotated[Time | None, "The shortest time to ask for; less is raised to it."] = None
    default_time: Annotated[Time | None, "What a job gets that asks for no time."] = None
    steps: Annotated[tuple[Step, ...], "Time limits that depend on the size."] = ()
    # How much
    max_memory: Annotated[Memory | None, 'The most memory one task may ask for: "500G".'] = None
    min_memory: Annotated[Memory | None, "Only tasks that ask for as much memory."] = None
    max_cpus: Annotated[Count | None, "The most cpus one task may ask for."] = None
    min_cpus: Annotated[Count | None, "Only tasks that ask for as many cpus."] = None
    cpus_multiple: Annotated[
        Count | None, "Cpus come in multiples of this; what is asked is rounded up."
    ] = None
    cpus_per_gpu: Annotated[
        Count | None, "Cpus that come with a GPU; what is asked is raised to them."
    ] = None
    max_gpus: Annotated[Natural, "The most GPUs one task may ask for; unset, none."] = 0
    min_gpus: Annotated[Count | None, "Only tasks that ask for as many GPUs."] = None
    min_nodes: Annotated[
        Count | None, "Only jobs of so many machines; above 1, no task fits, as each takes one."
    ] = None
    max_scratch: Annotated[Memory | None, "The most node-local disk one task may ask for."] = None
    exclusive: Annotated[Flag, "Whether a job gets a whole machine, which tasks then share."] = (
        False
    )
    cpus_per_node: Annotated[
        Count | None, "Usable cpus of one machine; unset, where exclusive: max_cpus."
    ] = None
    # How many at a time
    max_jobs: Annotated[Count | None, "Jobs queued and running at a time."] = None
    max_running: Annotated[Count | None, "Jobs running at a time."] = None
    counted_by: Annotated[
        Literal["user", "account"],
        one_of("user", "account"),
        "Whose jobs count: one's own, or all of the account.",
    ] = "user"
    # What it offers, to whom, and for what
    features: Annotated[
        tuple[Name, ...], 'What all its machines have: "rhel9", "avx512", any word.'
    ] = ()
    constraints: Annotated[
        Mapping[Name, Text], "Features of some machines: the scheduler's word to ask for each by."
    ] = field(default_factory=dict)
    gpu_models: Annotated[
        Mapping[Name, Text], 'Its GPU models: the scheduler\'s word for each, or "" for none.'
    ] = field(default_factory=dict)
    accounts: Annotated[tuple[Name, ...], "Accounts that may use it; unset, all."] = ()
    account_suffix: Annotated[Text, 'What is added to an account here: "_g".'] = ""
    wait: Annotated[
        Time | None, 'How long jobs usually wait, for prefer = "soonest"; unset, unknown.'
    ] = None
    cost: Cost = field(default_factory=Cost)
