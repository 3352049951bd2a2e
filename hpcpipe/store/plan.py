"""A plan, frozen: all that a run needs of a workflow, in plain values, on disk.

``plans/<digest>.plan`` has the columns of every node, and is all that a report reads.
``plans/<digest>.tasks`` has the *payloads* of one node: what its tasks are to do, row by row. Both
are named by the digest of what they hold, which is checked when they are read, so runs of an
unchanged plan share them. Payloads hold no key, of their task or of those upstream, and nothing of
where tasks run: they serve every submission.

A payload file is a magic line; the number of rows; for each row its offset, length and digest; the
rows. Row 0 is what all tasks of the node share: of Python tasks, the function and its fixed inputs.
"""

from __future__ import annotations

import os
from _blake2 import blake2b  # without its Python face, which costs every status a millisecond
from _pickle import dumps, loads
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from hpcpipe.errors import PlanDamaged, ResultError, WrittenByNewer
from hpcpipe.graph.axes import Axis, Edge, label
from hpcpipe.resources import Resources
from hpcpipe.store.rundir import RunDir, write_whole

KEY = 16  # bytes
ENTRY = 32  # bytes: offset 8, length 8, digest 16
_MAGIC = b"hpcpipe payloads 1\n"
UNCOUNTED = b""  # in place of a digest, of what may matter and is in no key
NO_EDGE = -1  # in place of the number of an edge


class Payloads(Protocol):
    """What the tasks of a node are to do."""

    @property
    def name(self) -> str:
        """The name of its file, in the folder of plans."""

    def entries(self) -> bytes:
        """Return the offset, length and digest of every row, `ENTRY` bytes each."""

    def read(self, rows: Iterable[int]) -> Iterator[bytes]:
        """Return some rows; raises ResultError where they are missing or damaged."""


class NewPayloads:
    """Payloads that are made, all at once, when they are first asked for."""

    def __init__(self, make: Callable[[], list[bytes]]) -> None:
        self._make = make

    @cached_property
    def _rows(self) -> list[bytes]:
        rows = self._make()
        del self._make  # it refers to all nodes, and so to these payloads
        return rows

    @cached_property
    def _entries(self) -> bytes:
        entries = bytearray()
        offset = len(_MAGIC) + 8 + ENTRY * len(self._rows)
        for row in self._rows:
            digest = blake2b(row, digest_size=16).digest()
            entries += offset.to_bytes(8, "little") + len(row).to_bytes(8, "little") + digest
            offset += len(row)
        return bytes(entries)

    @cached_property
    def name(self) -> str:
        return f"{_digest(self._entries)}.tasks"

    def entries(self) -> bytes:
        return self._entries

    def read(self, rows: Iterable[int]) -> Iterator[bytes]:
        return (self._rows[row] for row in rows)

    def write(self, folder: Path) -> None:
        """Write the file, unless it is there and whole."""
        if not StoredPayloads(folder, self.name).is_whole():
            head = _MAGIC + len(self._rows).to_bytes(8, "little") + self._entries
            write_whole(folder / self.name, (head, *self._rows), 0o400)


