"""Who holds a task: a claim names its holder so exactly that one can prove it dead.

A claim is a file of one line, ``host boot pidns pid start attempt job batch``, then a line
``pid start`` for each process that the holder started for the task (so that a child which outlives
a killed holder still counts), and ``ended`` where the scheduler said that the job has ended.
``boot`` is the kernel's boot id, ``start`` the process's start time in clock ticks since then (a
pid used again differs in it), ``attempt`` how often the scheduler started the element before, ``-``
where it does not count. The batch distinguishes jobs of one id, each of another scheduler.
``templates/store.sh.j2`` does the same in ``sh``: change both.

A claim is taken over only from a holder that is provably dead; see `is_gone`. Imported by every
worker, so this imports next to nothing.
"""

from __future__ import annotations

import os
from errno import ENOSPC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_WORDS = 8
ENDED = "ended"


class Held(Exception):
    """Somebody else holds the claim."""


def find_process(pid: str = "self") -> tuple[str, str] | None:
    """Return the id and start time of a living process as /proc shows them, or None."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY)  # open() would cost each task 0.1 ms
    except OSError:
        return None
    try:
        stat = os.read(fd, 1024).decode(errors="replace")
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)
    words = stat[stat.rindex(")") + 2 :].split(" ", 20)  # a program's name may hold anything
    return None if words[0] in "ZX" else (stat[: stat.index(" ")], words[19])


def is_alive(pid: str, start: str) -> bool:
    """Return whether a process of this host and pid namespace lives."""
    if os.path.exists("/proc/self/stat"):
        return find_process(pid) == (pid, start)
    try:
        os.kill(int(pid), 0)
    except OSError:
        return False  # one of another user is not the holder either
    return True


def sign(job: str = "", attempt: str = "", batch: str = "") -> str:
    """Write a claim's first line for this process."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        pidns = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot = pidns = "-"
    pid, start = find_process() or (str(os.getpid()), "-")
    host = os.uname().nodename
    return f"{host} {boot} {pidns} {pid} {start} {attempt or '-'} {job or '-'} {batch}\n"


def is_gone(claim: str, mine: str, alive: Callable[[str, str], bool] = is_alive) -> bool:
    """Return whether the holder of a claim is provably dead, seen by who would sign as ``mine``.

    In this pid namespace of this boot: no process of it is left. Of an earlier boot of this host:
    all are dead. Elsewhere nothing can be seen: there it is taken as alive, unless the scheduler
    said that its job has ended, or has since started the same element again. A claim that cannot be
    read is of somebody who is just writing it.
    """
    if not is_signed(claim):
        return False
    first, *more = claim.splitlines()
    host, boot, _, pid, start, attempt, job, batch = first.split(" ", _WORDS - 1)
    my_host, my_boot, _, _, _, my_attempt, *my_job = mine.rstrip("\n").split(" ", _WORDS - 1)
    if is_here(claim, mine):
        processes = [(pid, start), *(line.split(" ") for line in more if line != ENDED)]
        return not any(len(one) != 2 or alive(*one) for one in processes)
    if host == my_host and boot != my_boot and "-" not in (boot, my_boot):
        return True
    if ENDED in more:
        return True
    if job == "-" or [job, batch] != my_job:
        return False
    if my_attempt == "-":  # no scheduler starts an element while it has it running
        return True
    return attempt.isdigit() and int(attempt) < int(my_attempt)


def is_here(claim: str, mine: str) -> bool:
    """Return whether a claim's processes can be seen from here: same kernel and pid namespace."""
    if not is_signed(claim):
        return False
    host, boot, *pidns = claim.split(" ")[:3]
    my_host, my_boot, *my_pidns = mine.split(" ")[:3]
    return boot == my_boot and (boot != "-" or host == my_host) and pidns == my_pidns


def is_signed(claim: str) -> bool:
    """Return whether a claim names its holder; else it, or its outcome, is just being written."""
    words = claim.partition("\n")[0].split(" ", _WORDS - 1)
    return len(words) == _WORDS and words[3].isdigit()


def batch_of_claim(claim: str) -> str:
    """Return the batch that a signed claim is of."""
    return claim.partition("\n")[0].split(" ", _WORDS - 1)[-1]


def job_of_claim(claim: str) -> tuple[str, str]:
    """Return the batch that a signed claim is of, and its job."""
    *_, job, batch = claim.partition("\n")[0].split(" ", _WORDS - 1)
    return batch, job


def name_holder(claim: str) -> str:
    """Name who holds a claim, for people."""
    if not is_signed(claim):
        return "an unknown process"
    host, _, _, pid, _, _, job, _ = claim.split(" ", _WORDS - 1)
    return f"process {pid} on {host}" + (f", job {job}" if job != "-" else "")


def take(path: str, mine: str) -> bool:
    """Take a claim; return whether it was taken over from a dead holder. Raises Held.

    Several may find the same holder dead. Who takes over first makes a ticket (the claim's name and
    a number), which only one can; looks whether all is as it was when it judged; and renames the
    ticket to the claim. A ticket whose maker died is passed by with the next number.
    """
    seen: list[str] = []
    while True:
        ticket = f"{path}{len(seen) or ''}"
        try:
            fd = os.open(ticket, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            claim = read_claim(ticket)
            if claim is None:  # let go between the two looks
                seen = []
            elif is_gone(claim, mine):
                seen.append(claim)
            else:
                raise Held(name_holder(claim)) from None
            continue
        try:
            if os.write(fd, mine.encode()) < len(mine.encode()):
                raise OSError(ENOSPC, os.strerror(ENOSPC))
        except OSError as error:  # unsigned it would keep others waiting
            os.unlink(ticket)
            raise OSError(error.errno, error.strerror, ticket) from None
        finally:
            os.close(fd)
        if not seen:
            return False
        if [read_claim(f"{path}{number or ''}") for number in range(len(seen))] == seen:
            os.rename(ticket, path)
            for number in range(1, len(seen)):
                os.unlink(f"{path}{number}")
            return True
        os.unlink(ticket)
        seen = []


def read_claim(path: str) -> str | None:
    """Read a claim; None if it does not exist."""
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return None


def join_claim(path: str, holder: int) -> None:
    """Add this process, a child of the claim's holder, to it; leave if the holder was killed.

    In this order: whoever judges the holder dead afterwards finds the child in the claim.
    """
    if process := find_process():
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(fd, f"{process[0]} {process[1]}\n".encode())
        os.close(fd)
    if os.getppid() != holder:
        os._exit(1)
