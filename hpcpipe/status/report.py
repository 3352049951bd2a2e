"""How a run stands: the state of every task, derived anew each time it is asked for.

From three facts: what was submitted (the ledger and the runs' records), what the schedulers say
(asked at most once an interval, whoever asks), and what lies on disk. The rules are in `state`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hpcpipe.jobs import Reason, State
from hpcpipe.status.instances import Instances
from hpcpipe.status.places import NOWHERE, Place, find_continuations, find_places
from hpcpipe.status.poll import LATE, SILENCE, Answer, ask
from hpcpipe.status.relied import look_at
from hpcpipe.status.state import Evidence, Task, judge_all, open_questions, pending_tasks
from hpcpipe.store.ledger import NOT_FOLLOWED, History, Ledger
from hpcpipe.store.record import RunRecord, latest_record
from hpcpipe.store.rundir import RunDir

if TYPE_CHECKING:
    from hpcpipe.status.most import Most


@dataclass(repr=False, eq=False)  # bare, since each status defines it anew
class Report:
    """The answer to ``hpcpipe status``."""

    record: RunRecord
    counts: Mapping[str, Counter[State]]  # by node
    tasks: Sequence[Task]  # all that have not succeeded, or only without some upstream, by node
    asked: float | None  # when the scheduler was asked, if it was needed
    adrift: int = 0  # batches whose submission was interrupted
    folder: Path | None = None  # of the run
    mending: bool = False  # a continuation is queued, or may be, which retries what is due

    @cached_property
    def failures(self) -> list[Task]:
        """Tasks that did not or cannot end well."""
        return [task for task in self.tasks if task.state.bad]

    @cached_property
    def partial(self) -> list[Task]:
        """Tasks that succeeded without some of those upstream."""
        return [task for task in self.tasks if task.state is State.DONE]

    @property
    def total(self) -> Counter[State]:
        """Counts over all nodes."""
        return sum(self.counts.values(), Counter())

    @cached_property
    def awaited(self) -> dict[str, list[str]]:
        """Nodes of which it may yet be known how many tasks they have, and what they wait for."""
        found: dict[str, list[str]] = {}
        for name, node in self.record.nodes.items():
            for above, known in node.awaited:
                counts = self.counts[above]
                if counts[State.DONE] > known or any(state.live for state in counts):
                    found.setdefault(name, []).append(above)
        return found

    @property
    def can_grow(self) -> bool:
        """Whether it can be known now how many tasks some node has."""
        above = {one for names in self.awaited.values() for one in names}
        ended = (not any(state.live for state in self.counts[one]) for one in above)
        return any(ended)

    @property
    def finished(self) -> bool:
        """Whether nothing is left that may still change by itself."""
        grows = self.mending and bool(self.awaited)
        return not (grows or any(state.live for state in self.total))

    @cached_property
    def unreached(self) -> list[Task]:
        """Tasks whose state depends on a scheduler that could not be asked."""
        return [task for task in self.tasks if task.reason is Reason.UNREACHABLE]

    def most(self, tasks: Sequence[Task]) -> Most | None:
        """Find one of some tasks that ran out of the most that the site gives."""
        if not any(task.reason and task.reason.about.raises for task in tasks):
            return None
        from hpcpipe.status.most import find_most  # which reads the site file

        return find_most(self.record, tasks)

    @property
    def trouble(self) -> str:
        """Why a scheduler could not be asked, where the state of a task depends on it."""
        return self.unreached[0].words if self.unreached else ""


def make_report(
    rundir: RunDir, *, fresh: bool = False, now: float | None = None, without: str = ""
) -> Report:
    """Determine the state of every task of the latest run.

    Asks the scheduler only where a file does not tell, and only if its last answer is older than
    the site's ``poll_seconds`` (or ``fresh``). A continuation that counts as done is left out, and
    who stands in for it: ``without``. Raises ResultError where the record is unreadable.
    """
    now = time.time() if now is None else now
    history = _read(rundir, without)
    record = latest_record(rundir, history)
    listings = look_at(rundir, record.nodes)
    pending = pending_tasks(record.nodes, listings)
    instances, places, answer = Instances(history), NOWHERE, SILENCE
    asked, due = None, None
    keys = {name: {*tasks.values()} for name, tasks in pending.items() if tasks}
    if keys or any(node.awaited for node in record.nodes.values()):
        places = find_places(rundir, history, instances, keys, record)
        questions = open_questions(rundir, places, listings, leftover=False)
        waiting = find_continuations(history, instances)
        questions = questions._replace(failed={**questions.failed, **waiting})
        answer = ask(rundir, instances, questions, every=record.poll_seconds, fresh=fresh, now=now)
        if questions.unresolved:  # a task that ended between the two looks has its outcome by now
            listings = look_at(rundir, record.nodes)
        asked = answer.asked if questions.unresolved or questions.doubtful else None
        if any(_may_wait(place, answer) for place in waiting.values()):
            from hpcpipe.status.attempts import Retries

            due = Retries(rundir, record).due
    settle = record.settle_seconds
    alone = _left_alone(record, history) if record.after and due is None else ""
    evidence = Evidence(rundir, record.nodes, listings, places, answer, settle, now, alone, due)
    tasks = [*judge_all(evidence, pending)]
    if due is None and _went_on(rundir, history, tasks, without):
        return make_report(rundir, now=now, without=without)
    if not any(task.state.live for task in tasks):
        from hpcpipe.status.killed import fail_killed

        if fail_killed(rundir, record, history, listings, now - LATE):
            return make_report(rundir, now=now, without=without)
    if any(task.reason is Reason.EXIT for task in tasks):
        from hpcpipe.status.last_words import with_last_words

        tasks = [*with_last_words(rundir, tasks)]
    counts = _count(record, tasks)
    adrift = _adrift(rundir, history, record, tasks)
    return Report(record, counts, tasks, asked, adrift, rundir.folder, due is not None)


def _read(rundir: RunDir, without: str) -> History:
    """Read the ledger as if one continuation and its stand-in had done their work."""
    history = Ledger(rundir.ledger).read()
    for one in [*history.submissions.values()] if without else ():
        if without in (one.batch, one.stands_in_for):
            history.submissions[one.batch] = one._replace(continued=True)
    return history


def _went_on(rundir: RunDir, history: History, tasks: Sequence[Task], without: str) -> bool:
    """Return whether anything was submitted or has ended since a look at the ledger, if it matters.

    A continuation may be in the middle of a submission: the run is in the ledger, its jobs not yet.
    When the queue is asked, it has left, and the run would seem to have finished.
    """
    goes_on = all(task.state.live for task in tasks) and tasks
    if goes_on or not history.continuations():
        return False
    return _read(rundir, without) != history


def _left_alone(record: RunRecord, history: History) -> str:
    """Return why a run that waited for another one was never submitted."""
    mine = [one for one in history.submissions.values() if one.continues and one.run == record.run]
    told = (one.why.removeprefix(NOT_FOLLOWED) for one in mine if one.why.startswith(NOT_FOLLOWED))
    return next(told, f"nothing waits for {record.after} any more, which it was to follow")


def _may_wait(place: Place, answer: Answer) -> bool:
    """Return whether a continuation may be in the queue: it is, or could not be looked for."""
    assert place.id is not None
    unseen = place.submission.time >= answer.asked or place.id.instance in answer.trouble
    return unseen or place.id in answer.live


def _count(record: RunRecord, tasks: Sequence[Task]) -> dict[str, Counter[State]]:
    counts: dict[str, Counter[State]] = {name: Counter() for name in record.nodes}
    for task in tasks:
        counts[task.node][task.state] += 1
    for name, node in record.nodes.items():
        if done := len(node) - counts[name].total():
            counts[name][State.DONE] += done
    return counts


def _adrift(rundir: RunDir, history: History, record: RunRecord, tasks: Sequence[Task]) -> int:
    """Count batches whose submission was interrupted, or that the scheduler did not release."""
    if rundir.is_held():  # its client is about to hand them over
        return 0
    unbegun = record.batches.keys() - history.submissions.keys()
    return len(history.adrift()) + len(left_held(history, tasks)) + len(unbegun)


def left_held(history: History, tasks: Sequence[Task]) -> set[str]:
    """Find batches that were handed over held and are not released, as far as is known.

    By the ledger, or by the queue: a release may have been answered and not carried out.
    """
    by_queue = {
        task.place.batch.id
        for task in tasks
        if task.state is State.HELD and task.place and task.place.submission.held
    }
    return by_queue | {one.batch for one in history.held()}
