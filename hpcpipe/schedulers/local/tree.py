"""The processes of the local scheduler's elements: started, found, ended; and their machine.

Every element is the leader of a session of its own, and the `MARKS` in its environment name it. A
process belongs to an element when it is in that session, when an ancestor of it belongs, or when
it carries the marks; so neither ``setsid`` nor a parent that has died lets one get away, and a
process id given anew to a stranger proves nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Container, Iterable, Iterator, Mapping

import psutil

from hpcpipe.schedulers.local.job import Spec
from hpcpipe.schedulers.local.queue import Machine
from hpcpipe.schedulers.local.spool import MARKS, RUNNING, Event, Spool

# What a keeper, the Python under it or a ``nohup`` above it may ignore, and a job must not.
_DEFAULT_SIGNALS = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT),
    *(signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ),
)
MIB = 1 << 20
_ROUNDS = 20  # of killing: what forks faster than we kill must not hold the keeper for ever
_CLOCK_SECONDS = 2.0  # two clocks, one of 10 ms ticks, tell the same start


def start(
    spool: Spool, job: str, spec: Spec, index: int, environment: Mapping[bytes, bytes]
) -> int:
    """Start an element; return its process id.

    Raises OSError where its folder is gone, or its output cannot be opened.
    """
    words = zip(MARKS, (str(spool.root), job, str(index)), strict=True)
    named = dict(words) | {"HPCPIPE_CPUS": str(spec.cpus)}
    if not spec.array:
        del named["HPCPIPE_INDEX"]
    output = spec.output_of(job, index)
    out = (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    umask = os.umask(spec.umask)
    try:
        os.chdir(spec.folder)
        return os.posix_spawn(
            "/bin/sh",
            ("/bin/sh", spool.folder(job) / "script"),
            {**environment, **{os.fsencode(k): os.fsencode(v) for k, v in named.items()}},
            file_actions=(
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                out,
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ),
            setsid=True,
            setsigmask=(),
            setsigdef=_DEFAULT_SIGNALS,
        )
    finally:
        os.umask(umask)
        os.chdir("/")


def find_processes(leaders: Mapping[int, str], spool: str = "") -> dict[str, set[psutil.Process]]:
    """Find the processes of each element; ``leaders`` maps the pids of session leaders to them.

    Where ``spool`` is given, the marks of every process on the machine are read as well: that
    costs several times as much, and finds the elements of keepers that have died, too.
    """
    me = psutil.Process()
    table = {process.pid: process for process in me.children(recursive=True)}
    owners: dict[int, str] = {}
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):
            if owner := leaders.get(os.getsid(pid)) or (spool and _marked(pid, spool)):
                owners[pid] = owner
                if pid not in table:  # its parent has died
                    stray = psutil.Process(pid)
                    table |= {one.pid: one for one in (stray, *stray.children(recursive=True))}
    table.pop(me.pid, None)  # a keeper may have been started from within an element
    found: dict[str, set[psutil.Process]] = {}
    for pid, process in table.items():
        if owner := next((owners[one] for one in _line(pid, table) if one in owners), ""):
            found.setdefault(owner, set()).add(process)
    return found


def _line(pid: int, table: Mapping[int, psutil.Process]) -> Iterator[int]:
    """Yield a process and its ancestors within the table."""
    seen: set[int] = set()  # a table read while processes come and go might hold a ring
    with contextlib.suppress(psutil.Error):
        while pid in table and pid not in seen:
            yield pid
            seen.add(pid)
            pid = table[pid].ppid()


def _marked(pid: int, spool: str) -> str:
    environment = psutil.Process(pid).environ()
    where, job, index = (environment.get(mark, "") for mark in MARKS)
    if where != spool or not job:
        return ""
    return f"{job}_{index}" if index else job


def machine() -> Machine:
    """Measure what there is for this user."""
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    return Machine(cpus, psutil.virtual_memory().total // MIB)


def available_memory() -> int:
    """Measure the MiB that could be had now without swapping."""
    return int(psutil.virtual_memory().available // MIB)


def surviving(events: Iterable[Event], indices: Container[int]) -> Iterator[int]:
    """Return the leaders of these elements that still live; a reused pid does not count."""
    for event in events:
        if event.word == RUNNING and event.first in indices:
            leader = int(event.extras[0])
            with contextlib.suppress(psutil.Error):
                if abs(psutil.Process(leader).create_time() - event.when) < _CLOCK_SECONDS:
                    yield leader


def memory(processes: Iterable[psutil.Process]) -> int:
    """Sum what these processes hold in memory, in bytes; pages they share count for each."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def terminate(leaders: Mapping[int, str], spool: str) -> None:
    """Ask all processes of these elements to end; the leaders have not been reaped yet."""
    members = _members(leaders, spool, strays=False)
    for leader in leaders:
        # All at once: a shell that finds its child gone, and no signal yet, would go on.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGTERM)
    for process in members:
        with contextlib.suppress(psutil.Error, OSError):
            if os.getpgid(process.pid) not in leaders:
                process.terminate()


def kill(leaders: Mapping[int, str], spool: str, *, strays: bool = False) -> None:
    """Kill all processes of these elements, and those they start meanwhile.

    ``strays`` takes every process with the spool's marks: right only before the first element
    is started.
    """
    killed: set[psutil.Process] = set()
    for _ in range(_ROUNDS):
        alive = _members(leaders, spool, strays=strays) - killed
        if not alive:
            return
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        killed |= alive


def alive(leaders: Mapping[int, str], spool: str) -> set[str]:
    """Name those of these elements that have a process left, the dead unburied not counted."""
    return {
        element
        for element, processes in find_processes(leaders, spool).items()
        if element in leaders.values() and any(map(_runs, processes))
    }


def _members(leaders: Mapping[int, str], spool: str, *, strays: bool) -> set[psutil.Process]:
    wanted = set(leaders.values())
    found = find_processes(leaders, spool).items()
    return {one for element, of in found if strays or element in wanted for one in of}


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False
