"""A batch's task file: which task each of its elements runs, and where its inputs are.

Its name ends in a digest of its content, and the batch's script has the whole digest, so that
nothing edited after submission can make an element run what was not submitted. For Python tasks it
has the binary form that `hpcpipe.worker.task` reads, and names what a task is to do by its place in
the plan, with its digest. Commands have one line of sh an element, taken from the plan, and need no
Python there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pickle import dumps
from time import gmtime, strftime
from typing import Any

from hpcpipe.graph.axes import folder_name
from hpcpipe.keys.fates import DONE, LATER
from hpcpipe.keys.payloads import as_pickled, joined, quote
from hpcpipe.keys.plan import NodePlan, Plan
from hpcpipe.planner.batch import Batch
from hpcpipe.store.outcomes import Listing, Store
from hpcpipe.store.plan import (
    ENTRY,
    KEY,
    NO_EDGE,
    NodeRecord,
    Payloads,
    compared_parents,
    loose_edges,
)
from hpcpipe.store.rundir import RunDir
from hpcpipe.submit.checkpoint import Checkpoint
from hpcpipe.submit.inputs import Facts, Inputs
from hpcpipe.submit.sums import Sums, sum_up
from hpcpipe.submit.waking import NOTHING, Waking
from hpcpipe.worker import task as worker
from hpcpipe.worker.inputs import Input
from hpcpipe.worker.outcome import pack_path, result_path

_LOOSE, _EXACT = "%s %i %y", "%s %i %y %z"  # of stat(1), with TZ=UTC0


@dataclass(frozen=True)
class TaskFile:
    """The content of a task file, in pieces, and the batch id it gives its batch."""

    batch: str
    content: Sequence[bytes]

    @property
    def sums(self) -> Sums:
        """Return the digests of the content, which the batch's script compares."""
        return sum_up(self.content)


