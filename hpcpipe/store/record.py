"""What a run planned, as kept on disk for those who ask later: nodes, keys, batches.

Light to read (no graph library, no site file), since every ``hpcpipe status`` begins here.
"""

from __future__ import annotations

from _blake2 import blake2b
from _pickle import dumps, loads
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import pairwise, repeat
from types import MappingProxyType
from typing import Any, NamedTuple

from hpcpipe.errors import PlanDamaged, ResultError, UsageError, WrittenByNewer, near
from hpcpipe.graph.axes import Axis
from hpcpipe.resources import Resources
from hpcpipe.store.ledger import History, Ledger, is_cleaned
from hpcpipe.store.plan import KEY, Frozen, NodeRecord, read_plan, write_plan
from hpcpipe.store.rundir import RunDir, read_pickle, write_pickle
from hpcpipe.worker.outcome import pack_path

DIRECT = (
    "direct"  # in the source of a run that grows, call by call; see `hpcpipe.executor.executor`
)


class BatchRecord(NamedTuple):
    """One batch: the keys of its tasks in order, and its array indices (None: a plain job).

    ``nodes``, ``which``, ``starts``, ``lanes`` and ``turns`` are those of
    `hpcpipe.planner.batch.Batch`; ``resources``, ``why``, ``others`` and ``software`` of
    `hpcpipe.site.route.Route`.
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
        """Yield every task's node and key, and the array index of its element."""
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
        return pack_path(self.id, position)


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
    plan: str = ""  # the digest of its frozen plan
    resources: Resources = Resources()  # laid over every node's, as by --time
    # What tasks turned out to need: node → label → "memory" or "time" → the amount, and what was
    # requested when that was found out. They are kept by label: an edit of the code changes keys.
    needs: Mapping[str, Mapping[str, Mapping[str, tuple[int, int | None]]]] = MappingProxyType({})
    # How earlier attempts ended: node → key → `hpcpipe.status.attempts.Attempt`, as plain tuples.
    attempts: Mapping[str, Mapping[str, Sequence[Sequence[Any]]]] = MappingProxyType({})
    since: int = 0  # the run that a person submitted last; later ones continue it
    after: str = ""  # the folder of a run that must succeed before anything is submitted
    notify: str = ""  # a line of sh that is run when it has ended; or "mail…"
    inherited: str = ""  # the file of variables that its tasks inherited

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


def write_record(rundir: RunDir, record: RunRecord, plan: Frozen) -> None:
    """Keep a run's plan and record, as plain values: no class of ours is named in the files."""
    plain = record._asdict()
    del plain["nodes"]
    plain["plan"] = write_plan(rundir, plan)
    plain["resources"] = record.resources._asdict()
    plain["batches"] = [
        {**one._asdict(), "resources": one.resources._asdict()} for one in record.batches.values()
    ]
    content = dumps(plain, 4)
    write_pickle(rundir.record(record.run), (blake2b(content).digest(), content))


def read_record(rundir: RunDir, run: int) -> RunRecord:
    """Read a run's record back; raises ResultError where it is gone or damaged.

    Its plan is read when its nodes are asked for; of one that is damaged, they are what is known
    from the batches. A run that had nothing to submit has none: then the plan is all there is.
    """
    path = rundir.record(run)
    match read_pickle(path):
        case (bytes() as digest, bytes() as content) if digest == blake2b(content).digest():
            plain = loads(content)
        case _:
            raise ResultError(f"{path}: missing or damaged; what run {run} planned is unknown")
    try:
        return _made(rundir, plain)
    except TypeError as error:  # it is whole, and has a field that is not known here
        raise WrittenByNewer(path) from error


def _made(rundir: RunDir, plain: dict[str, Any]) -> RunRecord:
    """Make a record of plain values; raises TypeError for one that is not known."""
    batches = [
        BatchRecord(**{**batch, "resources": Resources(**batch["resources"])})
        for batch in plain["batches"]
    ]
    plan = plain["plan"]
    plain["nodes"] = _Nodes(rundir, plan, batches) if batches else read_plan(rundir, plan).nodes
    plain["resources"] = Resources(**plain["resources"])
    plain["batches"] = {batch.id: batch for batch in batches}
    return RunRecord(**plain)


class _Nodes(Mapping[str, NodeRecord]):
    """The nodes of a plan on disk, read when they are first needed."""

    def __init__(self, rundir: RunDir, plan: str, batches: Iterable[BatchRecord]) -> None:
        self._rundir, self._plan, self._batches = rundir, plan, batches

    @cached_property
    def _nodes(self) -> Mapping[str, NodeRecord]:
        try:
            return read_plan(self._rundir, self._plan).nodes
        except PlanDamaged:
            return _guessed(self._batches)

    def __getitem__(self, name: str) -> NodeRecord:
        return self._nodes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


def _guessed(batches: Iterable[BatchRecord]) -> dict[str, NodeRecord]:
    """Make nodes of what was submitted, where the plan is lost: tasks are named by their keys."""
    keys: dict[str, list[str]] = {}
    for batch in batches:
        for node, key, _ in batch.tasks():
            keys.setdefault(node, []).append(key)
    return {
        name: NodeRecord(
            name, (Axis("key", tuple(some)),), bytes.fromhex("".join(some)), (), Resources()
        )
        for name, some in keys.items()
    }


PLAN_AGAIN = "Submit the workflow again: it plans anew, and what has succeeded does not run again."


def latest_record(rundir: RunDir, history: History | None = None) -> RunRecord:
    """Read the record of the latest run, or of the latest that is not damaged.

    Raises ResultError where all are, UsageError where there is none.
    """
    history = history or Ledger(rundir.ledger).read()
    for run in (run for run in reversed(history.runs) if not is_cleaned(run)):
        with suppress(ResultError):
            return read_record(rundir, run["run"])
    try:
        return read_record(rundir, history.last["run"])
    except ResultError as error:
        raise ResultError(f"{error}\n{PLAN_AGAIN}") from error
