"""What a submission would do, worked out in full before anything is written or submitted."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hpcpipe.errors import ConfigError, ResultError, SchedulerUnavailable, UsageError
from hpcpipe.graph.workflow import Workflow
from hpcpipe.jobs import Reason, State
from hpcpipe.keys.fates import InFlight, Known
from hpcpipe.keys.file_digest import Files
from hpcpipe.keys.grow import grow
from hpcpipe.keys.plan import Plan, find_fates, freeze
from hpcpipe.planner.batch import Batch, Limits
from hpcpipe.planner.compile import make_batches
from hpcpipe.resources import Resources
from hpcpipe.schedulers import find_adapter, make_scheduler
from hpcpipe.schedulers.base import Scheduler
from hpcpipe.site import Site
from hpcpipe.site.route import Route
from hpcpipe.status.attempts import bad_nodes
from hpcpipe.status.in_flight import Standing, look_patiently
from hpcpipe.status.instances import ElementId, Instances
from hpcpipe.store.ledger import History, Ledger
from hpcpipe.store.plan import Frozen
from hpcpipe.store.record import RunRecord
from hpcpipe.store.rundir import RunDir, read_pickle
from hpcpipe.submit.budget import Bill, make_bill
from hpcpipe.submit.checkpoint import find_checkpoint
from hpcpipe.submit.grown import grown
from hpcpipe.submit.inherited import Inherited, inherit, read_inherited
from hpcpipe.submit.inputs import Facts
from hpcpipe.submit.job_limits import (
    Routes,
    check_jobs,
    make_limits,
    route_batch,
    route_classes,
)
from hpcpipe.submit.mail import check_mail
from hpcpipe.submit.needs import Needs, find_needs, raise_requests
from hpcpipe.submit.options import DEFAULTS, Options
from hpcpipe.submit.render import Job, make_job, render
from hpcpipe.submit.retry import Chosen, limit, only_due
from hpcpipe.submit.run_times import run_times
from hpcpipe.submit.task_file import TaskWriter
from hpcpipe.submit.waking import find_waking
from hpcpipe.submit.windows import Window, open_window


@dataclass(frozen=True, eq=False)
class Prepared:
    """A batch ready to be handed over: its id, where it goes, its script and its task file."""

    batch: Batch
    id: str
    route: Route
    script: str
    tasks: Sequence[bytes]  # in pieces
    inherited: Inherited | None


@dataclass(frozen=True, eq=False)
class Draft:
    """All that a submission would do, with nothing written yet."""

    plan: Plan
    site: Site
    scheduler: Scheduler
    rundir: RunDir
    run: int
    history: History
    prepared: tuple[Prepared, ...]
    limits: Limits
    instances: Instances
    standing: Standing  # of the tasks, before
    file_digests: Mapping[str, Any]  # to be remembered
    needs: Needs  # what tasks turned out to need, to be remembered
    chosen: Chosen | None = None  # the only tasks that it may submit
    continuing: bool = False  # with nobody logged in: see `hpcpipe.submit.continuation`
    options: Options = DEFAULTS
    planned: tuple[Prepared, ...] = ()  # what waits for another run, and
    awaited: tuple[str, ...] = ()  # for which jobs of that
    windows: int = 1  # that all tasks take which have to run, this submission included

    @property
    def since(self) -> int:
        """The run that a person submitted, which this one may continue."""
        before = self.standing.record
        return before.since if self.continuing and before else self.run

    @property
    def notify(self) -> str:
        """How the end of the run is announced; empty if it is not."""
        return _find_notify(self.standing.record, self.site, self.options)

    @property
    def inherited(self) -> Inherited | None:
        """What its tasks inherit."""
        some = (*self.prepared, *self.planned)
        return next((one.inherited for one in some if one.inherited), None)

    @property
    def superseded(self) -> tuple[ElementId, ...]:
        """Elements in the queue that must be gone before anything is submitted."""
        return _in_the_way(self.standing, self.plan)

    @property
    def routed(self) -> list[tuple[Batch, Route]]:
        """Every batch with where it goes."""
        return [(one.batch, one.route) for one in self.prepared]

    @property
    def bill(self) -> Bill:
        """What it costs at worst."""
        return make_bill(self.routed)

    @property
    def calls(self) -> int:
        """How many submit commands it takes."""
        return len(self.prepared)

    @property
    def files(self) -> int:
        """How many files it will leave: of each element an outcome and a log; of each batch two."""
        elements = sum(one.batch.elements for one in self.prepared)
        return 2 * (elements + len(self.prepared) + 1) + len(self.plan.nodes) if elements else 0

    def jobs(self) -> list[str]:
        """List the ids of the jobs it became, once submitted, in the scheduler's spelling."""
        submissions = Ledger(self.rundir.ledger).read().submissions
        return [submissions[one.id].job or "?" for one in self.prepared]


