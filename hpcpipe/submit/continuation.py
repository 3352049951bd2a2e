"""The continuation: a job in the queue that retries what failed, with nobody logged in.

It waits, by dependencies, until all jobs of a submission have ended, and then does what ``hpcpipe
retry`` does, for tasks of which a retry is due. Its stand-in waits for it, and does the same if it
was killed before it was through. What it submits has a continuation of its own, which replaces
earlier ones that still wait. A task that fails may *wake* one that waits for nothing, so that its
next attempt need not wait for its longest sibling. All of them go by the run's lock, the ledger and
the state of tasks: whoever comes second finds nothing to do.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

from hpcpipe.errors import ConfigError, SchedulerError
from hpcpipe.jobs import After
from hpcpipe.keys.fates import IN_FLIGHT, RUN
from hpcpipe.resources import Resources
from hpcpipe.schedulers import make_scheduler
from hpcpipe.schedulers.base import Scheduler
from hpcpipe.site import Site
from hpcpipe.site.route import Route, route
from hpcpipe.store.ledger import CONTINUATION, MAIL, Ledger, Submission
from hpcpipe.store.plan import Frozen, read_plan
from hpcpipe.store.record import RunRecord
from hpcpipe.store.rundir import RunDir, write_whole
from hpcpipe.submit.hand_over import deliver
from hpcpipe.submit.inherited import Inherited, read_inherited
from hpcpipe.submit.mail import Mail
from hpcpipe.submit.prepare import Draft, scheduler_options
from hpcpipe.submit.render import Job, make_continuation, make_mail, render

_MINUTES = 15  # that it requests; it takes seconds
_MEMORY = 1024, 0.02  # MiB that it requests, and more for each task
_FOR_MAIL = Resources(cpus=1, memory=256, time=300)  # a shell that prints some lines
MOST_KILLED = 10  # stand-ins in a row, each for one that did not do its work
REPLACED = "replaced by a later continuation"


class Continuation(NamedTuple):
    """One continuation: its id, whose stand-in it is, and how many before it were killed."""

    id: str
    stands_in_for: str = ""
    nth: int = 0

    def stand_in(self) -> Continuation:
        """Return a new one that stands in for this one."""
        return Continuation(new_id(), self.id, self.nth + 1)


def can_continue(site: Site, scheduler: Scheduler) -> bool:
    """Return whether a continuation may submit jobs from where it runs."""
    return scheduler.capabilities.continues_on_submit_host or site.nodes.may_submit is not False


def is_wanted(draft: Draft) -> bool:
    """Return whether a continuation is to look after a submission while nobody is logged in."""
    return bool(draft.prepared) and _looks_after(draft)


def growing(draft: Draft) -> dict[str, list[str]]:
    """Return the nodes that will return a list which others are mapped over, and these others."""
    found: dict[str, list[str]] = {}
    for name, plan in draft.plan.nodes.items():
        for one, _ in plan.node.awaited:
            if {RUN, IN_FLIGHT} & {*draft.plan.nodes[one].fates}:
                found.setdefault(one, []).append(name)
    return found


def may_retry(draft: Draft) -> bool:
    """Return whether tasks of a submission are to be retried if they fail."""
    return bool(draft.prepared) and _retries(draft)


def _looks_after(draft: Draft) -> bool:
    asked = _follows_all(draft) or bool(growing(draft))
    return asked and can_continue(draft.site, draft.scheduler)


def _follows_all(draft: Draft) -> bool:
    return bool(draft.notify or draft.awaited) or _retries(draft) or draft.windows > 1


def _retries(draft: Draft) -> bool:
    return any(draft.plan.asked(node).attempts is not None for node in draft.plan.nodes.values())


@dataclass(frozen=True)
class Follower:
    """Submits continuations of a run, and the mail at its end, to one instance of a scheduler."""

    rundir: RunDir
    site: Site
    scheduler: Scheduler
    instance: str
    plan: Frozen
    run: int
    inherited: Inherited | None

    @classmethod
    def of(cls, rundir: RunDir, record: RunRecord, site: Site) -> Follower:
        """Return that of a run which was submitted."""
        scheduler = make_scheduler(site.scheduler, scheduler_options(site))
        plan = read_plan(rundir, record.plan)
        inherited = read_inherited(rundir, record.inherited)
        return cls(rundir, site, scheduler, scheduler.instance(), plan, record.run, inherited)

    def submit(self, after: Iterable[str], one: Continuation) -> str:
        """Submit a continuation after jobs, however they end; return its job."""
        waits = [After(job, well=False) for job in after]
        return self._deliver(one.id, self.write(one), waits, stands_in_for=one.stands_in_for)

    def submit_mail(self, name: str, mail: Mail) -> None:
        """Submit the job of a name at whose end the scheduler sends mail."""
        batch, where = mail_of(self.run), _route(self.site, _FOR_MAIL)
        job = make_mail(batch, name, mail, where, self.site, self.plan.workflow)
        self._deliver(batch, self._write(job), ())

    def _deliver(self, batch: str, script: Path, waits: Sequence[After], **facts: str) -> str:
        ledger = Ledger(self.rundir.ledger)
        intend = partial(
            ledger.submitting, batch, self.run, held=False, instance=self.instance, **facts
        )
        return deliver(self.scheduler, script, waits, ledger, intend)

    def submit_both(self, jobs: Iterable[str]) -> None:
        """Submit a continuation of some jobs, and its stand-in."""
        first = Continuation(new_id())
        self.submit([self.submit(jobs, first)], first.stand_in())

    def write(self, one: Continuation) -> Path:
        """Write a continuation's script."""
        least, each = _MEMORY
        memory = least + int(each * sum(map(len, self.plan.nodes.values())))
        where = _route(self.site, Resources(cpus=1, memory=memory, time=_MINUTES * 60))
        words = (one.id, one.stands_in_for, str(one.nth))
        job = make_continuation(
            one.id,
            words,
            where,
            self.site,
            self.plan.workflow,
            self.plan.executable,
            self.inherited,
        )
        return self._write(job)

    def _write(self, job: Job) -> Path:
        script = self.rundir.script(job.id)
        write_whole(script, render(job, self.site).encode("utf-8", "surrogateescape"), 0o500)
        return script


