"""``--after-run FOLDER``: a submission that waits for all of another run to succeed.

Nothing of it is submitted but a continuation, after what the other run has in the queue: its jobs,
and its own continuations, which may retry some of them. It looks again when these have ended, and
either submits everything, with the input files as they are by then, or waits for what was submitted
meanwhile, or gives up.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from hpcpipe.errors import UsageError
from hpcpipe.jobs import State
from hpcpipe.status.instances import Instances
from hpcpipe.status.places import find_continuations
from hpcpipe.status.poll import LATE
from hpcpipe.status.report import Report, make_report
from hpcpipe.store.ledger import Ledger, Submission
from hpcpipe.store.recent import suggested
from hpcpipe.store.rundir import RunDir
from hpcpipe.submit.continuation import can_continue
from hpcpipe.submit.prepare import Draft
from hpcpipe.views.status import verdict

_PAUSE = 2.0  # seconds between looks for outcomes that are on their way


class NotFollowed(UsageError):
    """The run that another one is to follow did not succeed, or nobody goes on with it."""


def behind(draft: Draft) -> Draft:
    """Return a submission that waits for the run it is to follow, if that has not succeeded yet.

    Raises NotFollowed where it will not; UsageError where nothing can wait for it.
    """
    if not (name := draft.options.after_run):
        return draft
    folder = Path(name)
    if not RunDir(folder).exists:
        raise UsageError(f"{folder}: nothing was submitted here, so that nothing can wait for it")
    if folder.resolve() == draft.rundir.folder.resolve():
        raise UsageError(f"{folder}: a run cannot wait for itself")
    report = _look(RunDir(folder))
    if report.finished and not report.failures:
        return draft
    again = suggested(folder, "retry")
    if report.finished:
        raise NotFollowed(f"{folder} did not succeed ({verdict(report)}); first: {again}")
    jobs = _jobs(RunDir(folder), report)
    if not jobs:
        raise NotFollowed(f"{folder}: {verdict(report)}, and none is queued; first: {again}")
    if not can_continue(draft.site, draft.scheduler):
        watch = suggested(folder, "watch")
        raise UsageError(
            f"compute nodes of site {draft.site.name!r} may not submit jobs, so that nothing can "
            f"wait for {folder} there; instead: {watch} && hpcpipe submit …"
        )
    here = draft.scheduler.instance()
    if others := {one.instance for one in jobs} - {here}:
        raise UsageError(f"{folder}: its jobs are with {others.pop()}, and these go to {here}")
    awaited = tuple(dict.fromkeys(one.job or "" for one in jobs))
    return replace(draft, prepared=(), planned=draft.prepared, awaited=awaited)


def after_words(draft: Draft) -> str:
    """Return what a submission with ``--after-run`` waits for; raises UsageError as `behind`."""
    folder = draft.options.after_run
    if behind(draft).awaited:
        return f"All of it is submitted by a job, once {folder} has succeeded."
    return f"It need not wait: {folder} has succeeded."


def _look(rundir: RunDir) -> Report:
    """Determine how a run stands, once the outcomes of jobs that have ended are there."""
    until = time.monotonic() + LATE + 10
    while True:
        report = make_report(rundir, fresh=True)
        doubt = any(task.state is State.UNKNOWN for task in report.tasks)
        if not doubt or time.monotonic() > until:
            return report
        time.sleep(_PAUSE)


def _jobs(rundir: RunDir, report: Report) -> list[Submission]:
    """Find what a run has in the queue: the jobs of its tasks, and its continuations."""
    history = Ledger(rundir.ledger).read()
    instances = Instances(history)
    found = [task.place.submission for task in report.tasks if task.place and task.status]
    for id_, place in find_continuations(history, instances).items():
        if id_.spelled in instances.reach(id_.instance).poll([id_.spelled]):
            found.append(place.submission)
    return found