def draft(
    workflow: Workflow,
    site: Site,
    options: Options = DEFAULTS,
    *,
    kept: Resources | None = None,
    patience: float = 0,
) -> Draft:
    """Prepare a submission. Asks the scheduler at most once, writes nothing.

    ``kept`` are the resources that overrode others in the submission that is retried. ``patience``
    is for how many seconds outcomes that may be on their way are awaited. Raises UsageError where
    the scheduler could not work in the run's folder, ConfigError where the site cannot take what
    it would get.
    """
    rundir = RunDir(workflow.folder)
    files = Files(workflow.files, read_pickle(rundir.files))
    resources = (options.resources or Resources()).over(kept or Resources())
    frozen = freeze(workflow, files, resources)
    _warn_of_missing([*files.missing])
    made = draft_plan(frozen, rundir, site, options, seen=files.seen, kept=kept, patience=patience)
    return replace(made, file_digests=files.known)


def draft_plan(
    frozen: Frozen,
    rundir: RunDir,
    site: Site,
    options: Options,
    *,
    seen: Mapping[str, Facts],
    kept: Resources | None = None,
    patience: float = 0,
    chosen: Chosen | None = None,
    barred: Collection[tuple[str, str]] | None = None,
) -> Draft:
    """Prepare the submission of a frozen plan, whose input files were as ``seen``; see `draft`.

    ``chosen`` are its only tasks, if not all. With nobody logged in, only what is due is retried;
    ``barred`` are tasks, by node and key, that are not; None if a person retries.
    """
    scheduler = make_scheduler(site.scheduler, scheduler_options(site))
    _check_path(rundir.folder.resolve(), scheduler)
    _check_nodes(rundir.folder.resolve(), site)
    history = Ledger(rundir.ledger).read()
    frozen = grown(frozen, rundir, chosen) if history.runs else grow(frozen, lambda *_: {})
    instances = Instances(history, scheduler)
    settle = site.limits.settle_seconds
    standing = look_patiently(rundir, frozen.nodes, history, instances, settle, patience)
    _check_lost(standing, rundir)
    needs = find_needs(standing, site)
    stuck = None if barred is None else {*barred}
    raised = raise_requests(needs, frozen, kept, options.resources, site, stuck)
    known = limit(_known(standing, instances.here, raised), frozen, chosen)
    known = known if stuck is None else only_due(known, standing, rundir, stuck)
    plan = find_fates(frozen, known, options.resources, kept)
    run, before = history.next_run, standing.record
    check_mail(_find_notify(before, site, options), scheduler)
    routes = route_classes(plan, site)
    window = _window(plan, routes, site, scheduler, standing, options)
    plan, limits = window.plan, window.limits
    seconds = partial(run_times, plan, rundir, history)
    batches = make_batches(plan, scheduler.capabilities, limits, seconds)
    writer = TaskWriter(plan, rundir, run, settle, seen, standing.elsewhere)
    inherited = _inherited(site, rundir, before if barred is not None else None)
    excluded = tuple(bad_nodes(before.attempts)) if before else ()
    warns = scheduler.capabilities.warns
    prepare = partial(
        _prepare, writer, routes, site, frozen, inherited, excluded, window.count, warns
    )
    prepared = tuple(prepare(batch, place) for place, batch in enumerate(batches))
    check_jobs([(one.batch, one.route) for one in prepared], site)
    return Draft(
        plan, site, scheduler, rundir, run, history, prepared, limits, instances, standing, {},
        needs.known, chosen, barred is not None, options, windows=window.count,
    )  # fmt: skip


