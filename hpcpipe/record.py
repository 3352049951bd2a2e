"""What a run planned, as kept on disk for those who ask later: nodes, keys, batches.

Light to read (no graph library, no site file), since every ``hpcpipe status`` begins here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any, NamedTuple

from hpcpipe.axes import Axis, Edge, label
from hpcpipe.errors import ResultError, UsageError, near
from hpcpipe.ledger import History, Submission
from hpcpipe.model import Resources
from hpcpipe.rundir import RunDir, read_pickle, write_pickle

KEY = 16  # bytes
DIRECT = "direct"  # in the source of a run that grows, call by call; see `hpcpipe.executor`


@dataclass(repr=False, eq=False)  # bare, since each status defines it anew
class NodeRecord:
    """One node's columns; see `hpcpipe.plan.NodePlan`."""

    name: str
    axes: tuple[Axis, ...]
    keys: bytes
    edges: tuple[Edge, ...]
    resources: Resources
    folder: Path | None  # the node's, where its tasks have working folders
    done: Collection[int] = ()  # tasks known to be done that have no outcome of ours

    def __len__(self) -> int:
        return len(self.keys) // KEY

    def key(self, index: int) -> str:
        """Spell one task's key."""
        return self.keys[index * KEY : index * KEY + KEY].hex()

    def index(self, key: str) -> int:
        """Find the task of a key; raises ValueError where there is none."""
        at, sought = -1, bytes.fromhex(key)
        while (at := self.keys.index(sought, at + 1)) % KEY:
            continue  # by chance across two keys
        return at // KEY

    def by_label(self) -> Iterable[tuple[str, bytes]]:
        """Give every task's label and key, in order."""
        for index in range(len(self)):
            yield self.label(index), self.keys[index * KEY : index * KEY + KEY]

    def label(self, index: int) -> str:
        """Name one task within the node."""
        return label(self.axes, index)

    def task(self, index: int) -> str:
        """Name one task as people do: ``node/label``."""
        return f"{self.name}/{self.label(index)}" if self.axes else self.name


class BatchRecord(NamedTuple):
    """One batch: the keys of its tasks in order, and its array indices (None: a plain job).

    ``nodes``, ``which``, ``starts``, ``lanes`` and ``turns`` are those of
    `hpcpipe.planner.batch.Batch`; ``resources``, ``why``, ``others`` and ``software`` of
    `hpcpipe.routing.Route`.
    """

    id: str
    nodes: tuple[str, ...]
    keys: bytes
    indices: Sequence[int] | None
    resources: Resources
    queue: str | None
    why: str
    which: Sequence[int] | None = None
    starts: Sequence[int] | None = None
    others: tuple[str, ...] = ()
    software: tuple[str, ...] = ()
    lanes: int = 1
    turns: int = 1

    @property
    def per_task(self) -> Resources:
        """What one task was given: of what its element was, its share."""
        return self.resources.share(self.lanes, self.turns)

    @property
    def asked(self) -> str:
        """What its elements ask for, in words."""
        shared = f", for {self.lanes} tasks side by side" if self.lanes > 1 else ""
        return f"{self.resources}{shared}"

    def tasks(self) -> Iterable[tuple[str, str, int | None]]:
        """Give every task's node and key, and the array index of its element."""
        count = len(self.keys) // KEY
        spelled = (self.keys[at * KEY : at * KEY + KEY].hex() for at in range(count))
        which = self.which
        nodes = repeat(self.nodes[0]) if which is None else (self.nodes[one] for one in which)
        if self.indices is None:
            return zip(nodes, spelled, repeat(None))
        if self.starts is None:
            return zip(nodes, spelled, self.indices, strict=False)
        sizes = (after - at for at, after in pairwise(self.starts))
        indices = (
            index for index, size in zip(self.indices, sizes, strict=True) for _ in range(size)
        )
        return zip(nodes, spelled, indices, strict=False)

    def pack(self, index: int | None) -> str | None:
        """Name the pack that the element of an array index writes to; None if it writes none."""
        if self.starts is None:
            return None
        position = 0 if self.indices is None or index is None else self.indices.index(index)
        return f"packs/{self.id}.{position}.pack"