def new_id() -> str:
    """Make up the id of a continuation."""
    return f"{CONTINUATION}{token_hex(4)}"


def mail_of(run: int) -> str:
    """Return the id of the mail at a run's end, of which there is one."""
    return f"{MAIL}{run}"


def follow(
    draft: Draft, instance: str, jobs: Sequence[str], ledger: Ledger, mine: str
) -> list[Submission]:
    """Submit the continuation of a submission; return the earlier ones but ``mine``, to be dropped.

    Those of a run whose end is being told are left alone: they have nothing else left to do. A
    scheduler that refuses it is no reason to refuse the tasks: then a person has to retry.
    """
    told = draft.rundir.told()
    every = ledger.read().continuations()
    earlier = [one for one in every if one.batch != mine and one.run != told]
    follower = _follower(draft, instance)
    try:
        for some in _awaited(draft, instance, jobs):
            follower.submit_both(some)
    except SchedulerError as error:
        if draft.awaited:
            raise
        words = "%s\nNothing goes on in the queue by itself; type hpcpipe retry once all is over."
        logging.getLogger(__name__).warning(words, error)
        return []
    return [one for one in earlier if one.instance == instance]


def _awaited(draft: Draft, instance: str, jobs: Sequence[str]) -> Iterator[list[str]]:
    """Yield the jobs that each continuation waits for.

    Those of the nodes that return a list which others are mapped over; and all, for the rest.
    """
    found: dict[tuple[str, ...], None] = {}
    if _follows_all(draft):
        found[*jobs, *_in_flight(draft, instance)] = None
    for name in growing(draft) if not draft.awaited else ():
        node = draft.plan.nodes[name]
        batches = zip(draft.prepared, jobs, strict=False)
        mine = [job for one, job in batches if node in one.batch.nodes]
        mine += [flying.job for flying in node.in_flight.values() if flying.listed]
        found[tuple(dict.fromkeys(mine))] = None
    yield from (list(some) for some in found if some)


def follow_up(draft: Draft, ledger: Ledger, mine: str) -> None:
    """Submit a continuation of what is in the queue where an interrupted submission left none.

    Also one that waits for another run.
    """
    instance = draft.scheduler.instance() if draft.awaited else draft.instances.here
    wanted = _looks_after(draft) and _in_flight(draft, instance)
    if wanted and not _is_followed(draft, instance, ledger, mine):
        drop(draft.scheduler, follow(draft, instance, [], ledger, mine), ledger)


def _is_followed(draft: Draft, instance: str, ledger: Ledger, mine: str) -> bool:
    """Return whether a continuation other than ``mine`` is in the queue, with its stand-in."""
    jobs = {
        one.batch: (one.job or "", one.stands_in_for)
        for one in ledger.read().continuations()
        if one.instance == instance and not (mine and mine in (one.batch, one.stands_in_for))
    }
    live = draft.scheduler.poll([job for job, _ in jobs.values()])
    return any(
        first in jobs and {job, jobs[first][0]} <= live.keys() for job, first in jobs.values()
    )


def _follower(draft: Draft, instance: str) -> Follower:
    record = draft.standing.record
    inherited = draft.inherited
    if not (draft.prepared or draft.planned) and record:
        inherited = read_inherited(draft.rundir, record.inherited)
    run = Ledger(draft.rundir.ledger).read().last["run"]  # not the draft's, if that became none
    frozen = draft.plan.frozen
    return Follower(draft.rundir, draft.site, draft.scheduler, instance, frozen, run, inherited)


def drop(scheduler: Scheduler, some: Sequence[Submission], ledger: Ledger) -> None:
    """Cancel continuations that have nothing left to do."""
    if some:
        scheduler.cancel([one.job for one in some if one.job])
        ledger.cancelled([one.batch for one in some], REPLACED)


def _in_flight(draft: Draft, instance: str) -> list[str]:
    """List the jobs of earlier submissions that have tasks in the queue which have not succeeded.

    The answer alone may be an old one: the queue is not asked about tasks that have succeeded.
    """
    live = [task.place for task in draft.standing.tasks.values() if task.status and task.place]
    jobs = {one.submission.job: None for one in live if one.submission.instance == instance}
    return [*draft.awaited, *(job for job in jobs if job)]


def _route(site: Site, asked: Resources) -> Route:
    """Choose where a job of ours runs; raises ConfigError where the site has no place for it."""
    try:
        return route(asked, site)
    except ConfigError:
        return route(Resources(), site)
