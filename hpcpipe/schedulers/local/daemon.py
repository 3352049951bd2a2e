"""How a keeper comes to be, on both sides: a client rouses it; it becomes the only one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from hpcpipe.errors import SchedulerUnavailable
from hpcpipe.schedulers.local.spool import MARKS, Spool

LOCK_SECONDS = 20.0  # for a keeper on its way out to be gone
LOG_BYTES = 1 << 20


def rouse(spool: Spool, linger: float) -> bool:
    """Wake the keeper, or start one and wait until it listens; return whether one was started."""
    if spool.wake():
        return False
    spool.make()
    # What this process can import, the keeper can; but it is no part of any job.
    environment = {name: word for name, word in os.environ.items() if name not in MARKS}
    environment["PYTHONPATH"] = os.pathsep.join(str(Path(one).absolute()) for one in sys.path)
    argv = (
        sys.executable,
        "-P",
        "-m",
        "hpcpipe.schedulers.local.keeper",
        str(spool.root),
        str(linger),
    )
    try:
        done = subprocess.run(
            argv, env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, errors="replace", timeout=60, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise SchedulerUnavailable("the keeper of local jobs did not start in 60 s") from None
    if done.returncode:
        words = done.stderr.strip().rpartition("\n")[2]
        raise SchedulerUnavailable(f"{words}\n(the keeper of local jobs did not start)")
    return True


def take_lock(spool: Spool) -> int | None:
    """Take the keeper's lock until this process ends, or return None where a keeper listens.

    A keeper that holds it and does not listen is about to begin, or to leave: wait for either.
    """
    lock = os.open(spool.lock, os.O_RDWR | os.O_CREAT, 0o600)
    give_up = time.monotonic() + LOCK_SECONDS
    while time.monotonic() < give_up:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if spool.wake():
                return None
            time.sleep(0.01)
        except OSError as error:
            sys.exit(f"{spool.lock}: {error.strerror}; name a folder on a local disk instead")
    sys.exit(f"{spool.lock}: held by a process that does not answer; another host's?")


def listen(spool: Spool) -> tuple[int, int]:
    """Open the FIFO for reading. The other end is ours only so that it never reads as closed."""
    with contextlib.suppress(FileExistsError):
        os.mkfifo(spool.fifo, 0o600)
    reader = os.open(spool.fifo, os.O_RDONLY | os.O_NONBLOCK)
    return reader, os.open(spool.fifo, os.O_WRONLY | os.O_NONBLOCK)


def stop_listening(wake: tuple[int, int]) -> None:
    """Close the FIFO: from here on, clients find nobody."""
    for end in wake:
        os.close(end)


def leave_terminal(spool: Spool, lock: int) -> None:
    """Go on in the background, out of reach of any terminal; the process that was started ends.

    Its end shows the client that the keeper is there and listens.
    """
    with contextlib.suppress(PermissionError):  # leader of a session already
        os.setsid()
    if os.fork():
        os._exit(0)  # not `sys.exit`: what is open belongs to the child now
    os.chdir("/")
    for unheard in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(unheard, signal.SIG_IGN)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(spool.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if os.fstat(log).st_size > LOG_BYTES:
        os.ftruncate(log, 0)
    for ours, standard in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(ours, standard)
    os.close(nothing)
    os.close(log)


def hear_children() -> int:
    """Return a descriptor that becomes readable when a child has ended."""
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # ignored or by default, it would not be heard
    return reader
