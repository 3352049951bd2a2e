"""What earlier runs left that nothing uses any more.

A run is *reached* if it is the latest, is not old, or has tasks that are live or whose state is
unknown. What a reached run has planned is used, and so is every batch that was to make it, whole:
its logs, outcomes and attempts are shown with the task. All other batches of old runs are unused.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from math import inf
from typing import NamedTuple

from hpcpipe.errors import ResultError
from hpcpipe.status.instances import Instances
from hpcpipe.status.places import find_places
from hpcpipe.status.poll import ask
from hpcpipe.status.state import Evidence, judge_all, open_questions, pending_tasks
from hpcpipe.store.ledger import CONTINUATION, History, is_cleaned
from hpcpipe.store.outcomes import Store
from hpcpipe.store.plan import KEY, read_plan
from hpcpipe.store.record import BatchRecord, RunRecord, latest_record, read_record
from hpcpipe.store.rundir import RunDir, age

_LATEST = 3600.0  # seconds within which a job may arrive that was given up; see `submit.recover`


class Unused(NamedTuple):
    """What nothing uses: batches, the keys that only they have, and plans, by digest.

    ``runs`` are those that nobody reaches; ``gone`` those of them that have no other batch.
    ``busy`` are old runs that stay, since tasks of theirs are live or their state is unknown.
    """

    runs: frozenset[int]
    gone: frozenset[int]
    batches: frozenset[str]
    keys: frozenset[str]
    plans: frozenset[str]
    busy: tuple[int, ...] = ()


def find_unused(rundir: RunDir, history: History, older: float) -> Unused:
    """Find what only runs have whose last submission is ``older`` seconds ago.

    Raises ResultError where it cannot be told what a reached run has planned.
    """
    latest = latest_record(rundir, history)
    if latest.run != history.last["run"]:
        raise ResultError(
            f"{rundir.record(history.last['run'])}: missing or damaged, so that nobody knows what "
            "the latest run needs. Nothing was deleted; submit the workflow again first"
        )
    old = _read_old(rundir, history, time.time() - older)
    busy = old.keys() & _find_busy(rundir, history, old, latest.settle_seconds)
    busy |= old.keys() & {one.run for one in history.continuations()}  # which may be queued
    for run in busy:
        del old[run]
    reached = [*_read_reached(rundir, history, old)]
    used = {key for one in reached for key in _planned(rundir, one)}
    kept, unused = _sort(old, history, used)
    kept += [batch for one in reached for batch in one.batches.values()]
    used.update(key for batch in kept for key in _cut(batch.keys))
    keys = {key for batch in unused for key in _cut(batch.keys)} - used
    ids = {batch.id for batch in kept}
    return Unused(
        frozenset(old),
        frozenset(run for run, one in old.items() if ids.isdisjoint(one.batches)),
        frozenset(
            (
                *(batch.id for batch in unused),
                *_without_tasks(history, old),
                *_woken(rundir, history, older),
            )
        ),
        frozenset(key.hex() for key in keys),
        frozenset({one.plan for one in old.values()} - {one.plan for one in reached}),
        tuple(sorted(busy)),
    )


def _read_old(rundir: RunDir, history: History, before: float) -> dict[int, RunRecord]:
    """Read the records of old runs, as far as they can be read, and of those cleaned before."""
    last = history.last["run"]
    facts = {one["run"]: one for one in history.runs}
    young = {run for run, one in facts.items() if not is_cleaned(one) and _time(one) >= before}
    for one in history.submissions.values():
        recent = max(each.time for each in (one.last_try, *one.given_up)) > time.time() - _LATEST
        if one.time >= before or (recent and (one.given_up or not one.job)):
            young.add(one.run)
    young -= {run for run, one in facts.items() if is_cleaned(one)}
    old: dict[int, RunRecord] = {}
    for run in rundir.records():
        if run < last and run not in young:
            with suppress(ResultError):  # `_read_reached` raises it, unless all of it was deleted
                old[run] = read_record(rundir, run)
    return old


def _time(facts: Mapping[str, float]) -> float:
    return facts.get("time", 0.0)  # of one whose line was lost, only submissions are known


def _read_reached(
    rundir: RunDir, history: History, old: Mapping[int, RunRecord]
) -> Iterator[RunRecord]:
    for facts in history.runs:
        if facts["run"] not in old and not is_cleaned(facts):
            yield read_record(rundir, facts["run"])


def _planned(rundir: RunDir, record: RunRecord) -> Iterator[bytes]:
    """Yield the keys that a run has planned; raises PlanDamaged where they are not known."""
    for node in read_plan(rundir, record.plan).nodes.values():
        yield from _cut(node.keys)


def _without_tasks(history: History, old: Mapping[int, RunRecord]) -> Iterator[str]:
    """Yield what old runs submitted that ran no tasks, and has nothing left to do."""
    mine = (one for one in history.submissions.values() if one.run in old)
    return (one.batch for one in mine if not one.has_tasks)


def _woken(rundir: RunDir, history: History, older: float) -> Iterator[str]:
    """Yield continuations that a task has called for, which are not in the ledger, and are over.

    None has a log that is written to, or waits to begin.
    """
    paths = (*rundir.batches.glob(f"{CONTINUATION}*"), *rundir.logs.glob(f"{CONTINUATION}*"))
    ages: dict[str, float] = {}
    for path in paths:
        name = path.name.partition(".")[0]
        ages[name] = min(age(path), ages.get(name, inf))
    least = max(older, _LATEST)
    yield from (one for one in ages if ages[one] > least and one not in history.submissions)


def _cut(keys: bytes) -> Iterator[bytes]:
    return (keys[at : at + KEY] for at in range(0, len(keys), KEY))


def _sort(
    old: Mapping[int, RunRecord], history: History, used: set[bytes]
) -> tuple[list[BatchRecord], list[BatchRecord]]:
    """Sort the batches of old runs into those that are used and those that are not."""
    kept: list[BatchRecord] = []
    unused: list[BatchRecord] = []
    for record in old.values():
        for batch in record.batches.values():
            stays = batch.id in history.submissions and not used.isdisjoint(_cut(batch.keys))
            (kept if stays else unused).append(batch)
    return kept, unused


def _find_busy(
    rundir: RunDir, history: History, old: Mapping[int, RunRecord], settle: float
) -> set[int]:
    """Find runs with elements in a queue, or tasks that are live or of unknown state."""
    if not old:
        return set()
    instances = Instances(history)
    places = find_places(rundir, history, instances)
    store = Store(rundir)
    names = {node for record in old.values() for node in record.nodes}
    names |= {node for node, _ in places.of}
    listings = store.has(names)
    questions = open_questions(rundir, places, listings, leftover=True)
    now = time.time()
    answer = ask(rundir, instances, questions, every=0, fresh=True, now=now)
    if questions.unresolved:
        listings = store.has(names)
    everywhere = (*places.of.values(), *(one for some in places.earlier.values() for one in some))
    busy = {place.submission.run for place in everywhere if place.id in answer.live}
    for record in old.values():
        evidence = Evidence(rundir, record.nodes, listings, places, answer, settle, now)
        tasks = judge_all(evidence, pending_tasks(record.nodes, listings))
        busy |= {
            task.place.submission.run
            for task in tasks
            if task.place and (task.under_way or task.state.live)
        }
    return busy
