"""Retries what was killed on this host with its script, and what else is due, before a task begins.

``running/HOST/KEY`` names the claim of a task that began there. Where its job is killed as a whole,
as some schedulers do at a limit of memory, nothing is left of it that could call for a retry; then
whoever begins next on the host finds the claim of a dead process. A file whose claim has become an
outcome is removed. The file ``due`` tells that a retry may be due: a continuation may have to wait
for a slot, and the task that begins has one. ``templates/store.sh.j2`` does the same in ``sh``:
change both.
"""

from __future__ import annotations

import os
import sys
import time

from hpcpipe.worker.claim import is_gone, read_claim
from hpcpipe.worker.fork import call_for, note_due, wake, waking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hpcpipe.worker.task import Element


def attend(element: Element) -> None:
    """Submit what is due, before a task begins, whose memory it would take."""
    fallen = element.header["wakes"] and look_around(element)
    if fallen:
        note_due()
    if element.header["early"] and take_due():
        call_for(element.batch, sys.argv[2])
        finish()
    if fallen and os.path.exists("due"):
        wake()
        finish()


def take_due() -> bool:
    """Take upon this element what there is to see to now, if anything; only one can.

    A time in the file is when there will be something. If this one is killed, a continuation is
    left to see to it.
    """
    try:
        with open("due", errors="replace") as file:
            at = file.read().strip()
        if at.isdigit() and int(at) > time.time():
            return False
        os.rename("due", "due.taken")
    except FileNotFoundError:
        return False
    return True


def finish() -> None:
    """Wait for what was called."""
    while waking:
        os.waitpid(waking.pop(), 0)


def look_around(element: Element) -> bool:
    """Note that a claimed task is about to begin here; return whether others have died here."""
    folder = f"running/{os.uname().nodename}"
    os.makedirs(folder, 0o700, exist_ok=True)
    fallen = [key for key in os.listdir(folder) if is_fallen(f"{folder}/{key}", element.mine)]
    with open(f"{folder}/{element.key}", "w") as file:
        file.write(element.claim)
    return bool(fallen)


def is_fallen(path: str, mine: str) -> bool:
    """Return whether a task has died; remove its file, also if it has ended otherwise."""
    where = read_claim(path)
    claim = read_claim(where) if where else ""
    if claim is not None and not is_gone(claim, mine):
        return False
    try:
        os.unlink(path)
    except FileNotFoundError:  # somebody else was first
        return False
    return claim is not None
