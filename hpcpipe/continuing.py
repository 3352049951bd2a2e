"""What runs in the queue with nobody logged in: a continuation, and what wakes one.

``python -P -c 'from hpcpipe.continuing import main; main()' ID STANDS_IN_FOR NTH`` in a run's
``.hpcpipe`` folder. Without words, as a task that has failed does, it submits a continuation that
waits for nothing. That may wait behind tasks of its own run, so an element that begins meanwhile
does its work: ``BATCH POSITION``. See `hpcpipe.submit.continuation`.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from secrets import token_hex
from time import sleep, time

from hpcpipe.after_run import NotFollowed
from hpcpipe.errors import HpcpipeError, LockHeld, SchedulerUnavailable
from hpcpipe.notify import notify
from hpcpipe.run import Run, is_stopped, pick_site, submit_due
from hpcpipe.status.instances import Instances
from hpcpipe.store.ledger import NOT_FOLLOWED, Ledger
from hpcpipe.store.rundir import age, sign
from hpcpipe.submit.continuation import (
    MOST_KILLED,
    Continuation,
    Follower,
    drop,
    new_id,
)

_TRIES, _OUTAGE = 8, 60.0  # again, and seconds in between: all in the 15 minutes it requests
_BRIEFLY = 1.0  # seconds that an element waits for the run's lock
_LATER = 3  # seconds until it is looked again, where the accounting may yet tell how a job ended
_WOKEN = 3600.0  # seconds after which a continuation that was called for is thought to be lost


def main() -> None:
    """Continue the run in whose ``.hpcpipe`` folder this starts, or wake a continuation."""
    folder = Path(os.getcwd()).parent
    try:
        match sys.argv[1:]:
            case [id_, other, nth]:
                _resume_patiently(folder, Continuation(id_, other, int(nth)))
            case [batch, position]:
                resume_early(folder, f"{batch}.{position}")
            case _:
                wake(folder)
    except HpcpipeError as error:
        sys.exit(f"hpcpipe: {error}")


def _resume_patiently(folder: Path, mine: Continuation) -> None:
    """Resume, again where the scheduler gives no answer: a stand-in would get none either."""
    for _ in range(_TRIES):
        try:
            return resume(folder, mine)
        except SchedulerUnavailable:
            sleep(_OUTAGE)
    return resume(folder, mine)


def resume(folder: Path, mine: Continuation) -> None:
    """Retry all of a run that is due, unless that was done by whom this one stands in for."""
    from hpcpipe.submit.locking import locked

    run, through = Run(folder), False
    hold = partial(locked, run.rundir, holder=mine.id)
    ledger = Ledger(run.rundir.ledger)
    for file in (run.rundir.waking, run.rundir.due):
        file.unlink(missing_ok=True)
    with hold():
        known = ledger.read().submissions
        before = known.get(mine.stands_in_for)
        if before is None or not before.continued:
            if before is not None and not before.cancelled:
                _take_over(run, mine, ledger)
            through = is_stopped(run) or _submit(run, mine, ledger)
    if through:  # before this one is done: if it is killed here, its stand-in tells
        notify(run.rundir, mine.id)
    with hold():
        if mine.id in known:
            ledger.continued(mine.id)
        _drop_stand_in(ledger, mine)


def resume_early(folder: Path, element: str) -> None:
    """Retry what is due now, in an element that is about to begin, in place of a continuation.

    The element has taken the file ``due``, so that no other does the same. What cannot be known
    yet, since its job has just ended, is left to whatever begins a little later, and so is all of
    it while somebody else submits. Nothing is waited for, since this holds a slot.
    """
    from hpcpipe.submit.locking import locked

    run, drafted, later = Run(folder), None, False
    try:
        with locked(run.rundir, _BRIEFLY, element):
            drafted = None if is_stopped(run) else submit_due(run, at_once=True)
    except LockHeld:
        later = True
    if later or (drafted and any(task.passing for task in drafted.standing.tasks.values())):
        run.rundir.due.write_text(f"{int(time()) + _LATER}\n")


def _submit(run: Run, mine: Continuation, ledger: Ledger) -> bool:
    """Submit what is due; return whether nothing more is to be expected."""
    try:
        drafted = submit_due(run, mine.id)
    except NotFollowed as error:
        ledger.cancelled([mine.id], f"{NOT_FOLLOWED}{error}")
        return True
    return not (drafted.prepared or drafted.awaited)


def _take_over(run: Run, mine: Continuation, ledger: Ledger) -> None:
    """Get a stand-in for this one, as that which it stands in for was killed."""
    if mine.nth < MOST_KILLED:
        _follower(run).submit([ledger.read().submissions[mine.id].job or ""], mine.stand_in())
    ledger.cancelled([mine.stands_in_for], "ended before its work was done")


def wake(folder: Path) -> None:
    """Submit a continuation that waits for nothing, unless one was called for that is to begin.

    Not under the run's lock, which a task that was killed here could hold on another host for ever;
    and so not in the ledger. If it is lost, the continuation that waits for all jobs is there.
    """
    run = Run(folder)
    if age(run.rundir.waking) < _WOKEN:
        return
    follower = _follower(run)
    script = follower.write(Continuation(new_id()))
    run.rundir.waking.unlink(missing_ok=True)
    try:
        sign(run.rundir.waking)  # last of all: if this is killed, nobody else calls for one
    except FileExistsError:
        script.unlink()
        return
    follower.scheduler.submit(script, token=f"t{token_hex(8)}")


def _follower(run: Run) -> Follower:
    record = run.record
    return Follower.of(run.rundir, record, pick_site(record.site)[0])


def _drop_stand_in(ledger: Ledger, mine: Continuation) -> None:
    """Cancel what would stand in for a continuation that has done its work."""
    history = ledger.read()
    left = [one for one in history.continuations() if one.stands_in_for == mine.id]
    if left:
        drop(Instances(history).reach(left[0].instance), left, ledger)