class TaskWriter:
    """Writes the task files of one plan's batches."""

    def __init__(
        self,
        plan: Plan,
        rundir: RunDir,
        run: int,
        settle: int,
        seen: Mapping[str, Facts],
        elsewhere: Callable[[str, str], Sequence[str]],
    ) -> None:
        self._plan = plan
        self._rundir = rundir
        self._run = run
        self._settle = settle
        self._elsewhere = elsewhere  # of a node and a key: see `Standing.elsewhere`
        self._inputs = Inputs(seen, content=plan.frozen.files == "content")
        self._batch_of: dict[tuple[str, int], tuple[str, str | None]] = {}  # and pack
        self._beside: set[tuple[str, int]] = set()  # in packs that are being written
        self._listings: dict[str, Listing] = {}

    def write(
        self, batch: Batch, waking: Waking = NOTHING, checkpoint: Checkpoint | None = None
    ) -> TaskFile:
        """Make a batch's task file; its upstream batches must have been made before."""
        self._beside = (
            set()
            if batch.starts is None
            else {(one.node.name, task) for one, task in batch.members()}
        )
        if batch.nodes[0].node.sh:
            content = [f"# run {self._run}\n".encode(), *self._commands(batch)]
            digest = blake2b(digest_size=4)
            for piece in content:
                digest.update(piece)
        else:
            header, index, rows = self._python(batch, waking, checkpoint)
            digest = blake2b(header + index + b"".join(rows), digest_size=4)
            length = len(header).to_bytes(8, "little")
            content = [worker.MAGIC, length, header, index, *rows]
        name = f"{batch.name}-{digest.hexdigest()}"
        position = 0
        for number, (node, task) in enumerate(batch.members()):
            if batch.starts is not None and number == batch.starts[position + 1]:
                position += 1
            pack = None if batch.starts is None else pack_path(name, position)
            self._batch_of[node.node.name, task] = name, pack
        return TaskFile(name, content)

    # --- Python -------------------------------------------------------------------------------

    def _python(
        self, batch: Batch, waking: Waking, checkpoint: Checkpoint | None
    ) -> tuple[bytes, bytes, list[bytes]]:
        """Make the header, the index, and what it points to."""
        parts: dict[str, tuple[int, Payloads]] = {}
        rows = [self._row(node, task, parts) for node, task in batch.members()]
        index = bytearray()
        offset = 0
        for row in rows:
            index += offset.to_bytes(8, "little") + len(row).to_bytes(8, "little")
            offset += len(row)
        frozen = self._plan.frozen
        partial, mapped = self._partial(batch), self._mapped(batch)
        loose = {one.node.name: loose_edges(frozen.nodes, one.node) for one in batch.nodes}
        header = dumps(
            {
                "run_number": self._run,
                "count": len(rows),
                "starts": None if batch.starts is None else list(batch.starts),
                "lanes": batch.lanes,
                "strand": batch.strand,
                "gpus": batch.resources.gpus or 0,
                "python": frozen.python,
                "executable": frozen.executable,
                "path": list(frozen.path),
                "cwd": frozen.cwd,
                "run": str(self._rundir.home),
                "settle": self._settle,
                "wakes": waking.on_failure,
                "wakes_at": waking.at,
                "early": waking.early,
                "calls": [next(part.read([0])) for _, part in parts.values()],
                "payloads": [str(self._rundir.payloads(name)) for name in parts],
                **({"partial": partial} if partial else {}),
                **({"checkpoint": (checkpoint.number, checkpoint.after)} if checkpoint else {}),
                **({"mapped": mapped} if mapped else {}),
                **({"loose": loose} if any(loose.values()) else {}),
            },
            4,
        )
        return header, bytes(index), rows

    def _row(self, plan: NodePlan, task: int, parts: dict[str, tuple[int, Payloads]]) -> bytes:
        """Make the row of a task: what it is, what it waits for, where its arguments are."""
        at, row = plan.node.row(task)
        payloads = plan.node.payloads[at]
        call, _ = parts.setdefault(payloads.name, (len(parts), payloads))
        entry = payloads.entries()[row * ENTRY : row * ENTRY + ENTRY]
        needs, packed = tuple(self._needs(plan, task)), tuple(self._packed(plan, task))
        facts = plan.node.name, plan.key(task), self._folder(plan.node, task)
        above, inputs = tuple(self._above(plan, task)), self._inputs.of(plan.node, task)
        elsewhere = self._elsewhere(plan.node.name, plan.key(task))
        return dumps((*facts, call, needs, packed, entry, above, inputs, *elsewhere), 4)

    def _partial(self, batch: Batch) -> dict[str, Any]:
        """Return what tasks may do without, as `hpcpipe.worker.partial` reads it."""
        gathers: dict[str, list[tuple[int, int, Sequence[tuple[str, str]]]]] = {}
        above: dict[str, str] = {}
        for plan, task in batch.members() if any(n.node.partial for n in batch.nodes) else ():
            for number, edge in enumerate(plan.edges):
                parents = edge.parents(task)
                upstream = self._plan.nodes[edge.upstream]
                if upstream.node.partial:
                    above |= {upstream.key(one): edge.upstream for one in parents}
                if edge.least is not None:
                    needs = [*self._found((upstream, one) for one in parents)]
                    later = [one for one in parents if upstream.fates[one] == LATER]
                    needs += [(result_path(edge.upstream, upstream.key(at)), "") for at in later]
                    facts = number, edge.enough(len(parents)), needs
                    gathers.setdefault(plan.key(task), []).append(facts)
        return {"gathers": gathers, "above": above} if gathers or above else {}

    def _mapped(self, batch: Batch) -> dict[str, dict[tuple[Any, ...], str]]:
        """Return which parts of the values of nodes others are mapped over, and a name of these."""
        here, found = {one.node.name for one in batch.nodes}, dict[str, dict[Any, str]]()
        for name, plan in self._plan.nodes.items():
            for axis in plan.node.growth.axes if plan.node.growth else ():
                if axis.source and axis.source[0] in here:
                    found.setdefault(axis.source[0], {}).setdefault(axis.source[1], name)
        return found

    def _folder(self, node: NodeRecord, task: int) -> str:
        """Return a task's own working folder, or nothing if it wants none."""
        if not node.folder or node.anchored:  # a command runs where it was submitted
            return ""
        return str(self._rundir.folder / node.name / folder_name(node.axes, task))

    # --- what is upstream ---------------------------------------------------------------------

    def _above(self, plan: NodePlan, task: int) -> Iterator[tuple[Any, ...]]:
        """Return, for each edge that brings values, the node and the keys upstream.

        Of a node that has grown, also which element of a list it takes, and a command's folder.
        """
        picks = dict(plan.node.picks)
        for number, edge in enumerate(plan.edges[: plan.node.values]):
            keys = self._plan.nodes[edge.upstream].keys
            above = (keys[at * KEY : at * KEY + KEY] for at in edge.parents(task))
            pick = (picks[number][task],) if number in picks else ()
            yield (edge.upstream, b"".join(above), *pick)
        if NO_EDGE in picks:
            yield (picks[NO_EDGE][task],)
        if plan.node.growth and plan.node.anchored:
            folder = folder_name(plan.node.axes, task)
            yield (str(self._rundir.folder / plan.node.name / folder),)

    def _needs(self, plan: NodePlan, task: int) -> Iterator[tuple[str, str]]:
        """Name every upstream outcome that must be there, and the batch it may fail in."""
        return self._found(self._parents(plan, task, needed=True))

    def _found(self, upstream: Iterable[tuple[NodePlan, int]]) -> Iterator[tuple[str, str]]:
        """Name what upstream tasks leave, unless they are done, and the batches they may fail in.

        Of one that is to be in the same pack, whose name is not known yet, only the key.
        """
        for above, parent in upstream:
            name, key = above.node.name, above.key(parent)
            if (name, parent) in self._beside:
                yield f"#{key}", ""
                continue
            batch, pack = self._batch_of.get((name, parent), ("", None))
            if not batch and parent in above.in_flight:
                batch, pack = above.in_flight[parent].batch, above.in_flight[parent].pack
            if batch:  # else it is done: nothing to look for
                yield f"{pack}#{key}" if pack else result_path(name, key), batch

    def _taken(self, plan: NodePlan, task: int) -> Iterator[str]:
        """Name the outcomes of those upstream whose files a command takes."""
        for name, parent in compared_parents(self._plan.frozen.nodes, plan.node, task):
            above = self._plan.nodes[name]
            if above.fates[parent] == DONE:
                pack = self._pack_of(above, parent) or result_path(name, above.key(parent))
                yield pack.removeprefix(f"{self._rundir.home}/")  # where scripts start
            else:
                yield from (where for where, _ in self._found([(above, parent)]))

    def _packed(self, plan: NodePlan, task: int) -> Iterator[str]:
        """Name the upstream outcomes that are in packs already."""
        for above, parent in self._parents(plan, task):
            if above.fates[parent] == DONE and (where := self._pack_of(above, parent)):
                yield where

    def _pack_of(self, above: NodePlan, parent: int) -> str | None:
        """Find the outcome of a task that is done, if it is in a pack."""
        if not self._listings:
            self._listings = Store(self._rundir).has(self._plan.nodes)
        return self._listings[above.node.name].packed.get(above.key(parent))

    def _parents(
        self, plan: NodePlan, task: int, *, needed: bool = False
    ) -> Iterator[tuple[NodePlan, int]]:
        """Yield the tasks upstream, or those that are needed, each by its node and index."""
        for edge in plan.edges:
            if needed and edge.least is not None:
                continue
            above = self._plan.nodes[edge.upstream]
            for parent in edge.parents(task):
                yield above, parent

    # --- commands -----------------------------------------------------------------------------

    def _commands(self, batch: Batch) -> Iterator[bytes]:
        """Take the lines of commands from the plan, and put before each what it waits for."""
        parts: dict[str, tuple[Payloads, list[int]]] = {}
        for node, task in batch.members():
            at, row = node.node.row(task)
            part = node.node.payloads[at]
            parts.setdefault(part.name, (part, []))[1].append(row)
        lines = {name: part.read(rows) for name, (part, rows) in parts.items()}
        for node, task in batch.members():
            needs = [f"{path}:{after}" for path, after in self._needs(node, task)]
            wait = f'needs() {{ set -- {joined(needs)}; each_need "$@"; }}; ' if needs else ""
            yield f"key={node.key(task)}; {wait}".encode()
            line = next(lines[node.node.payloads[node.node.row(task)[0]].name])
            if above := " ".join(self._taken(node, task)):
                line = line[:-1] + f"; above={quote(above)}\n".encode()
            if inputs := self._inputs.of(node.node, task):
                line = line[:-1] + _compared(inputs) + b"\n"
            if elsewhere := self._elsewhere(node.node.name, node.key(task)):
                look = f'look_elsewhere() {{ set -- {joined(elsewhere)}; any_good "$@"; }}'
                line = line[:-1] + f"; elsewhere=1; {look}\n".encode()
            yield line


