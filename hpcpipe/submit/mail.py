"""Mail that the scheduler sends when a run has ended: ``--notify mail``, or ``mail:NAME@HOST``.

A job's mail is asked for when it is submitted, by which time nobody knows how the run will end. So
it is that of a job of its own, submitted then, and named after the verdict.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from hpcpipe.errors import UsageError
from hpcpipe.schedulers.base import Scheduler

# Less than mail allows: it is in a directive, which each scheduler reads by rules of its own.
_ADDRESS = r"[A-Za-z0-9_][A-Za-z0-9_.+=-]*@[A-Za-z0-9][A-Za-z0-9.-]*"
_INSTEAD = 'mail -s "$HPCPIPE_VERDICT" NAME@HOST'


class Mail(NamedTuple):
    """What a job prints, whom the scheduler mails when it has ended, and the ``user`` it runs as.

    With ``to`` empty, it mails the user.
    """

    to: str
    user: str
    lines: tuple[str, ...]


def is_mail(notify: str) -> bool:
    """Return whether the scheduler is to send mail; else it is a command."""
    return notify == "mail" or notify.startswith("mail:")


def address(notify: str) -> str:
    """Return the address that was given; empty for the user's own, which the scheduler knows."""
    return notify.partition(":")[2]


def check_mail(notify: str, scheduler: Scheduler) -> None:
    """Raise UsageError where mail is asked for and none could be sent."""
    if not is_mail(notify):
        return
    if notify != "mail" and not re.fullmatch(_ADDRESS, address(notify)):
        raise UsageError(
            f"--notify {notify!r}: not an address; write mail:NAME@HOST, or mail alone for the "
            "address that the scheduler has of you"
        )
    if not scheduler.capabilities.mail:
        raise UsageError(
            f"--notify {notify}: {scheduler.name} sends no mail; give a command that does: "
            f"--notify '{_INSTEAD}'"
        )
