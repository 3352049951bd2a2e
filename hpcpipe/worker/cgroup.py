"""Whether the kernel killed a process of this job for memory: its parent may not have noticed.

``templates/command.sh.j2`` does the same in ``sh``: change both. ``HPCPIPE_MEMORY_EVENTS`` names
the file where a site keeps cgroups elsewhere.
"""

from __future__ import annotations

import os

_events: list[str] = []  # the file, once it was looked for; empty if there is none


def count_kills() -> int:
    """Return how many processes of this process's cgroup the kernel has killed for memory."""
    if not _events:
        _events.append(os.environ.get("HPCPIPE_MEMORY_EVENTS") or find_events())
    for line in read(_events[0]).splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill":
            return int(count)
    return 0


def find_events() -> str:
    """Return the file in which this process's own cgroup counts them, of version 1 or 2."""
    found = ""
    for line in read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return f"/sys/fs/cgroup/memory{path}/memory.oom_control"
        if not controllers:
            found = f"/sys/fs/cgroup{path}/memory.events"
    return found


def read(path: str) -> str:
    """Read a short file; empty if it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY)  # open() would cost each task 0.1 ms
    except OSError:
        return ""
    try:
        return os.read(fd, 4096).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(fd)


class OutOfMemory(Exception):
    """The kernel killed a process of the task for memory, and the task went on without it."""

    hpcpipe_cause = "memory"

    def __init__(self, kills: int) -> None:
        super().__init__(kills)
        self.words = words(kills)


def words(kills: int) -> str:
    """Describe how many processes of the task were killed for memory."""
    processes = "a process" if kills == 1 else f"{kills} processes"
    return f"the kernel killed {processes} of it for memory"
