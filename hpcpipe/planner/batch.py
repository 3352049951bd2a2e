"""What the planner makes: batches, the tasks in their elements, and what each waits for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapreplace
from itertools import pairwise
from math import ceil
from typing import Literal, NamedTuple

from hpcpipe.keys.plan import NodePlan
from hpcpipe.resources import Resources


@dataclass(frozen=True)
class InFlightJob:
    """A job of an earlier submission that tasks still to run depend on."""

    job: str


class Wait(NamedTuple):
    """One dependency of a batch: on another batch, by number, or on a standing job.

    ``relaxed`` means that it waits for more than it needs.
    """

    on: int | InFlightJob
    kind: Literal["each", "all"] = "all"
    element: int | None = None
    relaxed: bool = False


@dataclass(frozen=True, eq=False)
class Batch:
    """What one submit command takes: tasks, the elements they are in, and what they wait for.

    ``tasks`` are flat indices within their nodes, in the order in which elements run them; the
    n-th is of the node ``nodes[which[n]]``, or of the only one. Element e runs the tasks from
    ``starts[e]`` to ``starts[e + 1]``; without ``starts``, one each. They run one after the other;
    or, if it has several ``lanes``, side by side in strands of ``strand`` tasks each.
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
    def lenient(self) -> bool:
        """Whether its tasks see for themselves who succeeded upstream, as all may not."""
        return any(edge.least is not None for node in self.nodes for edge in node.edges)

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
        """Return how long an element takes whose tasks take these times."""
        strands = range(0, len(seconds), self.strand)
        return span([sum(seconds[at : at + self.strand]) for at in strands], self.lanes)

    def members(self) -> Iterator[tuple[NodePlan, int]]:
        """Yield every task: its node, and its flat index there."""
        if self.which is None:
            (node,) = self.nodes
            return ((node, task) for task in self.tasks)
        return ((self.nodes[w], task) for w, task in zip(self.which, self.tasks, strict=True))


@dataclass(frozen=True)
class Limits:
    """What the site allows: elements in one array (0: no arrays), scheduler calls in all.

    By what tasks ask for, ``packs`` is how many strands of them share an element, and ``lanes`` how
    many of these run side by side; ``cores`` is how many a user has at a time, if known.
    A graph that is searched for arrays takes at most ``search_calls`` (None: 20, or 40 if it is
    small), and as few as make its makespan no longer than by the part ``slack``. ``untimed`` means
    that a task that requests no time gets no time limit.
    """

    array_size: int = 1000
    calls: int = 200
    packs: Mapping[Resources, int] = field(default_factory=dict)
    lanes: Mapping[Resources, int] = field(default_factory=dict)
    cores: int | None = None
    search_calls: int | None = None
    slack: float = 0.02
    untimed: bool = False

    def lanes_of(self, asked: Resources) -> int:
        """Return how many tasks of a class an element can run side by side."""
        return self.lanes.get(asked, 1)

    def pack_of(self, asked: Resources) -> int:
        """Return how many strands of tasks of a class share an element."""
        return self.packs.get(asked) or asked.pack or self.lanes_of(asked)


def span(seconds: Sequence[float], lanes: int) -> float:
    """Return how long strands take if each lane runs the next one as soon as it is free."""
    if lanes == 1:
        return sum(seconds)
    free = [0.0] * min(lanes, len(seconds))
    for one in seconds:
        heapreplace(free, free[0] + one)
    return max(free)
