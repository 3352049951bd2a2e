"""What a killed client left behind: whether the jobs that it was submitting are there."""

from __future__ import annotations

import os
import time
from collections.abc import Collection

from hpcpipe.ledger import History, Ledger
from hpcpipe.rundir import RunDir
from hpcpipe.schedulers.base import Scheduler

_IN_DOUBT = 3.0  # seconds within which a submit command whose client was killed may still arrive
_UNDERWAY = 60.0  # the same, while that command is seen to run on this host
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
        patience = _UNDERWAY if _underway(adrift) else _IN_DOUBT  # looked for first: it may arrive
        found = scheduler.find(adrift.keys() | void)
        if adrift.keys() <= found.keys() or time.time() - youngest > patience:
            break
        time.sleep(0.2)
    scheduler.cancel([found[token] for token in void if token in found])
    for token, submission in adrift.items():
        if token in found:
            ledger.submitted(submission.batch, found[token])
    lost = [one.batch for token, one in adrift.items() if token not in found]
    if lost:
        ledger.cancelled(lost, "never reached the scheduler")
    return ledger.read()


def _underway(tokens: Collection[str]) -> bool:
    """Tell whether a submit command with one of these tokens still runs on this host.

    Its client may be killed while it does: it goes on by itself, and slowly where much else does.
    """
    words = [token.encode() for token in tokens]
    for pid in os.listdir("/proc") if words and os.path.isdir("/proc") else ():
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                line = file.read()
        except OSError:
            continue  # not a process, or it has ended
        for word in words:
            if word in line:
                return True
    return False
