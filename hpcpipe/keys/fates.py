"""Which planned tasks run, and why the others do not: done, in flight, or left for later.

A task that is live or unknown never runs again. What waits for a task that runs again is handed
over again with it, unless it has begun: tied to the old attempt, it could never succeed.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from hpcpipe.graph.axes import Edge
from hpcpipe.keys.file_digest import SIZE
from hpcpipe.resources import Resources

RUN, DONE, IN_FLIGHT, LATER = range(4)


@dataclass(frozen=True)
class InFlight:
    """A task of an earlier submission that may still succeed: its batch, job and array index.

    ``pack`` is where its outcome will be, if it is one of several tasks of an element. What
    ``begun`` is not replaced; what is not ``listed`` by the queue of the scheduler that is
    submitted to cannot be waited for by a dependency.
    """

    batch: str
    job: str
    index: int | None
    pack: str | None = None
    element: Hashable = None
    begun: bool = False
    listed: bool = True


@dataclass(frozen=True)
class Known:
    """What is known of one node's tasks, by key: those done, those in flight, raised requests.

    Those in ``doubt`` may have run, or may be running; it will be known later.
    """

    good: Collection[str] = ()
    in_flight: Mapping[str, InFlight] = field(default_factory=dict)
    raised: Mapping[str, Resources] = field(default_factory=dict)
    doubt: Collection[str] = ()


class Columns(NamedTuple):
    """What decides the fates of one node's tasks, besides what is known: 16 bytes of key a task."""

    keys: bytes
    edges: tuple[Edge, ...]
    done: Collection[int] = ()

    def key(self, index: int) -> str:
        """Return one task's key, as its files are named."""
        return self.keys[index * SIZE : index * SIZE + SIZE].hex()


@dataclass(frozen=True, eq=False)
class Fates:
    """One node's fates (RUN, DONE, IN_FLIGHT or LATER, a byte a task), and what goes with them."""

    column: bytes
    in_flight: Mapping[int, InFlight] = field(default_factory=dict)
    raised: Mapping[int, Resources] = field(default_factory=dict)


def decide(
    nodes: Mapping[str, Columns], known: Mapping[str, Known]
) -> tuple[dict[str, Fates], set[Hashable]]:
    """Decide the fate of every task; ``nodes`` are in order, upstream first.

    Also return the elements in the queue that are replaced. An element goes as a whole: what else
    is in a replaced one runs again, too, until nothing changes any more.
    """
    replaced: set[Hashable] = set()
    while True:
        before = len(replaced)
        fates: dict[str, Fates] = {}
        for name, columns in nodes.items():
            fates[name] = _of_node(columns, known.get(name, Known()), fates, replaced)
        if len(replaced) == before:
            return fates, replaced


def _of_node(
    columns: Columns, known: Known, above: Mapping[str, Fates], replaced: set[Hashable]
) -> Fates:
    size = len(columns.keys) // SIZE
    held_up = any(_holds_up(above[edge.upstream]) for edge in columns.edges)
    if not held_up and not columns.done and known == Known():
        return Fates(bytes(size))
    column = bytearray(size)
    in_flight: dict[int, InFlight] = {}
    raised: dict[int, Resources] = {}
    for index in range(size):
        key = columns.key(index)
        flying = known.in_flight.get(key)
        if index in columns.done or key in known.good:
            column[index] = DONE
        elif key in known.doubt:
            column[index] = LATER
        elif flying and not _is_replaced(flying, index, columns.edges, above, replaced):
            column[index] = IN_FLIGHT
            in_flight[index] = flying
        elif held_up and _must_wait(index, columns.edges, above):
            column[index] = LATER
        elif key in known.raised:
            raised[index] = known.raised[key]
    return Fates(bytes(column), in_flight, raised)


def _holds_up(fates: Fates) -> bool:
    """Return whether some task of a node cannot be waited for by a dependency."""
    return LATER in fates.column or not all(one.listed for one in fates.in_flight.values())


def _must_wait(index: int, edges: Iterable[Edge], above: Mapping[str, Fates]) -> bool:
    """Return whether a task waits for one that nothing can depend on now."""
    for edge in edges:
        fates = above[edge.upstream]
        if edge.least is not None and _goes_on(fates, edge.parents(index)):
            continue
        for parent in edge.parents(index) if _holds_up(fates) else ():
            flying = fates.in_flight.get(parent)
            if fates.column[parent] == LATER or (flying and not flying.listed):
                return True
    return False


def _goes_on(fates: Fates, parents: Iterable[int]) -> bool:
    """Return whether a gather that may do without some has new ones to come."""
    return any(
        fates.column[one] == RUN or (one in fates.in_flight and fates.in_flight[one].listed)
        for one in parents
    )


def _is_replaced(
    flying: InFlight,
    index: int,
    edges: Iterable[Edge],
    above: Mapping[str, Fates],
    replaced: set[Hashable],
) -> bool:
    """Return whether a task in flight depends on a repeated attempt; record its element."""
    if flying.begun or not flying.listed:
        return False
    if flying.element in replaced:
        return True
    for edge in edges:
        column = above[edge.upstream].column
        if RUN in column and any(column[parent] == RUN for parent in edge.parents(index)):
            replaced.add(flying.element)
            return True
    return False
