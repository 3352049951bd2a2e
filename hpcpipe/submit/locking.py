"""The run's lock, also where a job was killed on another host while it held it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from hpcpipe.errors import LockHeld, ResultError, SchedulerUnavailable
from hpcpipe.status.instances import ElementId, Instances
from hpcpipe.store.ledger import CONTINUATION, History, Ledger
from hpcpipe.store.record import read_record
from hpcpipe.store.rundir import RunDir

_WAIT = 10.0  # seconds that a person waits for whoever holds the lock
_PATIENCE = 600.0  # the same, of a continuation
_LOOK = 10.0  # seconds between questions to the scheduler about the job that holds it


@contextmanager
def locked(rundir: RunDir, wait: float | None = None, holder: str = "") -> Iterator[None]:
    """Hold the run's lock, signed by a job of ours that is its ``holder``; raises LockHeld.

    That is a continuation's id; or, of an element, its batch and position, as ``BATCH.POSITION``.
    """
    if wait is None:
        wait = _PATIENCE if holder else _WAIT
    give_up = time.monotonic() + wait
    with ExitStack() as held:
        while True:
            _note_end(rundir)
            try:
                held.enter_context(rundir.lock(min(wait, _LOOK), holder))
                break
            except LockHeld:
                if time.monotonic() > give_up:
                    raise
        yield


def _note_end(rundir: RunDir) -> None:
    """Note in the lock that its holder has ended, if that is a job of ours which has."""
    holder, job = rundir.locked_by()
    if not holder:
        return
    history = Ledger(rundir.ledger).read()
    instances = Instances(history)
    with suppress(SchedulerUnavailable, ResultError):
        asked = _find_job(rundir, history, instances, holder, job)
        if asked and not instances.reach(asked.instance).poll([asked.spelled]):
            rundir.note_end(holder, job)


def _find_job(
    rundir: RunDir, history: History, instances: Instances, holder: str, job: str
) -> ElementId | None:
    """Find the job of a lock's holder, which it may itself spell otherwise; None if it has none."""
    batch, _, position = holder.rpartition(".")
    if known := history.submissions.get(batch):
        indices = read_record(rundir, known.run).batches[batch].indices
        return instances.element(known, indices[int(position)] if indices else None)
    if known := history.submissions.get(holder):
        return instances.element(known, None)
    among = [one.instance for one in history.submissions.values() if one.continues]
    if holder.startswith(CONTINUATION) and among and job != "-":  # one that a task called for
        return ElementId(among[-1], job)
    return None
