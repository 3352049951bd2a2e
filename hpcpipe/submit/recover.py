"""What a killed client left behind: jobs that it was submitting, and those it was cancelling."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from contextlib import suppress

from hpcpipe.errors import SchedulerError, SchedulerUnavailable
from hpcpipe.schedulers.base import Scheduler
from hpcpipe.status.instances import Instances
from hpcpipe.store.ledger import BY_US, NEVER_ARRIVED, History, Ledger, Submission, Try
from hpcpipe.store.outcomes import Store
from hpcpipe.store.rundir import RunDir

_IN_DOUBT = 3.0  # seconds within which a submit command whose client was killed may still arrive
_UNANSWERED = 3.0  # seconds for which a scheduler that gives no answer is asked again
_UNDERWAY = 60.0  # the same, while that command is seen to run on this host
_ENDING = 60.0  # seconds that cancelled jobs get to end; Slurm kills after 30 (KillWait)
_LATEST = 3600.0  # seconds within which a job may arrive that was given up


def recover(rundir: RunDir, *, submitting: bool = False) -> None:
    """Settle what a killed client left in doubt: jobs that exist get their id, others are void.

    A job that turns up after it was given up is cancelled. If it waited for others rather than was
    held, it may run: who goes on ``submitting`` waits until it has ended. A `cancel` that was
    interrupted is finished. What is with a scheduler that cannot be asked from here stays in doubt.
    """
    ledger = Ledger(rundir.ledger)
    history = ledger.read()
    adrift = history.adrift()
    void = _void(history)
    instances = Instances(history)
    for instance in dict.fromkeys((*(s.instance for s in adrift), *(one.instance for one in void))):
        try:
            scheduler = instances.reach(instance)
            _settle(
                [one for one in adrift if one.instance == instance],
                [one for one in void if one.instance == instance],
                scheduler,
                ledger,
                submitting=submitting,
            )
        except SchedulerUnavailable as error:
            if submitting:
                import logging

                words = "%s\nWhat was being submitted to %s is left in doubt."
                logging.getLogger(__name__).warning(words, error, instance)
    _finish_cancelling(rundir)


def _finish_cancelling(rundir: RunDir) -> None:
    """Cancel what an interrupted `cancel` only kept from beginning, and note it in the ledger.

    Until then its tasks look as if they were queued, but will not run. What is with a scheduler
    that cannot be asked from here stays as it is.
    """
    ledger = Ledger(rundir.ledger)
    history = ledger.read()
    instances = Instances(history)
    for batch, indices in Store(rundir).list_cancelled().items():
        one = history.submissions.get(batch)
        if one is None or one.job is None or one.cancelled:
            continue
        adapter = instances.adapter(one.run)
        which = (None,) if indices is None else indices
        if left := sorted({adapter.element(one.job, index) for index in which} - one.dropped):
            with suppress(SchedulerUnavailable):
                instances.reach(one.instance).cancel(left)
                if indices is None:
                    ledger.cancelled([batch], BY_US)
                else:
                    ledger.dropped(batch, left)


def _void(history: History) -> list[Try]:
    """Find the tries that were given up and whose jobs may be there.

    Whoever submitted to the same scheduler after the time that a job may take has looked for it.
    """
    void = history.void()
    tries = [*void, *(one.last_try for one in history.submissions.values())]
    latest = {one.instance: one.time for one in sorted(tries, key=lambda one: one.time)}
    return [one for one in void if latest[one.instance] - one.time < _LATEST]


def _settle(
    adrift: Sequence[Submission],
    void: Sequence[Try],
    scheduler: Scheduler,
    ledger: Ledger,
    *,
    submitting: bool,
) -> None:
    intents = {one.token: one for one in adrift}
    strays = {one.token for one in void}
    # Waited for by our own clock: that of the host where the client died may be ahead.
    recent = max((one.time for one in adrift), default=0.0) > time.time() - _IN_DOUBT
    began = time.monotonic()
    while True:
        patience = _UNDERWAY if _underway(intents) else _IN_DOUBT if recent else 0.0
        try:
            found = scheduler.find(intents.keys() | strays)
            if intents.keys() <= found.keys() or time.monotonic() - began >= patience:
                break
        except SchedulerUnavailable:  # one answer that went wrong is no reason to give up
            if time.monotonic() - began >= _UNANSWERED:
                raise
        time.sleep(0.2)
    turned_up = [found[token] for token in strays if token in found]
    scheduler.cancel(turned_up)
    for token, submission in intents.items():
        if token in found:
            ledger.submitted(submission, found[token], token)
    lost = [one.batch for token, one in intents.items() if token not in found]
    if lost:
        ledger.cancelled(lost, NEVER_ARRIVED)
    if submitting:
        await_end(scheduler, [*scheduler.poll(turned_up)])


def await_end(scheduler: Scheduler, elements: Collection[str]) -> None:
    """Wait until elements that were cancelled have left the queue; raises SchedulerError where
    they stay there."""
    give_up = time.monotonic() + _ENDING
    while left := scheduler.poll(elements).keys() & {*elements}:
        if time.monotonic() > give_up:
            raise SchedulerError(
                f"{' '.join(sorted(left)[:5])}: cancelled, and still ending after "
                f"{_ENDING:.0f} s. Nothing was submitted, since its tasks would run twice at "
                "once; type the same command again when it has left the queue"
            )
        time.sleep(0.5)


def _underway(tokens: Collection[str]) -> bool:
    """Return whether a submit command with one of these tokens still runs on this host.

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
