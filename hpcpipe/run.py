"""Submit a workflow from Python, wait for its run, and load its results.

All state of a run is in its folder. A `Run` only refers to it: any number of clients can have one,
and ``Run(folder)`` equals the one that `submit` returned.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shlex import join, quote
from typing import TYPE_CHECKING, Any

from hpcpipe.errors import (
    PlanDamaged,
    ResultError,
    SchedulerUnavailable,
    TasksFailed,
    UsageError,
    near,
)
from hpcpipe.status.report import Report, make_report
from hpcpipe.store.outcomes import Store
from hpcpipe.store.recent import remember, suggested
from hpcpipe.store.record import RunRecord, latest_record
from hpcpipe.store.rundir import RunDir
from hpcpipe.submit.options import DEFAULTS, Options

if TYPE_CHECKING:
    from hpcpipe.graph.node import Node
    from hpcpipe.graph.workflow import Workflow
    from hpcpipe.resources import Resources
    from hpcpipe.site import Site
    from hpcpipe.site.load import Loaded
    from hpcpipe.submit.prepare import Draft


class Run:
    """The run of a workflow in its folder, ``<base_dir>/<workflow>``.

    Raises UsageError if nothing was ever submitted there.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.rundir = RunDir(Path(folder))
        if not self.rundir.exists:
            raise UsageError(f"{folder}: nothing was submitted here; try hpcpipe submit FILE")

    @property
    def record(self) -> RunRecord:
        """What the latest submission planned."""
        return latest_record(self.rundir)

    def report(self, *, fresh: bool = False) -> Report:
        """Return the state of every task; see `hpcpipe.status.report.make_report`."""
        return make_report(self.rundir, fresh=fresh)

    def wait(self, *, show: bool = False, timeout: float | None = None) -> Report:
        """Wait until the run has finished, and return the last report.

        ``show`` displays progress on the terminal. Raises TasksFailed if a task did not succeed,
        and TimeoutError after ``timeout`` seconds; the run itself then continues.
        """
        from hpcpipe.views.watch import follow

        report = follow(self.rundir, show=show, timeout=timeout, mend=self.mend)
        if report.failures:
            first = report.failures[0]
            count = report.total.total()
            raise TasksFailed(
                f"{len(report.failures)} of {count} task{'s' * (count != 1)} failed; "
                f"first: {first.name}: {first.words or first.reason}"
            )
        return report

    def mend(self, report: Report) -> bool:
        """Retry what is due and no continuation would; return whether anything was submitted."""
        from hpcpipe.status.attempts import Retries

        due = Retries(self.rundir, report.record).due
        if report.mending or not (report.can_grow or any(map(due, report.failures))):
            return False
        from hpcpipe.submit.locking import locked

        with locked(self.rundir):
            return not is_stopped(self) and bool(submit_due(self).prepared)

    def results(self, node: Node | str) -> dict[str, Any]:
        """Load the results of a node's succeeded tasks, by label ("" for a node without axes).

        A last node's result of which a file is gone, or was changed, is left out. Warns of that,
        and of results made without some of those upstream. Raises UsageError for an unknown node,
        and ResultError for a result not safe to read.
        """
        name = node if isinstance(node, str) else node.name
        record = self.record
        if name not in record.nodes:
            raise UsageError(f"no node {name!r}{near(name, record.nodes)}")
        from hpcpipe.status.results import Looked

        found = record.nodes[name]
        looked = Looked(self.rundir, record.nodes, name)
        for words in looked.remarks():
            _warn(words)
        return {
            found.label(index): self._load(name, key, found.task(index), looked.where)
            for index in range(len(found))
            if (key := found.key(index)) in looked.keys
        }

    def result(self, task: str) -> Any:
        """Load the value of one task, named ``node/label``.

        Raises UsageError if no task, or more than one, has the name, and ResultError if it has not
        succeeded, or a last node's file is gone or was changed. Warns as `results`.
        """
        from hpcpipe.status.results import Looked

        record = self.record
        node, index = record.one(task)
        looked = Looked(self.rundir, record.nodes, node.name, index)
        for words in looked.remarks():
            if node.key(index) not in looked.keys:
                again = suggested(self.rundir.folder, "retry")
                raise ResultError(f"{words}; make it again: {again}")
            _warn(words)
        return self._load(node.name, node.key(index), node.task(index), looked.where)

    def loaders(
        self, record: RunRecord, tasks: Collection[str]
    ) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Yield each of the named tasks with a function that loads its value, as `result` does."""
        wanted = set(tasks)
        listings = Store(self.rundir).has({name.partition("/")[0] for name in wanted})
        for name, listing in listings.items():
            node = record.nodes[name]
            for index in range(len(node)):
                if (task := node.task(index)) in wanted:
                    yield task, partial(self._load, name, node.key(index), task, listing.packed)

    def _load(self, node: str, key: str, task: str, packed: Mapping[str, str]) -> Any:
        try:
            return Store(self.rundir).load(node, key, packed)
        except FileNotFoundError:
            why = suggested(self.rundir.folder, "explain", quote(task))
            raise ResultError(f"{task}: has not succeeded; see {why}") from None

    def cancel(self, names: tuple[str, ...] = ()) -> int:
        """Cancel the whole run, or the named tasks; return how many were cancelled.

        Tasks that share an element with a named one are cancelled with it, and counted. Tasks that
        depend on a cancelled one can no longer run.
        """
        from hpcpipe.submit.cancel import cancel

        return cancel(self.rundir, names).tasks


def _warn(words: str) -> None:
    import logging

    logging.getLogger(__name__).warning("%s", words)


class Results(Mapping[str, dict[str, Any]]):
    """The results of a run's succeeded tasks, by node and label: ``results["average"]["4"]``.

    The results of a node, given by name or as the `Node` itself, are loaded on access.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._nodes = tuple(run.record.nodes)

    def __getitem__(self, node: Node | str) -> dict[str, Any]:
        name = node if isinstance(node, str) else node.name
        if name not in self._nodes:
            raise KeyError(name)
        return self.run.results(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


def submit(
    workflow: Workflow,
    *,
    site: str | Site | Loaded | None = None,
    resources: Resources | None = None,
    source: Mapping[str, Any] | None = None,
    over_budget: bool = False,
    replace: bool = False,
    calls: int | None = None,
    notify: str | None = None,
    after_run: str | os.PathLike[str] | None = None,
) -> Run:
    """Submit the tasks that still need to run, and return at once.

    ``site`` is a site's name or file (default: the one in use here); ``resources`` override those
    of every node. Raises WorkflowError, ConfigError, SchedulerError, LockHeld. Raises OverBudget if
    it may cost an account more than its budget, unless ``over_budget``; and UsageError if tasks are
    running whose code or inputs have changed, unless ``replace``, which cancels them. ``calls``
    limits the submit commands, instead of the site. ``notify`` is a line of sh that a job runs when
    the run has ended, or ``mail`` or ``mail:NAME@HOST``, with which the scheduler sends mail.
    ``after_run`` is the folder of a run that must succeed before anything is
    submitted, by a job that waits for it.
    """
    after = os.path.abspath(after_run) if after_run else None
    options = Options(resources, over_budget, replace, calls, notify, after)
    return submit_with_draft(workflow, options, site=site, source=source)[0]


def submit_with_draft(
    workflow: Workflow,
    options: Options = DEFAULTS,
    *,
    site: str | Site | Loaded | None = None,
    source: Mapping[str, Any] | None = None,
    kept: Resources | None = None,
) -> tuple[Run, Draft]:
    """Do as `submit`, and also return the draft of what was submitted."""
    from hpcpipe.after_run import behind
    from hpcpipe.submit.budget import check_budget
    from hpcpipe.submit.locking import locked
    from hpcpipe.submit.prepare import draft
    from hpcpipe.submit.submit import submit_draft

    chosen, site_file = pick_site(site)
    rundir = RunDir(workflow.folder)
    make = partial(draft, workflow, chosen, options, kept=kept)
    # Plan a first run before creating its folder, so that a failure leaves nothing behind.
    drafted = None if rundir.exists else behind(make())
    if drafted is not None and not options.over_budget:
        check_budget(drafted.routed, chosen)
    rundir.create()
    workflow.begin()
    remember(rundir.folder)  # first: one that is refused is looked at and retried, too
    with locked(rundir):
        if drafted is None or rundir.exists:
            drafted = behind(make_draft(rundir, chosen, make, options))
        submit_draft(drafted, source or _source(workflow), site_file)
    return Run(workflow.folder), drafted


def retry(
    folder: str | os.PathLike[str],
    options: Options = DEFAULTS,
    *,
    site: str | Site | Loaded | None = None,
    tasks: Sequence[str] = (),
    force: bool = False,
) -> tuple[Run, Draft]:
    """Submit again what is not done of a run, by its plan on disk: no code of the user is needed.

    A task that ran out of memory or time asks for more. ``tasks``, named ``node`` or
    ``node/label``, limit it to these and what depends on them; ``force`` runs them even if they
    succeeded. ``site`` defaults to the run's. Raises UsageError where nothing was submitted there,
    or the folder that tasks start in is gone; ResultError where the plan is damaged; else as
    `submit`.
    """
    from hpcpipe.keys.file_digest import Files
    from hpcpipe.keys.plan import refresh
    from hpcpipe.store.plan import read_plan
    from hpcpipe.store.rundir import read_pickle
    from hpcpipe.submit.grown import grown
    from hpcpipe.submit.locking import locked
    from hpcpipe.submit.prepare import draft_plan
    from hpcpipe.submit.retry import check_software, choose, forget_stops, settle_in
    from hpcpipe.submit.submit import submit_draft

    run = Run(os.path.abspath(folder))
    check_software(options.resources, run.rundir.folder)
    chosen, site_file = pick_site(site or run.record.site)
    with locked(run.rundir), _explaining_damage(run):
        record = run.record
        plan = settle_in(read_plan(run.rundir, record.plan), run.rundir)
        files = Files(plan.files, read_pickle(run.rundir.files))
        plan = grown(refresh(plan, files), run.rundir)  # its new tasks may be named, too
        make = partial(
            draft_plan,
            plan,
            run.rundir,
            chosen,
            options,
            seen=files.seen,
            kept=record.resources,
            chosen=choose(record._replace(nodes=plan.nodes), tasks, force=force),
        )
        drafted = make_draft(run.rundir, chosen, make, options)
        forget_stops(run.rundir)
        submit_draft(drafted, record.source, site_file)
    remember(run.rundir.folder)
    return run, drafted


def is_stopped(run: Run) -> bool:
    """Return whether a person has cancelled all of a run, and submitted nothing since."""
    from hpcpipe.store.ledger import Ledger

    return bool(Ledger(run.rundir.ledger).read().last.get("stopped"))


def submit_due(run: Run, mine: str = "", *, at_once: bool = False) -> Draft:
    """Do what `hpcpipe.run.retry` does, for the tasks of which a retry is due.

    Under the run's lock, by the continuation ``mine`` or for a person who watches. ``at_once`` is
    as in `hpcpipe.submit.options.Options`.
    """
    from hpcpipe.after_run import behind
    from hpcpipe.submit.submit import submit_draft

    record = run.record
    site, site_file = pick_site(record.site)
    options = Options(over_budget=True, after_run=record.after or None, at_once=at_once)
    make = partial(_draft_due, run, record, site, options)
    drafted = behind(make_draft(run.rundir, site, make, options))
    submit_draft(drafted, record.source, site_file, mine=mine)
    return drafted


def _draft_due(run: Run, record: RunRecord, site: Site, options: Options, patience: float) -> Draft:
    """Draft with the plan as it is: tasks whose input files have changed are left to a person.

    Unless nothing was submitted yet, as it waited for another run.
    """
    from hpcpipe.keys.file_digest import Files
    from hpcpipe.keys.plan import refresh
    from hpcpipe.store.plan import read_plan
    from hpcpipe.store.rundir import read_pickle
    from hpcpipe.submit.prepare import draft_plan
    from hpcpipe.submit.retry import settle_in

    plan = settle_in(read_plan(run.rundir, record.plan), run.rundir)
    files = Files(plan.files, read_pickle(run.rundir.files))
    fresh = refresh(plan, files)
    plan = fresh if record.after else plan  # the run before it may have made these files
    changed = {
        (name, node.key(index))
        for name, node in plan.nodes.items()
        if node.keys != fresh.nodes[name].keys
        for index in range(len(node))
        if node.key(index) != fresh.nodes[name].key(index)
    }
    return draft_plan(
        plan,
        run.rundir,
        site,
        options,
        seen=files.seen,
        kept=record.resources,
        patience=patience,
        barred=changed,
    )


@contextmanager
def _explaining_damage(run: Run) -> Iterator[None]:
    """Add to the news of a damaged plan the command that makes it again."""
    try:
        yield
    except PlanDamaged as error:
        source = run.record.source
        again = suggested(run.rundir.folder, "retry", "--reload")
        if "file" in source:
            arguments = source.get("arguments", ())
            words = [source["file"], *(["--"] if arguments else []), *arguments]
            again = f"cd {quote(run.record.cwd)} && hpcpipe submit {join(words)}"
        raise ResultError(f"{error}\nPlan again from the workflow itself: {again}") from error


def make_draft(rundir: RunDir, site: Site, make: Callable[..., Draft], options: Options) -> Draft:
    """Make a draft under the run's lock, after settling what a killed client left in doubt."""
    from hpcpipe.status.poll import LATE
    from hpcpipe.submit.budget import check_budget
    from hpcpipe.submit.files import end_claims
    from hpcpipe.submit.prepare import check_reached, check_stale
    from hpcpipe.submit.recover import recover

    recover(rundir, submitting=True)
    drafted = make(patience=0 if options.at_once else max(LATE, site.limits.settle_seconds) + 5)
    if not options.over_budget:
        check_budget(drafted.routed, site)
    if not options.replace:
        check_stale(drafted)
    try:
        check_reached(drafted)
    except SchedulerUnavailable:
        end_claims(drafted)  # who submits elsewhere waits for this
        raise
    return drafted


def pick_site(site: str | Site | Loaded | None) -> tuple[Site, str]:
    """Return the site, and the file from which `retry` can read it again."""
    from hpcpipe.site.load import Loaded, load_site

    if site is None or isinstance(site, str):
        site = load_site(site)
    return (
        (site.site, os.path.abspath(site.file)) if isinstance(site, Loaded) else (site, site.name)
    )


def _source(workflow: Workflow) -> dict[str, Any]:
    """Describe how a workflow that was submitted from Python is read again, by `retry --reload`.

    Its environment is left out: that holds secrets.
    """
    file = workflow.source or getattr(sys.modules.get("__main__"), "__file__", None)
    if not file:
        return {}
    return {**file_source(file, sys.argv[1:]), "name": workflow.name}


def file_source(file: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Describe how a workflow is read again from ``FILE[:NAME]``, and when the file was written."""
    path, colon, name = file.partition(":")
    written = os.stat(path).st_mtime_ns if os.path.exists(path) else 0
    return {
        "file": os.path.abspath(path) + colon + name,
        "arguments": [*arguments],
        "written": written,
    }


def has_changed(source: Mapping[str, Any]) -> bool:
    """Return whether the file that a run was made from has changed since."""
    path = source.get("file", "").partition(":")[0]
    return os.path.exists(path) and os.stat(path).st_mtime_ns != source.get("written")
