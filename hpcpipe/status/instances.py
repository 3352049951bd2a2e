"""The schedulers that a run's jobs were given to: a job id is only ever shown to its own.

Ids are small numbers that any scheduler may have given. Which scheduler it was, its *instance*, is
in the ledger with each submission; an adapter is asked about a job only where it reaches that very
instance from here.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from hpcpipe.errors import HpcpipeError, SchedulerUnavailable
from hpcpipe.store.ledger import History, Submission

if TYPE_CHECKING:
    from hpcpipe.schedulers.base import Scheduler


class ElementId(NamedTuple):
    """One element of an array, or a plain job, of one scheduler; ``spelled`` as that spells it."""

    instance: str
    spelled: str


class Instances:
    """Adapters for the submissions of a history, made when they are first needed.

    ``here`` is the instance that ``scheduler`` reaches; empty where no earlier jobs matter, or it
    cannot be determined now: the state of earlier jobs is unknown then.
    """

    def __init__(self, history: History, scheduler: Scheduler | None = None) -> None:
        self._history = history
        self.here = ""
        self._reached: dict[str, Scheduler] = {}  # by instance: adapters that are known to reach it
        if scheduler and history.submissions:
            with suppress(SchedulerUnavailable):
                self.here = scheduler.instance()
                self._reached[self.here] = scheduler
        self._trouble: dict[str, str] = {}
        self._adapters: dict[int, Scheduler] = {}  # by run

    def adapter(self, run: int) -> Scheduler:
        """Return the adapter of a run, which may reach another instance from here."""
        if run not in self._adapters:
            from hpcpipe.schedulers import make_scheduler  # a run that is over needs none

            self._adapters[run] = make_scheduler(*self._history.scheduler_of(run))
        return self._adapters[run]

    def element(self, submission: Submission, index: int | None) -> ElementId | None:
        """Name an element of an accepted submission; None while its job has no id."""
        if submission.job is None:
            return None
        spelled = self.adapter(submission.run).element(submission.job, index)
        return ElementId(submission.instance, spelled)

    def reach(self, instance: str) -> Scheduler:
        """Return an adapter for an instance.

        Raises SchedulerUnavailable, each time, where that instance cannot be asked from here.
        """
        if instance not in self._reached and instance not in self._trouble:
            try:
                self._reached[instance] = self._find(instance)
            except HpcpipeError as error:
                self._trouble[instance] = str(error)
        if instance in self._trouble:
            raise SchedulerUnavailable(self._trouble[instance])
        return self._reached[instance]

    def _find(self, instance: str) -> Scheduler:
        runs = {s.run for s in self._history.submissions.values() if s.instance == instance}
        here = ""
        for run in sorted(runs, reverse=True):
            adapter = self.adapter(run)
            here = adapter.instance()
            if here == instance:
                return adapter
        raise SchedulerUnavailable(
            f"its jobs are with {instance}, but {here or 'nothing'} is what answers here; "
            "ask from where they were submitted"
        )
