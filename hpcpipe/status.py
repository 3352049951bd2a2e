"""What has become of every task: derived anew, from three facts, each time it is asked.

What was submitted (the ledger and the runs' records), what the scheduler says (asked at most once
an interval, whoever asks), what lies on disk. The file tells the outcome, the queue tells liveness,
silence tells nothing: an unreachable scheduler makes a task UNKNOWN, never FAILED.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

from hpcpipe.asking import Answer, ask
from hpcpipe.ledger import History, Ledger, Submission
from hpcpipe.model import JobEnd, Reason, State
from hpcpipe.record import BatchRecord, NodeRecord, RunRecord, read_record
from hpcpipe.rundir import Listing, RunDir
from hpcpipe.verdict import from_end, from_outcome

BLOCKED_BY = "waits for "  # then the task's name
DOUBTFUL = (9, 15)  # signals that tell an end but not its cause: memory, time, a person
# Seconds that the accounting may take to tell of an end, though files settle sooner: a busy
# slurmdbd was seen to be 4 behind.
_LATE = 30.0


class Place(NamedTuple):
    """Where a task was submitted last: its batch, array index, element id, and attempt (from 1)."""

    batch: BatchRecord
    array_index: int | None
    element: str
    submission: Submission
    attempt: int

    @property
    def cancelled(self) -> str:
        """Why we cancelled it, alone or with its batch; empty if we did not."""
        if self.submission.cancelled and not self.submission.refused:
            return self.submission.why
        return "by hpcpipe cancel" if self.element in self.submission.dropped else ""


class Task(NamedTuple):
    """What is known of one task that is not good."""

    node: str
    label: str
    key: str
    state: State
    reason: Reason | None = None
    words: str = ""  # the error, or why it waits
    place: Place | None = None
    outcome: Mapping[str, Any] = MappingProxyType({})
    end: JobEnd | None = None

    @property
    def name(self) -> str:
        """Name it as people do."""
        return f"{self.node}/{self.label}" if self.label else self.node


@dataclass(repr=False, eq=False)  # bare, since each status defines it anew
class Report:
    """The answer to ``hpcpipe status``."""

    record: RunRecord
    counts: Mapping[str, Counter[State]]  # by node
    tasks: Sequence[Task]  # all that are not good, in the order of the nodes
    asked: float | None  # when the scheduler was asked, if it was needed
    trouble: str = ""  # why it could not be asked
    adrift: int = 0  # batches whose submission was interrupted

    @cached_property
    def failures(self) -> list[Task]:
        """Tasks that did not or cannot end well."""
        return [task for task in self.tasks if task.state.bad]

    @property
    def total(self) -> Counter[State]:
        """Counts over all nodes."""
        return sum(self.counts.values(), Counter())

    @property
    def finished(self) -> bool:
        """Tell whether nothing is left that may still change by itself."""
        return not any(state.live for state in self.total)


def make_report(rundir: RunDir, *, fresh: bool = False, now: float | None = None) -> Report:
    """Work out the state of every task of the latest run.

    Asks the scheduler only where a file does not tell, and only if its last answer is older than
    the site's ``poll_seconds`` (or ``fresh``). Raises ResultError where the record is unreadable.
    """
    now = time.time() if now is None else now
    history = Ledger(rundir.ledger).read()
    record = read_record(rundir, history.last["run"])
    listings = rundir.list_all(record.nodes)
    pending = _pending(record, listings)
    places = _places(rundir, history, record, pending)
    unresolved: dict[str, Submission] = {}
    doubtful: dict[str, Submission] = {}
    for (node, key), place in places.items():
        if not place.element or place.submission.cancelled or place.cancelled:
            continue
        if place.batch.id not in listings[node].errors.get(key, ()):
            unresolved[place.element] = place.submission
        elif rundir.read_outcome(node, key, place.batch.id).get("signal") in DOUBTFUL:
            doubtful[place.element] = place.submission
    answer = ask(rundir, record, unresolved, doubtful, fresh=fresh, now=now)
    if unresolved:  # again: a task that ended between the two looks has its outcome by now
        listings = rundir.list_all(record.nodes)
    judge = _Judge(rundir, record, listings, pending, places, answer, now)
    counts, tasks = judge.all()
    unbegun = record.batches.keys() - history.submissions.keys()
    left = len(history.adrift()) + len(history.held()) + len(unbegun)
    adrift = 0 if rundir.is_held() else left  # else its client is about to hand them over
    asked = answer.asked if unresolved or doubtful else None
    return Report(record, counts, tasks, asked, answer.trouble, adrift)


def _pending(record: RunRecord, listings: Mapping[str, Listing]) -> dict[str, dict[int, str]]:
    """Indices and keys of the tasks without a good outcome, by node."""
    return {
        name: {
            index: key
            for index in range(len(node))
            if (key := node.key(index)) not in listings[name].good and index not in node.done
        }
        for name, node in record.nodes.items()
    }


def _places(
    rundir: RunDir,
    history: History,
    record: RunRecord,
    pending: Mapping[str, Mapping[int, str]],
) -> dict[tuple[str, str], Place]:
    """Find where each pending task was submitted last."""
    places: dict[tuple[str, str], Place] = {}
    keys = {name: {*tasks.values()} for name, tasks in pending.items() if tasks}
    if not keys:
        return places
    # Imported here, as a run without pending tasks needs no scheduler at all.
    from hpcpipe.schedulers import make_scheduler

    for run in sorted({one.run for one in history.submissions.values()}):
        past = record if run == record.run else read_record(rundir, run)
        spell = make_scheduler(past.scheduler, past.options).element
        for batch in past.batches.values():
            submission = history.submissions.get(batch.id)
            if submission is None or keys.keys().isdisjoint(batch.nodes):
                continue
            for node, key, index in batch.tasks():
                if key in keys.get(node, ()):
                    before = places.get((node, key))
                    element = spell(submission.job, index) if submission.job else ""
                    # An intent that never became a job was no attempt.
                    attempt = before.attempt + bool(before.submission.job) if before else 1
                    places[node, key] = Place(batch, index, element, submission, attempt)
    return places


class _Judge:
    """Concludes each task's state; upstream nodes first, since BLOCKED follows from theirs."""

    def __init__(
        self,
        rundir: RunDir,
        record: RunRecord,
        listings: Mapping[str, Listing],
        pending: Mapping[str, Mapping[int, str]],
        places: Mapping[tuple[str, str], Place],
        answer: Answer,
        now: float,
    ) -> None:
        self._rundir = rundir
        self._record = record
        self._listings = listings
        self._pending = pending
        self._places = places
        self._answer = answer
        self._now = now
        self._bad: dict[str, dict[int, str]] = {}  # node → flat index → the task's name

    def all(self) -> tuple[dict[str, Counter[State]], list[Task]]:
        """Judge every task."""
        counts: dict[str, Counter[State]] = {}
        tasks: list[Task] = []
        for name, node in self._record.nodes.items():
            good = self._listings[name].good
            judged = {
                index: self._judge(node, index, key)
                for index, key in self._pending[name].items()
                if key not in good
            }
            self._bad[name] = {i: task.name for i, task in judged.items() if task.state.bad}
            counts[name] = Counter(task.state for task in judged.values())
            if done := len(node) - len(judged):
                counts[name][State.DONE] = done
            tasks += judged.values()
        return counts, tasks

    def _judge(self, node: NodeRecord, index: int, key: str) -> Task:
        place = self._places.get((node.name, key))
        end = self._answer.ended.get(place.element) if place else None
        state, reason, words, outcome = self._conclude(node, index, key, place, end)
        return Task(node.name, node.label(index), key, state, reason, words, place, outcome, end)

    def _conclude(
        self, node: NodeRecord, index: int, key: str, place: Place | None, end: JobEnd | None
    ) -> tuple[State, Reason | None, str, Mapping[str, Any]]:
        """Apply the rules; the first that fits decides."""
        if place and place.batch.id in self._listings[node.name].errors.get(key, ()):
            outcome = self._rundir.read_outcome(node.name, key, place.batch.id)
            if outcome.get("signal") in DOUBTFUL:
                if place.cancelled:
                    return State.CANCELLED, Reason.CANCELLED, place.cancelled, outcome
                if not (end or self._settled(place, _LATE) or self._answer.trouble):
                    words = f"ended by signal {outcome['signal']}; the accounting may say why"
                    return State.UNKNOWN, None, words, outcome
            state, reason, words = from_outcome(outcome, end, place.batch)
            return state, reason, words, outcome
        if place and place.submission.refused:
            return State.FAILED, Reason.REFUSED, place.submission.why, {}
        if place and place.cancelled:
            return State.CANCELLED, Reason.CANCELLED, place.cancelled, {}
        status = self._answer.live.get(place.element) if place else None
        if status and status.state is not State.BLOCKED:
            return status.state, None, status.why, {}
        if blocker := self._blocker(node, index):
            return State.BLOCKED, Reason.UPSTREAM, f"{BLOCKED_BY}{blocker}", {}
        if status:
            return State.FAILED, Reason.REFUSED, status.why, {}
        if place is None:
            return State.WAITING, None, "not submitted", {}
        if not place.element:
            return State.UNKNOWN, None, "its submission was interrupted", {}
        if end is not None and (end.reason is not None or self._settled(place)):
            return *from_end(end, place.batch), {}
        if end is None and self._answer.trouble:
            return State.UNKNOWN, Reason.UNREACHABLE, self._answer.trouble, {}
        if end or not self._settled(place, _LATE):
            return State.UNKNOWN, None, "has left the queue; its outcome may be on its way", {}
        return State.LOST, Reason.LOST, "not in the queue, no outcome, no accounting", {}

    def _settled(self, place: Place, least: float = 0) -> bool:
        """Tell whether something has been missing for so long that it is not just late."""
        first = self._answer.missing.get(place.element)
        settle = max(self._record.settle_seconds, least)
        return first is not None and self._now - first >= settle

    def _blocker(self, node: NodeRecord, index: int) -> str:
        """Name an upstream task that is not good and cannot become so."""
        for edge in node.edges:
            bad = self._bad[edge.upstream]
            if bad:
                for parent in edge.parents(index):
                    if parent in bad:
                        return bad[parent]
        return ""
