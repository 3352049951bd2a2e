"""What the planner makes: batches, the tasks in their elements, and what each waits for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapreplace
from itertools import pairwise
from math import ceil
from typing import Literal

from hpcpipe.model import Resources
from hpcpipe.plan import NodePlan


@dataclass(frozen=True)
class Standing:
    """A job of an earlier submission that tasks still to run depend on."""

    job: str


@dataclass(frozen=True)
class Wait:
    """One dependency of a batch: on another batch, by number, or on a standing job.

    ``relaxed`` says that it waits for more than it needs.
    """

    on: int | Standing
    kind: Literal["each", "all"] = "all"
    element: int | None = None
    relaxed: bool = False


@dataclass(frozen=True, eq=False)
class Batch:
    """What one submit command takes: tasks, the elements they are in, and what they wait for.

    ``tasks`` are flat indices within their nodes, in the order in which elements run them; the
    n-th is of the node ``nodes[which[n]]``, or of the only one. Element e runs the tasks from
    ``starts[e]`` to ``starts[e + 1]``; without ``starts``, one each. They run one after the other;
    or, if it has several ``lanes``, side by side by the ``strand``, which is of so many tasks.
    ``indices`` are the elements' array indices, ascending; None for a plain job.
    """

    nodes: tuple[NodePlan, ...]
    tasks: Sequence[int]
    indices: Sequence[int] | None
    resources: Resources
    waits: tuple[Wait, ...]
    which: Sequence[int] | None = None
    starts: Sequence[int] | None = None
    lanes: int = 1
    strand: int = 1

    @property
    def elements(self) -> int:
        """How many elements it has; a plain job has one."""
        return len(self.tasks) if self.starts is None else len(self.starts) - 1

    @property
    def name(self) -> str:
        """Name it after its nodes: ``smooth``, or ``smooth+2`` where there are two more."""
        more = len(self.nodes) - 1
        return self.nodes[0].node.name + (f"+{more}" if more else "")

    @property
    def longest(self) -> int:
        """How many tasks the element with the most of them has."""
        return 1 if self.starts is None else max(b - a for a, b in pairwise(self.starts))

    @property
    def turns(self) -> int:
        """How many tasks run one after the other in a lane of the element with the most tasks."""
        return ceil(self.longest / (self.strand * self.lanes)) * self.strand

    @property
    def cpus(self) -> int:
        """How many cpus an element keeps busy."""
        return self.resources.times(self.lanes, 1).cpus or 1

    def span(self, seconds: Sequence[float]) -> float:
        """Say how long an element takes whose tasks take so long."""
        strands = range(0, len(seconds), self.strand)
        return span([sum(seconds[at : at + self.strand]) for at in strands], self.lanes)

    def members(self) -> Iterator[tuple[NodePlan, int]]:
        """Give every task: its node, and its flat index there."""
        if self.which is None:
            (node,) = self.nodes
            return ((node, task) for task in self.tasks)
        return ((self.nodes[w], task) for w, task in zip(self.which, self.tasks, strict=True))


@dataclass(frozen=True)
class Limits:
    """What the site allows: elements in one array (0: no arrays), scheduler calls in all.

    ``elements`` is how many a submission may have, ``shortest`` the seconds below which tasks are
    too short for an element of their own; ``packs`` how many tasks, by what they ask for, have to
    share an element, and ``lanes`` how many of them run side by side where they do; ``cores`` is
    how many a user has at a time, if known.
    A graph that is searched for arrays takes at most ``coarse_calls``, and as few as make its
    makespan no longer than by the part ``slack``. ``untimed`` says that a task that asks for no
    time is given none.
    """

    array_size: int = 1000
    calls: int = 200
    elements: int | None = None
    shortest: int | None = None
    packs: Mapping[Resources, int] = field(default_factory=dict)
    lanes: Mapping[Resources, int] = field(default_factory=dict)
    cores: int | None = None
    coarse_calls: int = 20
    slack: float = 0.02
    untimed: bool = False

    def lanes_of(self, asked: Resources) -> int:
        """Say how many tasks that ask for this an element can run side by side."""
        return self.lanes.get(asked, 1)

    def pack_of(self, asked: Resources, least: int = 1) -> int:
        """Say how many strands of tasks that ask for this should share an element.

        So many as it says, or else one for every lane. If that is too few, for the site's limits
        or for ``least``, so many more that there are as many for each lane.
        """
        lanes = self.lanes_of(asked)
        wished = asked.pack or lanes
        turns = ceil(self.shortest / asked.time) if self.shortest and asked.time else 1
        least = max(least, self.packs.get(asked, 1), (turns - 1) * lanes + 1)
        return wished if wished >= least else ceil(least / lanes) * lanes


def span(seconds: Sequence[float], lanes: int) -> float:
    """Say how long strands take if each lane runs the next one as soon as it is free."""
    if lanes == 1:
        return sum(seconds)
    free = [0.0] * min(lanes, len(seconds))
    for one in seconds:
        heapreplace(free, free[0] + one)
    return max(free)