def _find_notify(before: RunRecord | None, site: Site, options: Options) -> str:
    usual = before.notify if before else site.defaults.notify or ""
    return usual if options.notify is None else options.notify


def _window(
    plan: Plan,
    routes: Routes,
    site: Site,
    scheduler: Scheduler,
    standing: Standing,
    options: Options,
) -> Window:
    """Decide what is submitted now, where a site takes only so many jobs at a time."""
    arrays = scheduler.capabilities.arrays
    live = partial(_count_live, standing, scheduler)

    def make(times: int) -> Limits:
        return make_limits(plan, routes, site, arrays=arrays, calls=options.calls, times=times)

    return open_window(plan, make(1), routes, site, live, make)


def _count_live(standing: Standing, scheduler: Scheduler) -> Counter[str | None]:
    """Count elements in the queue, in all and of this run's by queue; also those of other runs."""
    under_way = [one.place for one in standing.tasks.values() if one.under_way and one.place]
    mine = {place.id: place.batch.queue for place in under_way if place.id}
    live: Counter[str | None] = Counter(queue for queue in mine.values() if queue)
    live[None] = max(len(mine), scheduler.count() or 0)
    return live


def _check_path(folder: Path, scheduler: Scheduler) -> None:
    if found := re.search(scheduler.capabilities.no_path, str(folder)):
        raise UsageError(
            f"{folder}: {scheduler.name} gives {found[0]!r} in a path a meaning of its own; "
            "choose a base_dir without it"
        )


def _check_nodes(folder: Path, site: Site) -> None:
    """Raise where no compute node could write to the run's folder."""
    if not site.nodes.common:
        raise ConfigError(
            f"site {site.name!r}: its nodes share no filesystem with this machine, "
            "and hpcpipe finds its results nowhere else"
        )
    if not site.nodes.home and folder.is_relative_to(Path.home().resolve()):
        place = site.scratch.common or "a common folder outside it"
        raise UsageError(
            f"{folder}: the nodes of site {site.name!r} cannot write to the home folder; "
            f"choose a base_dir below {place}"
        )


def _warn_of_missing(paths: Sequence[str]) -> None:
    """Name input files that are not there: a task may be about to make them, or fail."""
    if paths:
        logging.getLogger(__name__).warning(
            "No such file: %s. A task that reads it will fail.", some(paths)
        )


def scheduler_options(site: Site) -> dict[str, Any]:
    """Return the options of the site that its adapter takes."""
    own = vars(site.table(site.scheduler) or SimpleNamespace())
    return find_adapter(site.scheduler).taken(own | {"cancels": site.limits.cancels})


def _prepare(
    writer: TaskWriter,
    routes: Routes,
    site: Site,
    frozen: Frozen,
    inherited: Inherited | None,
    excluded: tuple[str, ...],
    windows: int,
    warns: bool,
    batch: Batch,
    place: int,
) -> Prepared:
    where = route_batch(batch, routes, site)
    tasks = sum(map(len, frozen.nodes.values()))
    waking = find_waking(site, where.resources, batch.elements, windows, tasks)
    checkpoint = find_checkpoint(where.resources, warns=warns)
    taskfile = writer.write(batch, waking, checkpoint)
    job: Job = make_job(
        batch,
        taskfile.batch,
        where,
        site,
        frozen.workflow,
        frozen.cwd,
        place,
        frozen.executable,
        sums=taskfile.sums,
        inherited=inherited,
    )
    known = replace(job, waking=waking, excluded=excluded, checkpoint=checkpoint)
    script = render(known, site)
    return Prepared(batch, taskfile.batch, where, script, taskfile.content, inherited)


