"""Every error hpcpipe raises on purpose, each with its exit status.

A message says what, where, and what to do, in that order. The command line prints it after
``hpcpipe:`` and exits with ``exit_status``; any other exception is a bug and shows its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable


class HpcpipeError(Exception):
    """An error of any other kind."""

    exit_status = 1


class UsageError(HpcpipeError):
    """The command line is wrong, or names something that does not exist."""

    exit_status = 2


class ConfigError(HpcpipeError):
    """The site file is wrong, or cannot provide what was requested."""

    exit_status = 3


class WorkflowError(HpcpipeError):
    """The workflow cannot be planned as written."""

    exit_status = 4


class SchedulerError(HpcpipeError):
    """The scheduler refused; its own message comes first."""

    exit_status = 5

    def __init__(self, words: str, *, passing: bool = False) -> None:
        super().__init__(words)
        self.passing = passing  # temporary: the same request may be accepted later


class SchedulerUnavailable(SchedulerError):
    """The scheduler could not be asked; its jobs may still be running."""

    exit_status = 6


class SubmitUnclear(SchedulerUnavailable):
    """The answer to a submission does not prove whether the scheduler has the job or not."""


class LockHeld(HpcpipeError):
    """Another client holds the run's lock."""

    exit_status = 7


class ResultError(HpcpipeError):
    """A result is missing, damaged, or not safe to read."""

    exit_status = 8


class PlanDamaged(ResultError):
    """The frozen plan of a run is missing or damaged, and has to be made again."""


class WrittenByNewer(HpcpipeError):
    """A file of a run has what this version of hpcpipe does not know.

    It is no ResultError, since nobody may take it for damage and go on without it.
    """

    def __init__(self, path: object) -> None:
        super().__init__(f"{path}: was written by a newer hpcpipe; use that one, or a later one")
        self.exit_status = ResultError.exit_status


class OverBudget(HpcpipeError):
    """The submission may cost an account more than its budget."""

    exit_status = 9


class TasksFailed(HpcpipeError):
    """A run has finished, and not all of its tasks succeeded."""

    exit_status = 10


def near(word: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown word: the closest known word, or all of them."""
    from difflib import get_close_matches

    known = [*filter(None, known)]
    if close := get_close_matches(word, known, n=1):
        return f"; did you mean {close[0]}?"
    return f"; known: {', '.join(known)}" if known else ""
