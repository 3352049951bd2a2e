"""The run's lock, also where a continuation was killed on another host while it held it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from hpcpipe.errors import LockHeld, SchedulerUnavailable
from hpcpipe.status.instances import Instances
from hpcpipe.store.ledger import CONTINUATION, Ledger
from hpcpipe.store.rundir import RunDir

_WAIT = 10.0  # seconds that a person waits for whoever holds the lock
_PATIENCE = 600.0  # the same, of a continuation
_LOOK = 10.0  # seconds between questions to the scheduler about the job that holds it


@contextmanager
def locked(rundir: RunDir, wait: float | None = None, continuation: str = "") -> Iterator[None]:
    """Hold the run's lock, signed as a ``continuation`` if it is one; raises LockHeld."""
    wait = wait or (_PATIENCE if continuation else _WAIT)
    give_up = time.monotonic() + wait
    with ExitStack() as held:
        while True:
            _note_end(rundir)
            try:
                held.enter_context(rundir.lock(min(wait, _LOOK), continuation))
                break
            except LockHeld:
                if time.monotonic() > give_up:
                    raise
        yield


def _note_end(rundir: RunDir) -> None:
    """Note in the lock that its holder has ended, if that is a continuation whose job has."""
    batch, job = rundir.locked_by()
    if not batch.startswith(CONTINUATION):
        return
    history = Ledger(rundir.ledger).read()
    known = history.submissions.get(batch)
    asked = (known.job if known else "") or job  # which is as the job itself knows it
    if asked == "-":
        return
    instances = [one.instance for one in history.submissions.values() if one.continues]
    with suppress(SchedulerUnavailable):
        if instances and not Instances(history).reach(instances[-1]).poll([asked]):
            rundir.note_end(batch, job)
