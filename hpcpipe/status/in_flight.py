"""What a plan must know of what was submitted before: what may run again, and what may not.

The same rules as for a report, over all tasks that were ever submitted and all that are planned.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from hpcpipe.errors import ResultError, SchedulerUnavailable
from hpcpipe.jobs import State
from hpcpipe.status.instances import ElementId, Instances
from hpcpipe.status.places import NOWHERE, Place, Places, find_places
from hpcpipe.status.poll import LOOK, SILENCE, Answer, Questions, ask
from hpcpipe.status.relied import look_at
from hpcpipe.status.report import left_held
from hpcpipe.status.state import Evidence, Task, judge_all, open_questions, pending_tasks
from hpcpipe.store.ledger import History
from hpcpipe.store.outcomes import Listing
from hpcpipe.store.plan import NodeRecord
from hpcpipe.store.record import RunRecord, latest_record, read_record
from hpcpipe.store.rundir import RunDir
from hpcpipe.worker.outcome import result_path


class Stale(NamedTuple):
    """An element in the queue for a task of this name whose code or inputs were changed since."""

    name: str
    id: ElementId
    running: bool


@dataclass(frozen=True, eq=False)
class Standing:
    """The state of planned tasks. ``tasks`` are those that have not succeeded, by node and key.

    ``replaced`` are tasks of the latest run, ``record``, that have other keys in this plan.
    """

    record: RunRecord | None = None
    replaced: tuple[Task, ...] = ()
    listings: Mapping[str, Listing] = field(default_factory=dict)  # of planned nodes
    tasks: Mapping[tuple[str, str], Task] = field(default_factory=dict)
    in_vain: tuple[ElementId, ...] = ()  # in the queue: can never start, or is cancelled and ending
    stale: tuple[Stale, ...] = ()
    left_held: frozenset[str] = frozenset()  # batches that an earlier client did not release
    lost_jobs: tuple[str, ...] = ()  # in the queue, and nobody knows what tasks they run
    places: Places = NOWHERE
    answer: Answer = SILENCE

    def ended(self, node: str, key: str, *, again: bool) -> set[str]:
        """Return the batches whose jobs of a task have ended, by their scheduler's word.

        One that is lost may not have ended, nor one whose scheduler cannot be asked now. The last
        one has if the task runs ``again``, which it must not before.
        """
        task = self.tasks.get((node, key))
        last = task and task.under_way and not again and task.place
        places = [place for place in self._places(node, key) if place is not last]
        return {place.batch.id for place in places if not self._may_go_on(task, place)}

    def elsewhere(self, node: str, key: str) -> list[str]:
        """Name the results that earlier jobs of a task, which is submitted again, may still make.

        An element that goes on with other tasks may be requeued, and what is lost may turn up. A
        result that is there and does not count (damaged, or its file gone or changed) is left out.
        """
        listing = self.listings.get(node)
        if listing is None or key in listing.damaged or key in listing.amiss:
            return []
        task = self.tasks.get((node, key))
        places = [one for one in self._places(node, key) if self._may_go_on(task, one)]
        packs = [place.batch.pack(place.array_index) for place in places]
        return [f"{pack}#{key}" if pack else result_path(node, key) for pack in packs]

    def _places(self, node: str, key: str) -> list[Place]:
        task = self.tasks.get((node, key))
        if task is None or task.place is None:
            return []
        return [*self.places.earlier.get((node, key), ()), task.place]

    def _may_go_on(self, task: Task | None, place: Place) -> bool:
        lost = task is not None and task.state is State.LOST and place is task.place
        answer = self.answer
        return lost or place.id in answer.live or place.submission.instance in answer.trouble


def look(
    rundir: RunDir,
    nodes: Mapping[str, NodeRecord],
    history: History,
    instances: Instances,
    settle: float,
) -> Standing:
    """Find out how the tasks of a plan stand. Asks each scheduler at most once."""
    if not history.runs:
        return Standing()
    record = None
    with suppress(ResultError):
        record = latest_record(rundir, history)
    places = find_places(rundir, history, instances, latest=record)
    names = {*nodes, *(record.nodes if record else ()), *(node for node, _ in places.of)}
    listings = look_at(rundir, nodes, names)
    pending = pending_tasks(nodes, listings)
    questions = open_questions(rundir, places, listings, leftover=True)
    now = time.time()
    answer = ask(rundir, instances, questions, every=0, fresh=True, now=now)
    if questions.unresolved:  # a task that ended between the two looks has its outcome by now
        listings = look_at(rundir, nodes, names)
    evidence = Evidence(rundir, nodes, listings, places, answer, settle, now)
    tasks = [*judge_all(evidence, pending)]
    return Standing(
        record,
        tuple(_replaced(record, evidence, pending)) if record else (),
        {name: listings[name] for name in nodes},
        {(task.node, task.key): task for task in tasks},
        tuple(_in_vain(questions, answer)),
        tuple(_stale(rundir, nodes, places, evidence, pending)),
        frozenset(left_held(history, tasks)),
        tuple(_lost_jobs(history, places.unreadable, instances)),
        places,
        answer,
    )


def look_patiently(
    rundir: RunDir,
    nodes: Mapping[str, NodeRecord],
    history: History,
    instances: Instances,
    settle: float,
    patience: float,
) -> Standing:
    """Look as `look` does, again and again while that may show more, for ``patience`` seconds."""
    give_up = time.monotonic() + patience
    logged = False
    while True:
        standing = look(rundir, nodes, history, instances, settle)
        passing = sum(one.passing for one in standing.tasks.values())
        # Those of another version, too, if their elements are still listed.
        passing += sum(one.passing for one in standing.replaced if one.status)
        if not passing or time.monotonic() >= give_up:
            return standing
        if not logged:
            _log(passing, patience)
            logged = True
        time.sleep(LOOK)


def _log(count: int, seconds: float) -> None:
    import logging

    tasks = "1 task" if count == 1 else f"{count} tasks"
    words = "Waiting up to %.0f s for %s whose job has just ended: the outcome may be on its way."
    logging.getLogger(__name__).warning(words, seconds, tasks)


def _replaced(
    record: RunRecord, evidence: Evidence, pending: Mapping[str, Mapping[int, str]]
) -> Iterator[Task]:
    """Judge the tasks of the latest run that are planned, if at all, under another key now."""
    planned = {(name, key) for name, tasks in pending.items() for key in tasks.values()}
    if evidence.places.of.keys() <= planned:
        return
    before = {
        name: {index: key for index, key in tasks.items() if (name, key) not in planned}
        for name, tasks in pending_tasks(record.nodes, evidence.listings).items()
    }
    yield from judge_all(replace(evidence, nodes=record.nodes), before)


def _in_vain(questions: Questions, answer: Answer) -> Iterator[ElementId]:
    places = {**questions.unresolved, **questions.failed}
    for one, status in answer.live.items():
        if status.state is State.BLOCKED or (one in places and places[one].cancelled):
            yield one


def _stale(
    rundir: RunDir,
    nodes: Mapping[str, NodeRecord],
    places: Places,
    evidence: Evidence,
    pending: Mapping[str, Mapping[int, str]],
) -> Iterator[Stale]:
    """Find elements in the queue under the name of a planned task, but with another key.

    Their results are of no use, and they would write into the same working folders. Tasks under
    other names are left alone: they may be wanted.
    """
    planned: dict[str, set[str]] = {}
    labels: dict[str, set[str]] = {}
    records: dict[int, RunRecord] = {}
    for (name, key), place in places.of.items():
        status = evidence.answer.live.get(place.id) if place.id else None
        if status is None or place.id is None or name not in nodes:
            continue
        if name not in planned:
            planned[name] = {*pending[name].values()}
            labels[name] = {nodes[name].label(index) for index in range(len(nodes[name]))}
        if key in planned[name] or key in evidence.listings[name].succeeded:
            continue
        run = place.submission.run
        if run not in records:
            records[run] = read_record(rundir, run)
        before = records[run].nodes[name]
        label = before.label(before.index(key))
        if label in labels[name]:
            running = status.state not in (State.QUEUED, State.HELD, State.BLOCKED)
            yield Stale(before.task(before.index(key)), place.id, running)


def _lost_jobs(history: History, runs: Collection[int], instances: Instances) -> Iterator[str]:
    """Find jobs of runs whose record is lost that may still be live: nobody knows their tasks."""
    by_instance: dict[str, list[str]] = {}
    for one in history.submissions.values():
        if one.run in runs and one.job and not one.cancelled:
            by_instance.setdefault(one.instance, []).append(one.job)
    for instance, jobs in by_instance.items():
        try:
            adapter = instances.reach(instance)
            yield from (job for job in jobs if adapter.poll([job]))
        except SchedulerUnavailable:
            yield from jobs
