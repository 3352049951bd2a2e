"""What has become of a task: the rules, over what was submitted, said by schedulers, and on disk.

The file has the outcome, the queue shows liveness, silence proves nothing. All that asks how a run
stands or what may run again, `plan`, `submit`, `status`, `watch`, `cancel`, `retry`, the executor
and the nipype plugin, goes by what is concluded here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from hpcpipe.jobs import JobEnd, JobStatus, Reason, State
from hpcpipe.status.diagnose import DAMAGED, from_end, from_outcome, own_words, setup_words
from hpcpipe.status.instances import ElementId
from hpcpipe.status.places import Place, Places
from hpcpipe.status.poll import LATE, Answer, Questions
from hpcpipe.store.outcomes import Listing, Store
from hpcpipe.store.plan import NodeRecord
from hpcpipe.store.rundir import RunDir
from hpcpipe.worker.outcome import NO_ENVIRONMENT, NOT_STARTED

BLOCKED_BY = "waits for "  # then the task's name
WITHOUT = "without "  # then the names of those that it went on without
DOUBTFUL = (9, 14, 15)  # signals that tell an end but not its cause: memory, time, a person


class Task(NamedTuple):
    """What is known of one task that has not succeeded."""

    node: str
    label: str
    key: str
    state: State
    reason: Reason | None = None
    words: str = ""  # the error, or why it waits
    place: Place | None = None
    outcome: Mapping[str, Any] = MappingProxyType({})
    end: JobEnd | None = None
    status: JobStatus | None = None  # of its element, while the queue lists that

    @property
    def name(self) -> str:
        """Name it as people do."""
        return f"{self.node}/{self.label}" if self.label else self.node

    @property
    def missing(self) -> str:
        """Name the tasks that it succeeded without; empty if it did not, or has all."""
        return self.words.removeprefix(WITHOUT) if self.state is State.DONE else ""

    @property
    def under_way(self) -> bool:
        """Whether it may still succeed, or disturb a second start of it, without more being done.

        Such a task never runs again: that is what is live or unknown, or cancelled and still
        ending. A task of a pack that failed is not, though others of its element go on.
        """
        if self.place is None or self.place.submission.refused:
            return False
        if self.status is None:
            return self.state is State.UNKNOWN
        ended_in_pack = self.state is State.FAILED and self.place.batch.starts is not None
        return self.status.state is not State.BLOCKED and not ended_in_pack

    @property
    def passing(self) -> bool:
        """Whether it will soon be known how it stands: its job has ended, or is about to."""
        if self.place is None or self.place.id is None or self.reason is Reason.UNREACHABLE:
            return False
        ends = self.state is State.UNKNOWN and (self.status is None or bool(self.outcome))
        return ends or (self.state is State.FAILED and self.under_way)


Conclusion = tuple[State, Reason | None, str, Mapping[str, Any]]


def pending_tasks(
    nodes: Mapping[str, NodeRecord], listings: Mapping[str, Listing]
) -> dict[str, dict[int, str]]:
    """Find the tasks that have not succeeded: indices and keys, by node."""
    return {
        name: {
            index: key
            for index, key in enumerate(node.all_keys())
            if key not in listings[name].succeeded and index not in node.done
        }
        for name, node in nodes.items()
    }


def open_questions(
    rundir: RunDir, places: Places, listings: Mapping[str, Listing], *, leftover: bool
) -> Questions:
    """Find out what files leave open about the places of tasks that have not succeeded.

    ``leftover``: also about what may be in a queue in vain: tasks that we cancelled, whose jobs
    may take a while to end, and tasks that were submitted again elsewhere.
    """
    unresolved: dict[ElementId, Place] = {}
    failed: dict[ElementId, Place] = {}
    if leftover:
        several = ((*some, places.of[task]) for task, some in places.earlier.items())
        failed = {place.id: place for some in several for place in some if place.id}
    doubtful: dict[ElementId, Place] = {}
    for (node, key), place in places.of.items():
        listing = listings.get(node)
        if (
            place.id is None
            or place.submission.refused
            or listing is None
            or key in listing.succeeded
        ):
            continue
        if (place.cancelled and not leftover) or place.batch.id in listing.partial.get(key, ()):
            continue
        if place.batch.id not in listing.errors.get(key, ()):
            unresolved[place.id] = place
            continue
        failed[place.id] = place
        if _doubtful(Store(rundir).get(node, key, place.batch.id)):
            doubtful[place.id] = place
    return Questions(unresolved, failed, doubtful)


@dataclass(repr=False, eq=False)  # bare, since each status defines it anew
class Evidence:
    """All that the state of tasks is derived from, at one moment."""

    rundir: RunDir
    nodes: Mapping[str, NodeRecord]
    listings: Mapping[str, Listing]
    places: Places
    answer: Answer
    settle: float  # seconds that the common filesystem may show a file late
    now: float
    alone: str = ""  # why nothing was submitted that was to follow another run
    due: Callable[[Task], bool] | None = None  # is it retried by a continuation that is queued?


def judge_all(evidence: Evidence, pending: Mapping[str, Mapping[int, str]]) -> Iterator[Task]:
    """Conclude the state of each pending task; upstream nodes first, since BLOCKED follows."""
    bad: dict[str, dict[int, Task]] = {}  # node → flat index
    again: dict[str, set[int]] = {}  # of these, those of which a retry is due
    for name, node in evidence.nodes.items():
        good = evidence.listings[name].succeeded
        bad[name], again[name] = {}, set()
        for index, key in pending[name].items():
            if key in good:
                continue
            task = _judge(evidence, node, index, key, bad)
            if task.state.bad:
                bad[name][index] = task
                if evidence.due and evidence.due(task) and _may_succeed(node, index, bad, again):
                    again[name].add(index)
                    words = f"{task.reason}, to be retried" + f": {task.words}" * bool(task.words)
                    task = task._replace(state=State.WAITING, words=words)
            yield task


def _may_succeed(
    node: NodeRecord,
    index: int,
    bad: Mapping[str, Mapping[int, Task]],
    again: Mapping[str, Collection[int]],
) -> bool:
    """Return whether all upstream tasks that have not succeeded are retried."""
    return all(
        parent in again[edge.upstream]
        for edge in node.edges
        if bad[edge.upstream]
        for parent in edge.parents(index)
        if parent in bad[edge.upstream]
    )


def _judge(
    evidence: Evidence,
    node: NodeRecord,
    index: int,
    key: str,
    bad: Mapping[str, Mapping[int, Task]],
) -> Task:
    place = evidence.places.of.get((node.name, key))
    end = status = None
    if place is not None and place.id is not None:
        end, status = evidence.answer.ended.get(place.id), evidence.answer.live.get(place.id)
    listing = evidence.listings[node.name]
    failed = place is not None and place.batch.id in listing.errors.get(key, ())
    if place is not None and place.batch.id in listing.partial.get(key, ()):
        conclusion: Conclusion = _partial(evidence, node.name, key, place.batch.id)
    elif key in listing.damaged and not (failed or status):
        conclusion = (*DAMAGED, {})
    elif key in listing.amiss and not (failed or status):
        conclusion = (State.LOST, *listing.amiss[key], {})
    elif (few := _too_few(node, index, bad)) and not (status or failed):
        conclusion = State.FAILED, Reason.FEW, few, {}
    elif place is None:
        blocker = _blocker(node, index, bad)
        conclusion = _unsubmitted(evidence, blocker.name if blocker else "")
    elif failed:
        blocker = _blocker(node, index, bad)
        conclusion = _with_outcome(evidence, node.name, key, place, end, status, blocker)
    else:
        blocker, waits = _blocker(node, index, bad), bool(node.edges)
        conclusion = _without_outcome(evidence, place, end, status, blocker, waits)
    state, reason, words, outcome = conclusion
    label = node.label(index)
    return Task(node.name, label, key, state, reason, words, place, outcome, end, status)


def _partial(evidence: Evidence, node: str, key: str, batch: str) -> Conclusion:
    """Conclude about a task that went on without some of those upstream."""
    outcome = Store(evidence.rundir).get_partial(node, key, batch)
    words = f"{WITHOUT}{' '.join(names_missing(evidence.nodes, outcome))}"
    return State.DONE, None, words, outcome


def names_missing(nodes: Mapping[str, NodeRecord], outcome: Mapping[str, Any]) -> list[str]:
    """Name the tasks upstream that a task went on without, by its outcome."""
    return [
        above.task(above.index(lost))
        for name, lost in outcome.get("missing", ())
        if (above := nodes.get(name)) and bytes.fromhex(lost) in above.keys
    ]


def _too_few(node: NodeRecord, index: int, bad: Mapping[str, Mapping[int, Task]]) -> str:
    """Return why too few gathered tasks can succeed, if ``at_least`` is out of reach."""
    for edge in node.edges if node.partial else ():
        parents = edge.parents(index)
        lost = [bad[edge.upstream][one].name for one in parents if one in bad[edge.upstream]]
        enough = edge.enough(len(parents))
        if edge.least is not None and len(parents) - len(lost) < enough:
            some = " ".join(lost[:3]) + " …" * (len(lost) > 3)
            have = f"{len(parents) - len(lost)} of {len(parents)}"
            return f"{have} tasks of {edge.upstream} succeeded, {enough} are needed; not {some}"
    return ""


def _unsubmitted(evidence: Evidence, blocker: str) -> Conclusion:
    if blocker:
        return State.BLOCKED, Reason.UPSTREAM, f"{BLOCKED_BY}{blocker}", {}
    if evidence.alone:
        return State.BLOCKED, Reason.BEFORE, evidence.alone, {}
    if evidence.places.unreadable:
        runs = ", ".join(map(str, evidence.places.unreadable))
        return State.WAITING, None, f"not submitted, unless by run {runs}, whose record is lost", {}
    return State.WAITING, None, "not submitted", {}


def _with_outcome(
    evidence: Evidence,
    node: str,
    key: str,
    place: Place,
    end: JobEnd | None,
    status: JobStatus | None,
    blocker: Task | None,
) -> Conclusion:
    """Conclude about a task that left an outcome and has not succeeded."""
    outcome = Store(evidence.rundir).get(node, key, place.batch.id)
    if blocker and "barred" in outcome:  # it did not run in its pack
        if place.cancelled and blocker.state is State.CANCELLED:  # both at once
            return State.CANCELLED, Reason.CANCELLED, place.cancelled, {}
        return State.BLOCKED, Reason.UPSTREAM, f"{BLOCKED_BY}{blocker.name}", {}
    if place.cancelled and _doubtful(outcome):
        return State.CANCELLED, Reason.CANCELLED, place.cancelled, outcome
    if status and _runs_again(evidence, node, key, place.batch.id, status):
        return status.state, None, status.why, outcome
    if _doubtful(outcome) and not (end or _settled(evidence, place, LATE)):
        if trouble := _trouble(evidence, place):  # it may have been requeued, and run
            return State.UNKNOWN, Reason.UNREACHABLE, trouble, outcome
        signal = outcome.get("signal")
        how = f"ended by signal {signal}" if signal else "terminated"
        words = f"{how}; the accounting may say why"
        return State.UNKNOWN, None, words, outcome
    state, reason, words = from_outcome(outcome, end, place.batch)
    return state, reason, words, outcome


def _doubtful(outcome: Mapping[str, Any]) -> bool:
    """Return whether an outcome tells an end whose cause only the accounting knows."""
    return outcome.get("signal") in DOUBTFUL or bool(outcome.get("terminated"))


def _runs_again(evidence: Evidence, node: str, key: str, batch: str, status: JobStatus) -> bool:
    """Return whether an element in the queue was started again since a task of it failed.

    One that waits, by an answer that is younger than the outcome, begins anew when it is started.
    One that runs has claimed the task again, unless it is about to end, or is busy with others.
    """
    if status.state in (State.QUEUED, State.HELD):
        return evidence.answer.asked >= Store(evidence.rundir).written(node, key, batch)
    return status.state is not State.BLOCKED and key in evidence.listings[node].claims


def _without_outcome(
    evidence: Evidence,
    place: Place,
    end: JobEnd | None,
    status: JobStatus | None,
    blocker: Task | None,
    waits: bool,
) -> Conclusion:
    """Conclude about a task that was submitted and left no outcome: the first rule that fits."""
    if place.submission.refused:
        return State.FAILED, Reason.REFUSED, place.submission.why, {}
    if place.cancelled:
        return State.CANCELLED, Reason.CANCELLED, place.cancelled, {}
    if status and status.state is not State.BLOCKED:
        return status.state, None, status.why, {}
    if blocker:
        return State.BLOCKED, Reason.UPSTREAM, f"{BLOCKED_BY}{blocker.name}", {}
    if status:
        return State.FAILED, Reason.REFUSED, status.why, {}
    if place.id is None:
        return State.UNKNOWN, None, "its submission was interrupted", {}
    if end is not None and (end.reason is not None or _settled(evidence, place)):
        state, reason, words = from_end(end, place.batch)
        if end.exit_code == NOT_STARTED:
            log = evidence.rundir.log(place.batch.id, place.array_index)
            words = setup_words(log) or words
        if end.exit_code == NO_ENVIRONMENT:
            log = evidence.rundir.log(place.batch.id, place.array_index)
            words = own_words(log) or words
        # By the scheduler, which names nobody? No upstream has failed, by its outcome.
        if reason is Reason.CANCELLED and waits and " by " not in end.native:
            words += "; what it waits for succeeded, but a job of that may have failed afterwards"
        if reason is Reason.START:
            log = evidence.rundir.log(place.batch.id, place.array_index).absolute()
            words = f"{words} (log: {log})"
        return state, reason, words, {}
    if end is None and (trouble := _trouble(evidence, place)):
        return State.UNKNOWN, Reason.UNREACHABLE, trouble, {}
    if end or not _settled(evidence, place, LATE):
        return State.UNKNOWN, None, "has left the queue; its outcome may be on its way", {}
    return State.LOST, Reason.LOST, "not in the queue, no outcome, no accounting", {}


def _trouble(evidence: Evidence, place: Place) -> str:
    """Return why the scheduler of a place could not be asked; empty if it could."""
    return evidence.answer.trouble.get(place.id.instance, "") if place.id else ""


def _settled(evidence: Evidence, place: Place, least: float = 0) -> bool:
    """Return whether something has been missing for so long that it is not just late."""
    first = evidence.answer.missing.get(place.id) if place.id else None
    return first is not None and evidence.now - first >= max(evidence.settle, least)


def _blocker(node: NodeRecord, index: int, bad: Mapping[str, Mapping[int, Task]]) -> Task | None:
    """Return an upstream task that has not succeeded and cannot."""
    for edge in node.edges:
        if edge.least is None and (found := bad[edge.upstream]):
            for parent in edge.parents(index):
                if parent in found:
                    return found[parent]
    return None