class StoredPayloads:
    """Payloads on disk."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path, self.name = folder / name, name

    @cached_property
    def _entries(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                head = file.read(len(_MAGIC) + 8)
                size = ENTRY * int.from_bytes(head[len(_MAGIC) :], "little")
                # A damaged size may be more than any memory holds.
                entries = file.read(min(size, os.fstat(file.fileno()).st_size))
        except OSError as error:
            raise PlanDamaged(f"{self._path}: {error.strerror}") from error
        if self.name != f"{_digest(entries)}.tasks":
            raise PlanDamaged(f"{self._path}: damaged")
        return entries

    def entries(self) -> bytes:
        return self._entries

    def is_whole(self) -> bool:
        """Return whether the file is there and its content matches the digest in its name."""
        try:
            return all(True for _ in self.read(range(len(self._entries) // ENTRY)))
        except ResultError:
            return False

    def read(self, rows: Iterable[int]) -> Iterator[bytes]:
        entries = self._entries
        with self._path.open("rb") as file:
            for row in rows:
                entry = entries[row * ENTRY : row * ENTRY + ENTRY]
                file.seek(int.from_bytes(entry[:8], "little"))
                payload = file.read(int.from_bytes(entry[8:16], "little"))
                if blake2b(payload, digest_size=16).digest() != entry[16:]:
                    raise PlanDamaged(f"{self._path}: damaged")
                yield payload


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()


class GrowthAxis(NamedTuple):
    """An axis of a node that grows: what each place adds to a key and to how keys are made; or, of
    one whose length is not known, the node upstream and the part of its value that is a list.

    ``at`` and ``given`` are those of `hpcpipe.graph.axes.Source`.
    """

    name: str
    labels: Sequence[str]
    folders: Sequence[str]
    column: Sequence[bytes]
    recipe: Sequence[Any]
    source: tuple[str, tuple[Any, ...]] | None = None
    at: Sequence[int] = ()
    given: Sequence[tuple[int, int]] = ()


class Growth(NamedTuple):
    """What the columns of a node are made from once it is known how many tasks it has.

    ``edges`` are the nodes upstream, the axes gathered, the part of those tasks that is enough,
    and the axis whose places are the parts of what comes along the edge, if there is one. ``links``
    are edges between *places*: on the axes of known length, numbered flat, of either node. ``done``
    are the places whose tasks are known to be done.
    """

    axes: Sequence[GrowthAxis]
    edges: Sequence[tuple[str, tuple[str, ...], float | None, str | None]]
    shared: bytes
    recipe: Any
    links: Sequence[Edge] = ()
    done: Sequence[int] = ()


@dataclass(repr=False, eq=False)  # bare, since each status defines it anew
class NodeRecord:
    """One node, frozen: its columns, one entry a task, and what its tasks are to do.

    ``sh`` nodes are run by sh alone, all others by Python. ``payloads`` has several parts where a
    run grew call by call; ``rows`` then has, for every task, its part and its row there.
    """

    name: str
    axes: tuple[Axis, ...]
    keys: bytes
    edges: tuple[Edge, ...]
    resources: Resources
    folder: bool = False  # each task has a working folder of its own
    done: Collection[int] = ()  # tasks known to be done that have no outcome of ours
    seconds: Sequence[float] | None = None  # expected run time of each task
    sh: bool = False
    fuse: bool = False  # see `hpcpipe.graph.node.Node`
    anchored: bool = False  # its payloads name paths in the run's folder
    payloads: Sequence[Payloads] = ()
    rows: Sequence[tuple[int, int]] | None = None
    values: int = 0  # of how many edges, the first ones, it takes the values
    recipe: tuple[Any, Any] | None = None  # how keys are made, where they depend on files
    partial: bool = False  # it, or one upstream, may go on without tasks that did not succeed
    parts: Sequence[tuple[str, bytes]] = ()  # what all keys have in common: its name, a digest;
    # or `UNCOUNTED`
    growth: Growth | None = None  # how it grows, see `hpcpipe.keys.grow`
    awaited: Sequence[
        tuple[str, int]
    ] = ()  # nodes that must end before all its tasks are known, and
    # how many of their tasks had when it grew
    picks: Sequence[tuple[int, Sequence[int]]] = ()  # edges that bring a list, and which element of
    # it each task takes; NO_EDGE where a task knows where its list is

    def __len__(self) -> int:
        return len(self.keys) // KEY

    def key(self, index: int) -> str:
        """Return one task's key."""
        return self.keys[index * KEY : index * KEY + KEY].hex()

    def all_keys(self) -> list[str]:
        """Return every task's key, in order."""
        keys, width = self.keys.hex(), 2 * KEY
        return [keys[at : at + width] for at in range(0, len(keys), width)]

    def index(self, key: str) -> int:
        """Find the task of a key; raises ValueError if there is no such task."""
        at, sought = -1, bytes.fromhex(key)
        while (at := self.keys.index(sought, at + 1)) % KEY:
            continue  # by chance across two keys
        return at // KEY

    def by_label(self) -> Iterable[tuple[str, bytes]]:
        """Yield every task's label and key, in order."""
        for index in range(len(self)):
            yield self.label(index), self.keys[index * KEY : index * KEY + KEY]

    def label(self, index: int) -> str:
        """Name one task within the node."""
        return label(self.axes, index)

    def task(self, index: int) -> str:
        """Name one task as people do: ``node/label``."""
        return f"{self.name}/{self.label(index)}" if self.axes else self.name

    def row(self, index: int) -> tuple[int, int]:
        """Find a task's payload: the part, and the row there."""
        return (0, index + 1) if self.rows is None else self.rows[index]


class Frozen(NamedTuple):
    """A plan: the nodes, and where and by which Python their tasks run.

    ``path`` is where Python looks for modules; ``home`` the run's folder when the plan was made.
    """

    workflow: str
    home: str
    cwd: str
    path: Sequence[str]
    executable: str
    python: str
    sweep: int
    files: str  # how input files enter keys
    nodes: Mapping[str, NodeRecord]


