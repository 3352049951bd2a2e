"""Axes and the mappings between them: which task of one node needs which tasks of another.

A task has a position along each axis of its node; tasks are numbered flat, the last axis fastest.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, prod
from typing import Any, NamedTuple


class Source(NamedTuple):
    """The list that an axis runs along which a task is yet to return: the node, the part of its
    value, and the node's own axes, at each place of which the list has a length of its own.

    Where nodes are not joined by the names of axes, ``at`` is the task there for each task of which
    the list makes several; ``given`` are those whose length is known already, each with it.
    """

    node: str
    select: tuple[Any, ...]
    within: tuple[str, ...]
    at: Sequence[int] = ()
    given: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True)
class Axis:
    """What a node is mapped over: a name, and a label for each position.

    ``folders`` name the positions in working folders, if the labels do not. The positions of an
    axis with a ``source`` are not known before that has ended.
    """

    name: str
    labels: tuple[str, ...]
    folders: tuple[str, ...] = ()
    source: Source | None = None

    def __len__(self) -> int:
        return len(self.labels)


def size(axes: Sequence[Axis]) -> int:
    """Return the number of tasks of a node with these axes."""
    return prod(len(axis) for axis in axes)


def places(axes: Sequence[Axis], index: int) -> Iterator[tuple[Axis, int]]:
    """Yield the position along each axis of the task at a flat index."""
    stride = size(axes)
    for axis in axes:
        stride //= len(axis)
        place, index = divmod(index, stride)
        yield axis, place


def label(axes: Sequence[Axis], index: int) -> str:
    """Return the name of a task within its node: its labels, ``SAD07`` or ``SAD07/4``."""
    if len(axes) == 1:  # most nodes; status names every unfinished task
        return axes[0].labels[index]
    return "/".join(axis.labels[place] for axis, place in places(axes, index))


def folder_name(axes: Sequence[Axis], index: int) -> str:
    """Return the name of a task's working folder: ``subject-SAD07_fwhm-4``."""
    return "_".join(
        f"{axis.name}-{(axis.folders or axis.labels)[place]}" for axis, place in places(axes, index)
    )


class Edge(NamedTuple):
    """Which tasks of an upstream node each task of a node needs: a mapping, not a list of pairs.

    Task *i* needs the upstream tasks ``base[i] + offset`` for every offset: one offset where
    values pass one to one (or are broadcast), several where axes are gathered. An irregular edge
    has ``starts``: task *i* then needs ``base[starts[i]:starts[i + 1]]``. With ``least``, this part
    of them is enough, and one: a task then goes on without those that did not succeed.
    """

    upstream: str
    base: Sequence[int]
    offsets: Sequence[int] = (0,)
    starts: Sequence[int] | None = None
    least: float | None = None

    def enough(self, count: int) -> int:
        """Return how many of so many upstream tasks are enough."""
        return count if self.least is None else max(1, ceil(self.least * count - 1e-9))

    @property
    def single(self) -> bool:
        """Whether every task needs exactly one upstream task."""
        return self.starts is None and len(self.offsets) == 1

    def parents(self, index: int) -> Sequence[int]:
        """Return the flat indices of the upstream tasks that a task needs."""
        if self.starts is not None:
            return self.base[self.starts[index] : self.starts[index + 1]]
        first = self.base[index]
        return [first + offset for offset in self.offsets]

    def needs(self) -> Iterator[tuple[int, Sequence[int]]]:
        """Yield the flat index of each task that has parents, with those parents."""
        if self.starts is None:
            return ((index, self.parents(index)) for index in range(len(self.base)))
        rows = enumerate(pairwise(self.starts))
        return ((index, self.base[first:last]) for index, (first, last) in rows if first < last)


def listed_edge(upstream: str, needed: Sequence[Sequence[int]]) -> Edge:
    """Return the edge for these needs: a regular one, which stays exact, if possible."""
    shapes = {tuple(index - indices[0] for index in indices) for indices in needed}
    if len(shapes) == 1 and (offsets := shapes.pop()):
        return Edge(upstream, array("q", [indices[0] for indices in needed]), offsets)
    starts = array("q", [0])
    for indices in needed:
        starts.append(starts[-1] + len(indices))
    return Edge(upstream, array("q", [one for indices in needed for one in indices]), starts=starts)


def make_edge(
    child: Sequence[Axis],
    upstream: str,
    parent: Sequence[Axis],
    gathered: Collection[str],
    least: float | None = None,
) -> Edge:
    """Return the mapping from a child's axes to its parent's, some of which are gathered."""
    strides: dict[str, int] = {}
    stride = size(parent)
    for axis in parent:
        stride //= max(1, len(axis))
        strides[axis.name] = stride
    offsets = _products([(axis, strides[axis.name]) for axis in parent if axis.name in gathered])
    if not gathered and [axis.name for axis in child] == [axis.name for axis in parent]:
        return Edge(upstream, range(size(parent)), offsets)
    kept = {name: stride for name, stride in strides.items() if name not in gathered}
    base = _products([(axis, kept.get(axis.name, 0)) for axis in child])
    return Edge(upstream, base, offsets, None, least)


def _products(strides: Sequence[tuple[Axis, int]]) -> Sequence[int]:
    column = array("q", [0])
    for axis, stride in strides:
        steps = range(0, stride * len(axis), stride) if stride else [0] * len(axis)
        column = array("q", [at + step for at in column for step in steps])
    return column
