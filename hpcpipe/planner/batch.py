"""What the planner makes: batches, the tasks in their elements, and what each waits for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
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
    ``starts[e]`` to ``starts[e + 1]``, one after the other; without ``starts``, one each.
    ``indices`` are the elements' array indices, ascending; None for a plain job.
    """

    nodes: tuple[NodePlan, ...]
    tasks: Sequence[int]
    indices: Sequence[int] | None
    resources: Resources
    waits: tuple[Wait, ...]
    which: Sequence[int] | None = None
    starts: Sequence[int] | None = None

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
    def asked(self) -> Resources:
        """What an element asks for: its tasks' times together, of the rest what one needs."""
        time = self.resources.time
        return self.resources._replace(time=time * self.longest) if time else self.resources

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
    share an element; ``cores`` is how many a user has at a time, if known.
    A graph that is searched for arrays takes at most ``coarse_calls``, and as few as make its
    makespan no longer than by the part ``slack``. ``untimed`` says that a task that asks for no
    time is given none.
    """

    array_size: int = 1000
    calls: int = 200
    elements: int | None = None
    shortest: int | None = None
    packs: Mapping[Resources, int] = field(default_factory=dict)
    cores: int | None = None
    coarse_calls: int = 20
    slack: float = 0.02
    untimed: bool = False

    def pack_of(self, asked: Resources) -> int:
        """Say how many tasks that ask for this an element should run, one after the other."""
        short = -(-self.shortest // asked.time) if self.shortest and asked.time else 1
        return max(asked.pack or 1, short, self.packs.get(asked, 1))