class RunRecord(NamedTuple):
    """One run: what it planned, and all that is needed to ask about it without a site file."""

    run: int
    workflow: str
    source: Mapping[str, Any]  # how to make the workflow again: {"file": …} or {"map": …}
    cwd: str
    site: str
    scheduler: str
    options: Mapping[str, Any]  # the scheduler's, from the site
    poll_seconds: int
    settle_seconds: int
    nodes: Mapping[str, NodeRecord]
    batches: Mapping[str, BatchRecord]
    sweep: int = 0  # the workflow's

    def names(self) -> list[str]:
        """Name every task."""
        return [node.task(index) for node in self.nodes.values() for index in range(len(node))]

    def find(self, name: str) -> list[tuple[NodeRecord, int]]:
        """Find tasks by ``node``, ``node/label`` or a label that is unique; empty if none."""
        node, _, wanted = name.partition("/")
        if node in self.nodes:
            found = self.nodes[node]
            return [(found, i) for i in range(len(found)) if _matches(found.label(i), wanted)]
        return [
            (found, index)
            for found in self.nodes.values()
            for index in range(len(found))
            if found.label(index) == name
        ]

    def one(self, name: str) -> tuple[NodeRecord, int]:
        """Find the one task of a name; raises UsageError naming those it could be."""
        found = self.find(name)
        if len(found) == 1:
            return found[0]
        if found:
            some = ", ".join(node.task(index) for node, index in found[:5])
            raise UsageError(f"{name}: names {len(found)} tasks; say one: {some}")
        node, _, label = name.partition("/")
        if node in self.nodes:
            labels = [self.nodes[node].label(index) for index in range(len(self.nodes[node]))]
            raise UsageError(f"{name}: no such task of {node}{near(label, labels[:1000])}")
        raise UsageError(f"{name}: no such task; write node/label{near(node, self.nodes)}")


def _matches(label: str, wanted: str) -> bool:
    return not wanted or label == wanted or label.startswith(f"{wanted}/")


def joined(
    before: Mapping[str, NodeRecord], after: Mapping[str, NodeRecord]
) -> dict[str, NodeRecord]:
    """Lay the nodes of one run over those of the run before, both of one axis or none upstream.

    A task takes the place of an earlier one of the same label; all others stay.
    """
    nodes = dict(before)
    for name, node in after.items():
        keys = dict(before[name].by_label()) if name in before else {}
        keys |= node.by_label()
        axis = Axis(node.axes[0].name, tuple(keys))
        nodes[name] = replace(node, axes=(axis,), keys=b"".join(keys.values()))
    return nodes


def write_record(rundir: RunDir, record: RunRecord) -> None:
    """Keep a run's record, as plain values: no class of ours is named in the file."""
    plain = record._asdict()
    plain["nodes"] = [
        (
            node.name,
            [(axis.name, axis.labels) for axis in node.axes],
            node.keys,
            [(edge.upstream, edge.base, edge.offsets, edge.starts) for edge in node.edges],
            node.resources._asdict(),
            str(node.folder) if node.folder else None,
            tuple(node.done),
        )
        for node in record.nodes.values()
    ]
    plain["batches"] = [
        {**one._asdict(), "resources": one.resources._asdict()} for one in record.batches.values()
    ]
    write_pickle(rundir.plans / f"{record.run}.pkl", plain)


def read_record(rundir: RunDir, run: int) -> RunRecord:
    """Read a run's record back; raises ResultError where it is gone or damaged."""
    path = rundir.plans / f"{run}.pkl"
    plain = read_pickle(path)
    if plain is None:
        raise ResultError(f"{path}: missing or damaged; hpcpipe submit makes it again")
    nodes = [
        NodeRecord(
            name,
            tuple(Axis(*axis) for axis in axes),
            keys,
            tuple(Edge(*edge) for edge in edges),
            Resources(**resources),
            Path(folder) if folder else None,
            frozenset(*done),
        )
        for name, axes, keys, edges, resources, folder, *done in plain["nodes"]
    ]
    batches = [
        BatchRecord(**{**batch, "resources": Resources(**batch["resources"])})
        for batch in plain["batches"]
    ]
    plain["nodes"] = {node.name: node for node in nodes}
    plain["batches"] = {batch.id: batch for batch in batches}
    return RunRecord(**plain)


def accepted(rundir: RunDir, history: History) -> Iterator[tuple[BatchRecord, Submission]]:
    """Give every accepted batch with its submission, run by run."""
    runs = {one.run for one in history.submissions.values() if one.job and not one.cancelled}
    for run in sorted(runs):
        record = read_record(rundir, run)
        for batch in record.batches.values():
            submission = history.submissions.get(batch.id)
            if submission is not None and submission.job and not submission.cancelled:
                yield batch, submission
