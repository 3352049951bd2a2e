"""What a killed client left behind: whether the jobs that it was submitting are there."""

from __future__ import annotations

import time

from hpcpipe.ledger import History, Ledger
from hpcpipe.rundir import RunDir
from hpcpipe.schedulers.base import Scheduler

# Seconds within which a submit command whose client was killed may still arrive: it goes on by
# itself, and slowly where much else does.
_IN_DOUBT = 6.0
_LATEST = 3600.0  # seconds within which one may arrive that was given up


def adopt(rundir: RunDir, scheduler: Scheduler) -> History:
    """Settle what a killed client left in doubt: jobs that exist get their id, others are void.

    A job that turns up after all was submitted held, so it cannot have run: it is cancelled.
    """
    ledger = Ledger(rundir.ledger)
    history = ledger.read()
    adrift = {one.token: one for one in history.adrift()}
    void = {one.token for one in history.void() if time.time() - one.time < _LATEST}
    if not adrift and not void:
        return history
    youngest = max((one.time for one in adrift.values()), default=0.0)
    while True:
        found = scheduler.find(adrift.keys() | void)
        if adrift.keys() <= found.keys() or time.time() - youngest > _IN_DOUBT:
            break
        time.sleep(0.5)
    scheduler.cancel([found[token] for token in void if token in found])
    for token, submission in adrift.items():
        if token in found:
            ledger.submitted(submission.batch, found[token])
    lost = [one.batch for token, one in adrift.items() if token not in found]
    if lost:
        ledger.cancelled(lost, "never reached the scheduler")
    return ledger.read()
