"""Finds tasks that were killed on this host with their script, and calls for what retries them.

``running/HOST/KEY`` names the claim of a task that began there. Where its job is killed as a whole,
as some schedulers do at a limit of memory, nothing is left of it that could call for a retry; then
whoever begins next on the host finds the claim of a dead process. A file whose claim has become an
outcome is removed. Only in batches with ``retries``; ``templates/store.sh.j2`` does the same in
``sh``: change both.
"""

from __future__ import annotations

import os

from hpcpipe.worker.claim import is_gone, read_claim
from hpcpipe.worker.fork import wake, waking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hpcpipe.worker.task import Element


def look_around(element: Element) -> None:
    """Note that a claimed task is about to begin here; see whether others have died here."""
    folder = f"running/{os.uname().nodename}"
    os.makedirs(folder, 0o700, exist_ok=True)
    fallen = [key for key in os.listdir(folder) if is_fallen(f"{folder}/{key}", element.mine)]
    with open(f"{folder}/{element.key}", "w") as file:
        file.write(element.claim)
    if fallen:
        wake()
        while waking:  # before the task begins, whose memory it would take
            os.waitpid(waking.pop(), 0)


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