def _compared(inputs: Sequence[Input]) -> bytes:
    """Write what sh compares input files with: as stat(1) shows them, and as b2sum(1) does."""
    paths = joined([path for path, *_ in inputs])
    exact = all(content for *_, content in inputs)  # it is of all files of a plan, or of none
    facts = quote("\n".join(_as_stat(seen, exact) if seen else "-" for _, seen, *_ in inputs))
    digests = " ".join(digest.hex() if content else "-" for *_, digest, content in inputs)
    text = (
        f"; facts={facts}; digests='{digests}'; names={joined_names(inputs)}; "
        f"inputs() {{ look='{_EXACT if exact else _LOOSE}'; set -- {paths}; each_same \"$@\"; }}"
    )
    return text.encode("utf-8", "surrogateescape")


def _as_stat(facts: Facts, exact: bool) -> str:
    """Write the facts of a file as stat(1) does."""
    size, mtime, inode, ctime = facts
    times = (mtime, ctime) if exact else (mtime,)
    return " ".join((str(size), str(inode), *map(_as_time, times)))


def _as_time(time: int) -> str:
    seconds, ns = divmod(time, 10**9)
    return f"{strftime('%Y-%m-%d %H:%M:%S', gmtime(seconds))}.{ns:09} +0000"


def joined_names(inputs: Sequence[Input]) -> str:
    """Quote the names of inputs for sh, one a line, as the text form of a pickle has them."""
    texts = (
        path.encode("utf-8", "surrogateescape").decode(errors="replace") for path, *_ in inputs
    )
    return quote("\n".join(as_pickled(text) for text in texts))