def _inherited(site: Site, rundir: RunDir, before: RunRecord | None) -> Inherited | None:
    """Return what tasks inherit: of this shell, or what those of an earlier run inherited."""
    if not site.environment.inherit:
        return None
    if before is None:
        return inherit(tuple(os.environ.items()))
    return read_inherited(rundir, before.inherited)


def _known(
    standing: Standing, instance: str, raised: Mapping[str, Mapping[str, Resources]]
) -> dict[str, Known]:
    """Sort what is known of the plan's tasks by what it means for a submission to an instance."""
    in_flight: dict[str, dict[str, InFlight]] = {name: {} for name in standing.listings}
    doubt: dict[str, set[str]] = {name: set() for name in standing.listings}
    for (name, key), task in standing.tasks.items():
        if not task.under_way or task.state is State.CANCELLED:
            continue  # one that is cancelled runs again, once its job has ended
        if task.state is State.UNKNOWN or task.place is None or task.place.id is None:
            doubt[name].add(key)
            continue
        batch, index, id_, submission, _ = task.place
        in_flight[name][key] = InFlight(
            batch.id,
            submission.job or "",
            index,
            batch.pack(index),
            element=id_,
            begun=task.state not in (State.QUEUED, State.HELD),
            listed=submission.instance == instance,
        )
    return {
        name: Known(listing.succeeded, in_flight[name], raised.get(name, {}), doubt[name])
        for name, listing in standing.listings.items()
    }


def _in_the_way(standing: Standing, plan: Plan) -> tuple[ElementId, ...]:
    """Find elements in the queue that must be gone before anything is submitted.

    What can never start, what was cancelled and is still ending, what is replaced, and what is
    queued for a task whose code or inputs were changed since.
    """
    replaced = [one for one in plan.replaced if isinstance(one, ElementId)]
    stale = [one.id for one in standing.stale]
    return tuple(dict.fromkeys((*standing.in_vain, *replaced, *stale)))


def running_stale(standing: Standing) -> list[str]:
    """Name the tasks that run by an earlier version of what would be submitted."""
    return [one.name for one in standing.stale if one.running]


def some(names: Sequence[str]) -> str:
    """List the first of some names."""
    return " ".join(names[:3]) + " …" * (len(names) > 3)


def check_reached(draft: Draft) -> None:
    """Raise SchedulerUnavailable if nothing can be done, as a scheduler cannot be asked."""
    unknown = [t for t in draft.standing.tasks.values() if t.reason is Reason.UNREACHABLE]
    held = draft.standing.left_held or draft.history.held()
    if unknown and not (draft.prepared or draft.superseded or held):
        count = len(unknown)
        tasks = "1 task stands" if count == 1 else f"{count} tasks stand"
        raise SchedulerUnavailable(
            f"{unknown[0].words}\nNothing was submitted, as it is not known how {tasks}"
        )


def check_stale(draft: Draft) -> None:
    """Raise UsageError where a submission would cancel tasks that run."""
    if running := running_stale(draft.standing):
        many = len(running) > 1
        raise UsageError(
            f"{some(running)}: {'run' if many else 'runs'} now, as "
            f"{'they were' if many else 'it was'} "
            "submitted before the code or inputs were changed. Nothing was submitted. Wait, or "
            "cancel what runs and submit the new version: --replace"
        )


def _check_lost(standing: Standing, rundir: RunDir) -> None:
    if standing.lost_jobs:
        raise ResultError(
            f"{rundir.plans}: the record of an earlier run is missing or damaged, and its jobs "
            f"{' '.join(standing.lost_jobs)} are still in the queue: nobody can tell which tasks "
            "they run. Wait until they have ended, or cancel them: hpcpipe cancel"
        )
