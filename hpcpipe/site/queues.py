"""A site's queues: what each accepts, offers and costs."""

# Annotations are not postponed here: cattrs would lose their metadata.

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from hpcpipe.values import Amount, Count, Flag, Line, Memory, Name, Natural, Text, Time, one_of


@dataclass(frozen=True)
class Step:
    """A time limit up to a job size; of several steps, the first that the job is within applies."""

    max_time: Annotated[Time, 'The longest time up to this size: "48h".']
    nodes: Annotated[Count | None, "Applies up to this number of nodes; a task takes one."] = None
    cpus: Annotated[Count | None, "Applies up to this number of cpus."] = None


@dataclass(frozen=True)
class Cost:
    """What a queue charges an account, in core-hours or the unit named by charged_in."""

    rate: Annotated[Amount, "The charge per unit and hour."] = 1.0
    unit: Annotated[
        Literal["core", "node", "gpu"],
        one_of("core", "node", "gpu"),
        "What is counted: cores (all of an exclusive node), nodes, or GPUs.",
    ] = "core"
    memory_per_core: Annotated[
        Memory | None, 'Memory that is charged like one core: "4G"; unset, memory is free.'
    ] = None
    least: Annotated[Time | None, 'The shortest time that is charged: "15m".'] = None


@dataclass(frozen=True)
class Queue:
    """One queue (on Slurm, a partition) and its limits; unset means no limit."""

    name: Annotated[Name, "The queue's name: the scheduler's own, unless spelled is set."]
    description: Annotated[Text, "What the queue is for, in one sentence."] = ""
    default: Annotated[Flag, "Whether this queue is considered before the others."] = False
    only_asked: Annotated[Flag, "Whether it only takes tasks that request it by name."] = False
    preemptible: Annotated[
        Flag, "Whether jobs may be preempted; such a queue is considered last."
    ] = False
    named: Annotated[Flag, "Whether the queue is named to the scheduler at all."] = True
    spelled: Annotated[Name | None, 'Its name for the scheduler instead: "main@desched1".'] = None
    appears_as: Annotated[
        tuple[Name, ...], "Names under which the scheduler lists its jobs, if they differ."
    ] = ()
    options: Annotated[tuple[Line, ...], 'More options for jobs of this queue: "--qos=long".'] = ()
    # How long
    max_time: Annotated[Time | None, 'The longest time a task may request: "4h".'] = None
    min_time: Annotated[Time | None, "The shortest time; shorter requests are raised to it."] = None
    default_time: Annotated[Time | None, "The time of a job that requests none."] = None
    steps: Annotated[tuple[Step, ...], "Time limits that depend on the size of a job."] = ()
    # How much
    max_memory: Annotated[Memory | None, 'The most memory a task may request: "500G".'] = None
    min_memory: Annotated[Memory | None, "Only for tasks that request at least this."] = None
    max_cpus: Annotated[Count | None, "The most cpus a task may request."] = None
    min_cpus: Annotated[Count | None, "Only for tasks that request at least as many."] = None
    cpus_multiple: Annotated[
        Count | None, "Cpus come in multiples of this; requests are rounded up."
    ] = None
    cpus_per_gpu: Annotated[
        Count | None, "Cpus that come with each GPU; smaller requests are raised to them."
    ] = None
    max_gpus: Annotated[Natural, "The most GPUs a task may request; unset, none."] = 0
    min_gpus: Annotated[Count | None, "Only for tasks that request at least as many."] = None
    min_nodes: Annotated[
        Count | None, "Only for jobs of at least this many nodes; above 1, no task fits."
    ] = None
    max_scratch: Annotated[Memory | None, "The most node-local disk a task may request."] = None
    exclusive: Annotated[Flag, "Whether a job gets a whole node, which tasks then share."] = False
    cpus_per_node: Annotated[
        Count | None, "Usable cpus of a node; unset, if exclusive: max_cpus."
    ] = None
    # How many at a time
    max_jobs: Annotated[Count | None, "The most jobs queued and running at a time."] = None
    max_running: Annotated[Count | None, "The most jobs running at a time."] = None
    counted_by: Annotated[
        Literal["user", "account"],
        one_of("user", "account"),
        "Whose jobs count: the user's own, or all of the account's.",
    ] = "user"
    # What it offers, to whom, and for what
    features: Annotated[
        tuple[Name, ...], 'What all its nodes have: "rhel9", "avx512", any word.'
    ] = ()
    constraints: Annotated[
        Mapping[Name, Text], "Features of some nodes: the scheduler's word to request each."
    ] = field(default_factory=dict)
    gpu_models: Annotated[
        Mapping[Name, Text],
        'Its GPU models: the scheduler\'s word for each, or "" if it needs none.',
    ] = field(default_factory=dict)
    accounts: Annotated[tuple[Name, ...], "Accounts that may use it; unset, all."] = ()
    account_suffix: Annotated[Text, 'A suffix for accounts in this queue: "_g".'] = ""
    wait: Annotated[
        Time | None, 'How long jobs usually wait, for prefer = "soonest"; unset, unknown.'
    ] = None
    cost: Cost = field(default_factory=Cost)