def loose_edges(nodes: Mapping[str, NodeRecord], node: NodeRecord) -> list[int]:
    """Return which edges bring files to a node that others may have changed before, in place.

    It comes after these by ``after=``, which tells that they do something to what it takes.
    """
    above, rest = set[str](), [edge.upstream for edge in node.edges[node.values :]]
    while rest:
        more = {edge.upstream for edge in nodes[rest.pop()].edges} - above
        above |= more
        rest += more
    taken = node.edges[: node.values] if above else ()
    return [number for number, edge in enumerate(taken) if edge.upstream in above]


def compared_parents(
    nodes: Mapping[str, NodeRecord], node: NodeRecord, task: int
) -> Iterator[tuple[str, int]]:
    """Yield the tasks upstream whose files a task takes as they were made, each one once."""
    loose, seen = loose_edges(nodes, node), set[tuple[str, int]]()
    for number, edge in enumerate(node.edges[: node.values]):
        for parent in () if number in loose else edge.parents(task):
            if (one := (edge.upstream, parent)) not in seen:
                seen.add(one)
                yield one


def write_plan(rundir: RunDir, plan: Frozen) -> str:
    """Write a plan and its payloads, where they are not there yet; return the plan's digest."""
    for node in plan.nodes.values():
        for part in node.payloads:
            if isinstance(part, NewPayloads):
                part.write(rundir.plans)
    plain = plan._asdict()
    plain["nodes"] = [
        {
            **vars(node),
            "axes": [
                (axis.name, axis.labels, *((axis.folders,) if axis.folders else ()))
                for axis in node.axes
            ],
            "edges": [tuple(edge) for edge in node.edges],
            "resources": node.resources._asdict(),
            "done": sorted(node.done),
            "payloads": [part.name for part in node.payloads],
            "growth": node.growth and _plain_growth(node.growth),
        }
        for node in plan.nodes.values()
    ]
    content = dumps(plain, 4)
    digest = _digest(content)
    path = rundir.plan(digest)
    if not path.exists() or path.read_bytes() != content:
        write_whole(path, content, 0o400)
    return digest


def read_plan(rundir: RunDir, digest: str) -> Frozen:
    """Read a plan; raises PlanDamaged where it is missing or damaged. Reads no payload."""
    path = rundir.plan(digest)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PlanDamaged(f"{path}: {error.strerror}") from error
    if _digest(content) != digest:
        raise PlanDamaged(f"{path}: damaged")
    try:
        return _made(rundir, loads(content))
    except TypeError as error:  # it is whole, and has a field that is not known here
        raise WrittenByNewer(path) from error


def _made(rundir: RunDir, plain: dict[str, Any]) -> Frozen:
    """Make a plan of plain values; raises TypeError for one that is not known."""
    nodes = [
        NodeRecord(
            **{
                **node,
                "axes": tuple(Axis(*axis) for axis in node["axes"]),
                "edges": tuple(Edge(*edge) for edge in node["edges"]),
                "resources": Resources(**node["resources"]),
                "done": frozenset(node["done"]),
                "payloads": [StoredPayloads(rundir.plans, name) for name in node["payloads"]],
                "growth": _read_growth(node.get("growth")),
            }
        )
        for node in plain["nodes"]
    ]
    return Frozen(**{**plain, "nodes": {node.name: node for node in nodes}})


def _plain_growth(growth: Growth) -> tuple[Any, ...]:
    plain = {
        **growth._asdict(),
        "axes": [tuple(axis) for axis in growth.axes],
        "links": [tuple(link) for link in growth.links],
    }
    return tuple(plain.values())


def _read_growth(plain: tuple[Any, ...] | None) -> Growth | None:
    if plain is None:
        return None
    axes, *rest = plain
    growth = Growth([GrowthAxis(*axis) for axis in axes], *rest)
    return growth._replace(links=[Edge(*link) for link in growth.links])


def joined(
    before: Mapping[str, NodeRecord], after: Mapping[str, NodeRecord]
) -> dict[str, NodeRecord]:
    """Lay the nodes of one run over those of the run before, both of one axis or none upstream.

    A task takes the place of an earlier one of the same label; all others stay.
    """
    nodes = dict(before)
    for name, node in after.items():
        tasks: dict[str, tuple[bytes, Payloads, int]] = {}
        for one in (before[name], node) if name in before else (node,):
            for index, (text, key) in enumerate(one.by_label()):
                part, row = one.row(index)
                tasks[text] = key, one.payloads[part], row
        parts = list({part.name: part for _, part, _ in tasks.values()}.values())
        number = {part.name: at for at, part in enumerate(parts)}
        nodes[name] = replace(
            node,
            axes=(Axis(node.axes[0].name, tuple(tasks)),),
            keys=b"".join(key for key, _, _ in tasks.values()),
            payloads=parts,
            recipe=None,
            rows=[(number[part.name], row) for _, part, row in tasks.values()],
        )
    return nodes
