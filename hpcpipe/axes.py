"""Axes and the mappings between them: which task of one node needs which tasks of another.

A task is a place along each axis of its node, numbered flat with the last axis fastest.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import NamedTuple


@dataclass(frozen=True)
class Axis:
    """What a node is mapped over: a name, and a label for every place along it."""

    name: str
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def size(axes: Sequence[Axis]) -> int:
    """Count the tasks of a node with these axes."""
    return prod(len(axis) for axis in axes)


def places(axes: Sequence[Axis], index: int) -> Iterator[tuple[Axis, int]]:
    """Give the place along each axis of the task at a flat index."""
    stride = size(axes)
    for axis in axes:
        stride //= len(axis)
        place, index = divmod(index, stride)
        yield axis, place


def label(axes: Sequence[Axis], index: int) -> str:
    """Name one task within its node: its labels, ``SAD07`` or ``SAD07/4``."""
    if len(axes) == 1:  # most nodes; a status names each task that is not good yet
        return axes[0].labels[index]
    return "/".join(axis.labels[place] for axis, place in places(axes, index))


def folder_name(axes: Sequence[Axis], index: int) -> str:
    """Name one task's working folder within its node's: ``subject-SAD07_fwhm-4``."""
    return "_".join(f"{axis.name}-{axis.labels[place]}" for axis, place in places(axes, index))


class Edge(NamedTuple):
    """How a node's tasks need those of an upstream node: a mapping, not a list of pairs.

    Task *i* needs the upstream tasks ``base[i] + offset`` for every offset: one offset where
    values pass one to one (or are broadcast), several where axes are gathered. Where ``starts`` is
    given, nothing is regular: it needs ``base[starts[i]:starts[i + 1]]``.
    """

    upstream: str
    base: Sequence[int]
    offsets: Sequence[int] = (0,)
    starts: Sequence[int] | None = None

    @property
    def single(self) -> bool:
        """Tell whether every task needs exactly one."""
        return self.starts is None and len(self.offsets) == 1

    def parents(self, index: int) -> Sequence[int]:
        """List the flat indices of the upstream tasks that a task needs."""
        if self.starts is not None:
            return self.base[self.starts[index] : self.starts[index + 1]]
        first = self.base[index]
        return [first + offset for offset in self.offsets]

    def needs(self) -> Iterator[tuple[int, Sequence[int]]]:
        """Give each task that needs any, by its flat index, with what `parents` lists for it."""
        if self.starts is None:
            return ((index, self.parents(index)) for index in range(len(self.base)))
        rows = enumerate(pairwise(self.starts))
        return ((index, self.base[first:last]) for index, (first, last) in rows if first < last)


def make_edge(
    child: Sequence[Axis], upstream: str, parent: Sequence[Axis], gathered: Collection[str]
) -> Edge:
    """Work out the mapping from a child's axes to its parent's, some of which are gathered."""
    strides: dict[str, int] = {}
    stride = size(parent)
    for axis in parent:
        stride //= len(axis)
        strides[axis.name] = stride
    offsets = _products([(axis, strides[axis.name]) for axis in parent if axis.name in gathered])
    if not gathered and [axis.name for axis in child] == [axis.name for axis in parent]:
        return Edge(upstream, range(size(parent)), offsets)
    kept = {name: stride for name, stride in strides.items() if name not in gathered}
    base = _products([(axis, kept.get(axis.name, 0)) for axis in child])
    return Edge(upstream, base, offsets)


def _products(strides: Sequence[tuple[Axis, int]]) -> Sequence[int]:
    column = array("q", [0])
    for axis, stride in strides:
        steps = range(0, stride * len(axis), stride) if stride else [0] * len(axis)
        column = array("q", [at + step for at in column for step in steps])
    return column
