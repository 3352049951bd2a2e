"""Every error hpcpipe raises on purpose: one sentence and one exit status each.

A message says what, where, and what to do, in that order. The command line prints it after
``hpcpipe:`` and leaves with ``exit_status``; anything else that escapes is a bug of ours and
shows its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable


class HpcpipeError(Exception):
    """Something hpcpipe can explain went wrong."""

    exit_status = 1


class UsageError(HpcpipeError):
    """The command line, or what it names, cannot be understood."""

    exit_status = 2


class ConfigError(HpcpipeError):
    """A site-config cannot be read, or asks for what does not exist."""

    exit_status = 3


class WorkflowError(HpcpipeError):
    """The workflow as written cannot be planned."""

    exit_status = 4


class SchedulerError(HpcpipeError):
    """The scheduler refused; its own words come first."""

    exit_status = 5

    def __init__(self, words: str, *, passing: bool = False) -> None:
        super().__init__(words)
        self.passing = passing  # the same may be taken a little later


class SchedulerUnavailable(SchedulerError):
    """The scheduler could not be asked, which says nothing about the jobs."""

    exit_status = 6


class LockHeld(HpcpipeError):
    """Another client holds the run's lock."""

    exit_status = 7


class ResultError(HpcpipeError):
    """A result is missing, failed, damaged, or not safe to read."""

    exit_status = 8


class OverBudget(HpcpipeError):
    """The submission may cost an account more than its budget."""

    exit_status = 9


class TasksFailed(HpcpipeError):
    """A run has ended, and not every task of it is good."""

    exit_status = 10


def near(word: str, known: Iterable[str]) -> str:
    """End a message about an unknown word: with the one that was meant, or with all there are."""
    from difflib import get_close_matches

    known = list(known)
    if close := get_close_matches(word, known, n=1):
        return f"; did you mean {close[0]}?"
    return f"; known: {', '.join(known)}" if known else ""
