"""The attempts of a task, and whether one more is due without anybody asking for it.

A task with ``retries`` is submitted again by a job in the queue, `hpcpipe.submit.continuation`. How
each of its attempts ended is in the run's record, since schedulers forget.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hpcpipe.jobs import Reason, State
from hpcpipe.resources import Resources
from hpcpipe.status.logs import log_of
from hpcpipe.status.state import Task
from hpcpipe.store.ledger import NEVER_ARRIVED
from hpcpipe.store.record import RunRecord
from hpcpipe.store.rundir import RunDir

_FREE = 10  # attempts that may end by no fault of the task, or one would go on for ever
_PROGRESS = 60  # seconds that an attempt ran that saved its state, or it goes by _FREE too
_BLAMED = 3  # different tasks that a node must have ended before it is left out
_LINES = 20  # at the end of a log, in which the patterns of ``retry_if`` are looked for
_GROWS = {Reason.MEMORY: "on_memory", Reason.TIME: "on_time"}


Attempts = Mapping[str, Mapping[str, Sequence[Sequence[Any]]]]  # see `RunRecord.attempts`


class Attempt(NamedTuple):
    """How one attempt of a task ended: the run that submitted it, its reason and element, where.

    ``host`` is as that names itself, ``node`` as the scheduler names it, where it does.
    """

    run: int
    reason: str
    words: str
    element: str
    host: str
    wall: float | None
    node: str = ""

    def is_of(self, other: Attempt) -> bool:
        """Return whether this is the same attempt, as a submission after it was interrupted."""
        return (self.run, self.element) == (other.run, other.element)

    @property
    def retried(self) -> str:
        """Whether it counts; see `hpcpipe.jobs.About`."""
        return Reason(self.reason).about.retried

    @property
    def progressed(self) -> bool:
        """Whether the task is further than before: then any number of such attempts is free."""
        return self.reason == Reason.CHECKPOINT and (self.wall or 0) >= _PROGRESS


def end_of(task: Task) -> Attempt | None:
    """Return how the last attempt of a task ended; None if it did not run, or has not ended."""
    if task.place is None or task.place.id is None or task.reason is None or not task.state.bad:
        return None
    if task.reason in (Reason.UPSTREAM, Reason.FEW, Reason.REFUSED) or _never_began(task):
        return None
    node = task.end.host if task.end else ""
    host = task.outcome.get("host") or node
    wall = task.outcome.get("wall") or (task.end.wall if task.end else None)
    words = task.words[:200]
    place = task.place
    return Attempt(place.submission.run, str(task.reason), words, place.element, host, wall, node)


def with_ends(before: Attempts, tasks: Iterable[Task]) -> dict[str, dict[str, list[Any]]]:
    """Add how these tasks ended, which are submitted again, to the attempts before."""
    known = {node: {key: [*some] for key, some in of.items()} for node, of in before.items()}
    for task in tasks:
        ends = known.setdefault(task.node, {}).setdefault(task.key, [])
        if (end := end_of(task)) and not any(end.is_of(Attempt(*one)) for one in ends):
            ends.append(tuple(end))
    return {
        node: kept
        for node, of in known.items()
        if (kept := {key: some for key, some in of.items() if some})
    }


def ended_attempts(record: RunRecord, node: str, key: str) -> list[Attempt]:
    """Return how the attempts of a task ended that were followed by another one."""
    return [Attempt(*one) for one in record.attempts.get(node, {}).get(key, ())]


class Retries:
    """Decides for the tasks of a run whether they are retried with nobody logged in."""

    def __init__(self, rundir: RunDir, record: RunRecord) -> None:
        self._rundir = rundir
        self._record = record

    def asked(self, node: str) -> Resources:
        """Return what the tasks of a node request, options included."""
        return self._record.resources.over(self._record.nodes[node].resources)

    def due(self, task: Task) -> bool:
        """Return whether a task that did not succeed is to be retried."""
        if task.node not in self._record.nodes:
            return False
        if self._was_dropped(task) or _never_arrived(task) or self._was_put_off(task):
            return True
        asked = self.asked(task.node)
        if asked.attempts is None or task.reason is None:
            return False
        if task.state not in (State.FAILED, State.LOST) or task.reason.about.retried == "never":
            return False
        last = end_of(task)
        before = [
            one
            for one in ended_attempts(self._record, task.node, task.key)
            if one.run >= self._record.since and not (last and last.is_of(one))
        ]
        free = [one for one in before if one.retried == "free"]
        if task.reason.about.retried == "free":
            return sum(not one.progressed for one in free) < _FREE
        return len(before) - len(free) < asked.attempts and self._wanted(task, asked)

    def _was_dropped(self, task: Task) -> bool:
        """Return whether it never began, as a task that it needs had failed; by nobody's wish."""
        if task.reason in (Reason.UPSTREAM, Reason.FEW):
            return True
        if task.reason is not Reason.CANCELLED or task.place is None or task.place.cancelled:
            return False
        unsaid = task.end is not None and " by " not in task.end.native
        return unsaid and _never_began(task) and bool(self._record.nodes[task.node].edges)

    def _was_put_off(self, task: Task) -> bool:
        """Return whether a limit of jobs kept out what nobody who was logged in had submitted."""
        one = task.place.submission if task.place else None
        return one is not None and one.refused and one.full and one.run > self._record.since

    def _wanted(self, task: Task, asked: Resources) -> bool:
        """Return whether the user wants a retry for this reason."""
        assert task.reason is not None
        if grows := _GROWS.get(task.reason):
            return bool(getattr(asked, grows) != "no")
        if asked.retry_if is None:
            return True
        code = task.outcome.get("exit")
        code = task.end.exit_code if code is None and task.end else code
        said = "\n".join((task.words, *self._last_lines(task)))
        return any(
            str(code) == one if one.isdigit() else re.search(one, said) for one in asked.retry_if
        )

    def _last_lines(self, task: Task) -> list[str]:
        if task.place is None:
            return []
        batch, index = task.place.batch, task.place.array_index
        log = log_of(self._rundir, batch, task.node, task.key, index)
        return [line.decode(errors="replace") for line in log.last_lines(_LINES)]


def _never_began(task: Task) -> bool:
    """Return whether it was cancelled while it was queued."""
    return task.reason is Reason.CANCELLED and task.end is not None and not task.end.wall


def _never_arrived(task: Task) -> bool:
    """Return whether its submission was interrupted, and the scheduler has no job of it."""
    one = task.place.submission if task.place else None
    return one is not None and one.cancelled and one.job is None and one.why == NEVER_ARRIVED


def bad_nodes(attempts: Attempts) -> list[str]:
    """Name the nodes that have ended several tasks by what may be the node's own fault."""
    tasks: dict[str, set[str]] = {}
    for key, one in _walk(attempts):
        if one.node and Reason(one.reason).about.node:
            tasks.setdefault(one.node, set()).add(key)
    return sorted(node for node, keys in tasks.items() if len(keys) >= _BLAMED)


def _walk(attempts: Attempts) -> Iterator[tuple[str, Attempt]]:
    for of_node in attempts.values():
        for key, some in of_node.items():
            for one in some:
                yield key, Attempt(*one)
