"""One submit command: tried again where that may help, its job looked for after any odd answer."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from hpcpipe.errors import SchedulerError, SchedulerUnavailable
from hpcpipe.jobs import After
from hpcpipe.planner.batch import InFlightJob
from hpcpipe.schedulers.base import Scheduler
from hpcpipe.store.ledger import Ledger, Submission
from hpcpipe.submit.prepare import Draft, Prepared

_TRIES = 4  # of one submit command that gets no answer, or an odd one
_PAUSES = (1, 2, 4, 8, 16)  # seconds between looks for its job: half a minute without an answer
_LOOKS = 3  # of these looks that are answered are enough: a job was seen to arrive 3 s late
_WAITS = (5, 10, 20, 40, 60)  # seconds, while a limit of jobs is reached


def hand_over(
    draft: Draft,
    instance: str,
    prepared: Prepared,
    jobs: Sequence[str],
    ledger: Ledger,
    *,
    held: bool,
) -> str:
    """Submit a batch, see `deliver`; ``jobs`` are those of the batches before it."""
    after = [
        After(
            wait.on.job if isinstance(wait.on, InFlightJob) else jobs[wait.on],
            wait.kind,
            wait.element,
            well=not (wait.relaxed or prepared.batch.lenient),
        )
        for wait in prepared.batch.waits
    ]
    intend = partial(ledger.submitting, prepared.id, draft.run, held=held, instance=instance)
    script = draft.rundir.script(prepared.id)
    waits = () if draft.options.at_once else _WAITS
    return deliver(draft.scheduler, script, after, ledger, intend, held=held, waits=waits)


def deliver(
    scheduler: Scheduler,
    script: Path,
    after: Sequence[After],
    ledger: Ledger,
    intend: Callable[[str], Submission],
    *,
    held: bool = False,
    waits: Iterable[int] = _WAITS,
) -> str:
    """Submit a script, again where that may help: no answer, or a limit of jobs that is reached,
    after it was waited for so many seconds each time.

    Each try has a token of its own, which ``intend`` writes into the ledger, and by which its job
    is looked for after any odd answer: a command may have worked whatever it printed. Raises what
    was raised last, where it did not.
    """
    left, unanswered = iter(waits), 0
    while True:
        token = f"t{secrets.token_hex(8)}"  # never digits only: PBS would call it a number
        intent = intend(token)
        try:
            job = scheduler.submit(script, after, token=token, held=held)
        except SchedulerUnavailable as error:
            unanswered += 1
            job = find_late(scheduler, token, error, _PAUSES) or ""
            if not job and unanswered == _TRIES:
                raise
        except SchedulerError as error:
            job = find_late(scheduler, token, error, ()) or ""
            if not job:
                if not error.passing or (seconds := next(left, None)) is None:
                    raise
                _wait(error, seconds)
        if job:
            ledger.submitted(intent, job, token)
            return job


def find_late(
    scheduler: Scheduler, token: str, why: SchedulerError, pauses: Sequence[float]
) -> str | None:
    """Look for the job of a submit command that went wrong, at once and after each pause.

    Returns None where the scheduler answers and does not know it. Raises ``why`` where it does not
    answer at all, since nobody can tell then.
    """
    answered = 0
    for pause in (0, *pauses):
        if pause:
            _wait(why, pause)
        try:
            if job := scheduler.find([token]).get(token):
                return job
        except SchedulerError:
            continue
        answered += 1
        if answered == _LOOKS:
            break
    if not answered:
        raise why
    return None


def _wait(error: SchedulerError, seconds: float) -> None:
    """Sleep, and say why: on standard error, unless the program that submits logs elsewhere."""
    import logging

    logging.getLogger(__name__).warning("%s\nTrying again in %d s.", error, seconds)
    time.sleep(seconds)
