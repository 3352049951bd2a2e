"""All that is known of one task: its state, its outcome, its log, its files; or of one node."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hpcpipe.errors import UsageError
from hpcpipe.ledger import Ledger
from hpcpipe.model import State
from hpcpipe.packed import MARK
from hpcpipe.record import BatchRecord, read_record
from hpcpipe.run import Run
from hpcpipe.rundir import RunDir
from hpcpipe.show import explain_lines, queue_lines
from hpcpipe.status import Task

_TAIL = 12  # lines of a log
_MARK = re.compile(rb"%b\S+ [0-9a-f]{32}\n" % MARK.encode())


class Log(NamedTuple):
    """Where that is which a task wrote: in its element's log, of a pack after each ``mark`` of it.

    Or in a log of its own: while others run beside it, and if it was killed together with them.
    """

    shared: Path
    own: Path
    mark: bytes

    @property
    def path(self) -> Path:
        """The file to look into now."""
        return self.own if self.own.exists() else self.shared

    def lines(self, at: int = 0) -> Iterator[bytes]:
        """Read what the task has written, line by line, from a byte of it on."""
        for path, mark in ((self.own, b""), (self.shared, self.mark)):
            try:
                with path.open("rb") as file:
                    if mark:
                        yield from _from(at, _of(mark, file))
                    else:
                        file.seek(at)
                        yield from file
                return
            except FileNotFoundError:
                continue

    def tail(self, count: int) -> list[bytes]:
        """Read the last lines."""
        return [*deque(self.lines(), count)]


def _of(mark: bytes, lines: Iterable[bytes]) -> Iterator[bytes]:
    """Give the lines of one task; all, where not one task has begun."""
    mine: bool | None = None
    head = []
    for line in lines:
        found = _MARK.search(line)  # what is before it lacked an end of line
        text = line[: found.start()] if found else line
        if mine and text:
            yield text
        elif mine is None:
            head.append(text)
        if found:
            mine = found[0] == mark
    if mine is None:
        yield from head


def _from(at: int, lines: Iterable[bytes]) -> Iterator[bytes]:
    """Leave out so many bytes."""
    for line in lines:
        if at < len(line):
            yield line[at:]
        at = max(0, at - len(line))


def log_of(rundir: RunDir, batch: BatchRecord, node: str, key: str, index: int | None) -> Log:
    """Say where that is which a task of a batch wrote."""
    mark = b"" if batch.starts is None else f"{MARK}{node} {key}\n".encode()
    return Log(rundir.log(batch.id, index), rundir.own_log(batch.id, key), mark)


def find_log(run: Run, name: str) -> Log:
    """Find the log of a task's latest submission; raises UsageError where it has none."""
    node, index = run.record.one(name)
    key = node.key(index)
    history = Ledger(run.rundir.ledger).read()
    for number in sorted({one.run for one in history.submissions.values()}, reverse=True):
        for batch in read_record(run.rundir, number).batches.values():
            if node.name in batch.nodes and bytes.fromhex(key) in batch.keys:
                places = {found: index for _, found, index in batch.tasks()}
                if key in places:
                    return log_of(run.rundir, batch, node.name, key, places[key])
    raise UsageError(f"{name}: was never submitted")


def explain(run: Run, name: str) -> Iterator[str]:
    """Say all that is known of a task; of a node of many tasks, where they went and why."""
    nodes = run.record.nodes
    return (
        explain_node(run, name) if name in nodes and nodes[name].axes else explain_task(run, name)
    )


def explain_node(run: Run, name: str) -> Iterator[str]:
    """Say of a node how its tasks stand, and of each of its batches to which queue it went."""
    report = run.report()
    node = run.record.nodes[name]
    counts = report.counts[name]
    said = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    yield f"{name}  {len(node)} tasks: {said}"
    asked = {batch.id: batch for batch in run.record.batches.values() if name in batch.nodes}
    if not asked:
        yield "  All of its tasks were good, or submitted before; ask for one of them."
    seen: set[tuple[str, ...]] = set()
    for batch in asked.values():
        lines = (f"  asked      {batch.asked}", *queue_lines(batch))
        if lines not in seen:  # batches of one node mostly go the same way
            seen.add(lines)
            yield from lines
    bad = next((task for task in report.failures if task.node == name), None)
    if bad is not None:
        yield f"Next: hpcpipe explain {bad.name}"


def explain_task(run: Run, name: str) -> Iterator[str]:
    """Say all that is known of a task, in lines."""
    node, index = run.record.one(name)
    report = run.report()
    key = node.key(index)
    task = next((t for t in report.tasks if t.node == node.name and t.key == key), None)
    facts: dict[str, Any] = {}
    if task is None:
        outcome = run.rundir.read_outcome(node.name, key, None)
        task = Task(node.name, node.label(index), key, State.DONE, outcome=outcome)
        facts["result"] = [f"hpcpipe results {node.task(index)}"]
    try:
        log = find_log(run, name)
    except UsageError:
        log = None
    if log is not None and log.path.exists():
        facts["log"] = log.path
        if task.state.bad:
            facts["tail"] = [line.decode(errors="replace").rstrip() for line in log.tail(_TAIL)]
    if node.folder is not None:
        from hpcpipe.axes import folder_name

        folder = node.folder / folder_name(node.axes, index)
        if folder.is_dir():
            facts["files"] = [str(folder)]
    return explain_lines(task, report, facts)
