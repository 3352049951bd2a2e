"""Plan → submissions: everything with the scheduler, nothing twice, whenever we are killed.

The order of events is the whole point. Under the run's lock: what an earlier client left behind is
adopted; the plan, the task files and the scripts are on disk before anything is submitted; the
*intent* to submit a batch, with its token, is on disk before the command runs, and the job id right
after. Batches that wait for no other are submitted held, and released when the last id is on disk:
no job can end, or be forgotten by the scheduler, while jobs that depend on it are submitted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from hpcpipe.errors import ResultError, SchedulerError, SchedulerUnavailable
from hpcpipe.schedulers.base import Scheduler
from hpcpipe.store.ledger import Ledger, Submission
from hpcpipe.store.record import RunRecord, read_record
from hpcpipe.submit.continuation import drop, follow, follow_up, is_wanted
from hpcpipe.submit.files import make_record, write_files
from hpcpipe.submit.hand_over import hand_over
from hpcpipe.submit.prepare import Draft, scheduler_options
from hpcpipe.submit.recover import await_end
from hpcpipe.submit.refusal import take_back


def submit_draft(
    draft: Draft, source: Mapping[str, Any], site_name: str, *, mine: str = ""
) -> list[Submission]:
    """Hand a draft over. The caller holds the run's lock, and drafted under it.

    ``mine`` is the continuation that does this, if it is not a person.
    Raises SchedulerError where the scheduler refuses; what this submission had begun is cancelled.
    """
    rundir, scheduler = draft.rundir, draft.scheduler
    ledger = Ledger(rundir.ledger)
    record = make_record(draft, source, site_name)
    if not draft.prepared and not draft.superseded and _says_nothing_new(draft, record):
        follow_up(draft, ledger, mine)
        return []
    instance = _instance(scheduler)
    clear_the_way(draft)
    write_files(draft, record)
    ledger.run(
        draft.run,
        site=site_name,
        scheduler=draft.site.scheduler,
        options=scheduler_options(draft.site),
    )
    rundir.asked.unlink(missing_ok=True)  # what the scheduler said before is out of date now
    try:
        jobs = _submit_all(draft, instance, ledger, mine)
    except SchedulerUnavailable as error:
        where = "with the scheduler" + ", held" * scheduler.capabilities.hold
        known = ledger.read().submissions
        count = sum(known[p.id].job is not None for p in draft.prepared if p.id in known)
        raise SchedulerUnavailable(
            f"{error}\n{count} of {draft.calls} batches are {where}; "
            "nothing is lost: the same command again goes on from here"
        ) from error
    except SchedulerError as error:
        raise take_back(draft, ledger, error) from error
    return jobs


def _instance(scheduler: Scheduler) -> str:
    """Name the scheduler first of all: without that nobody could look for a job later."""
    try:
        return scheduler.instance()
    except SchedulerUnavailable as error:
        raise SchedulerUnavailable(
            f"{error}\nNothing was submitted; the same command again goes on from here"
        ) from error


def _submit_all(draft: Draft, instance: str, ledger: Ledger, mine: str) -> list[Submission]:
    """Submit every batch, and release those that wait for no other when all have their id."""
    jobs: list[str] = []
    held: dict[str, str] = {}  # by batch
    for prepared in draft.prepared:
        if jobs:
            _keep_pace(draft)
        first = not any(isinstance(wait.on, int) for wait in prepared.batch.waits)
        hold = first and draft.scheduler.capabilities.hold
        jobs.append(hand_over(draft, instance, prepared, jobs, ledger, held=hold))
        if hold:
            held[prepared.id] = jobs[-1]
    _cancel_strays(draft, ledger)
    replaced = follow(draft, instance, jobs, ledger, mine) if is_wanted(draft) else []
    draft.scheduler.release([*held.values()])
    left = _release_left(draft, ledger)
    ledger.released([*left, *held])
    drop(draft.scheduler, replaced, ledger)  # not before: one of them might have to release these
    if not draft.prepared:
        follow_up(draft, ledger, mine)
    submissions = ledger.read().submissions
    return [submissions[prepared.id] for prepared in draft.prepared]


def clear_the_way(draft: Draft) -> None:
    """Cancel what must not go on beside this submission, and wait until it has left the queue.

    Raises SchedulerError where it stays there, SchedulerUnavailable where it cannot be asked.
    """
    by_instance: dict[str, list[str]] = {}
    for one in draft.superseded:
        by_instance.setdefault(one.instance, []).append(one.spelled)
    for instance, elements in by_instance.items():
        scheduler = draft.instances.reach(instance)
        scheduler.cancel(elements)
        await_end(scheduler, elements)


def _says_nothing_new(draft: Draft, record: RunRecord) -> bool:
    """Return whether the last run planned the same tasks, and left nothing to be released."""
    if not draft.history.runs or draft.history.held() or draft.standing.left_held:
        return False
    try:
        last = read_record(draft.rundir, draft.history.last["run"])
    except ResultError:
        return False
    if last.after != record.after:
        return False
    before = {name: (node.keys, set(node.done)) for name, node in last.nodes.items()}
    return before == {name: (node.keys, set(node.done)) for name, node in record.nodes.items()}


def _release_left(draft: Draft, ledger: Ledger) -> list[str]:
    """Release what was left held, one by one: a job that is gone, or runs already, is refused.

    Left by a client that was killed before it released them, or by a release that did nothing. What
    is with a scheduler that does not answer here is left to whoever submits where it does: else
    two schedulers with such jobs would each wait for the other's.
    """
    batches = {one.batch for one in draft.history.held()} | draft.standing.left_held
    submissions = ledger.read().submissions
    released = []
    for batch in sorted(batches):
        one = submissions[batch]
        try:
            scheduler = draft.instances.reach(one.instance)
        except SchedulerUnavailable:
            continue
        try:
            scheduler.release([one.job] if one.job else [])
        except SchedulerUnavailable:
            raise
        except SchedulerError:
            pass  # the plan was made without it, or it needs no release
        released.append(batch)
    return released


def _cancel_strays(draft: Draft, ledger: Ledger) -> None:
    """Cancel jobs of tries that were given up, in case they arrived after all."""
    mine = {prepared.id for prepared in draft.prepared}
    known = ledger.read().submissions
    tokens = {one.token for batch in mine for one in known[batch].given_up}
    draft.scheduler.cancel([*draft.scheduler.find(tokens).values()])


def _keep_pace(draft: Draft) -> None:
    """Wait between two submit commands, where the site wants no more than some in a minute."""
    if (rate := draft.site.limits.submits_per_minute) is not None:
        time.sleep(60 / rate)
