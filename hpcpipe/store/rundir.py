"""Where everything lies under ``<base_dir>/<workflow>/.hpcpipe``, and how it is written there.

Knows every path but those of outcomes, which `hpcpipe.store.outcomes` does; refuses to know what
the files mean. A file is written whole, beside its place,
and renamed into it; folders are 0700, since a pickle that others could write is never read.
"""

from __future__ import annotations

import math
import os
import time
from _pickle import dumps, load  # without its Python face, which costs every status a millisecond
from _thread import get_native_id  # without threading, for the same reason
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote
from typing import Any

from hpcpipe.errors import LockHeld, ResultError, UsageError
from hpcpipe.worker import claim
from hpcpipe.worker.outcome import FOLDERS, Refused, open_trusted

_JOB_IDS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID", "OAR_JOB_ID", "HPCPIPE_JOB_ID")
CUT = "cut-logs"  # from ``.hpcpipe``, where jobs start
_SIGN_SECONDS = 2.0  # in which whoever made the lock writes into it who they are


class RunDir:
    """The files of one workflow; ``folder`` is ``<base_dir>/<workflow>``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / ".hpcpipe"
        self.ledger = self.home / "ledger.jsonl"
        self.lock_file = self.home / "lock"
        self.batches = self.home / "batches"
        self.logs = self.home / "logs"
        self.plans = self.home / "plans"
        self.pushed = self.home / "pushed"  # constants of an executor, by digest
        self.accounted = self.home / "accounted"  # the run whose accounting was looked at
        self.asked = self.home / "asked.pkl"  # the scheduler's last answer, shared by all clients
        self.asking = self.home / "asking"  # there while a client asks
        self.cut = self.home / CUT  # logs that have lost their middle, line by line
        self.waking = self.home / "waking"  # there until the continuation begins that a task woke
        self.due = self.home / "due"  # there while a retry may be due, for whatever begins next
        self.notified = self.home / "notified"  # the run whose end was told
        self.files = self.home / "files.pkl"  # digests of input files

    def create(self) -> None:
        """Make the folders; raises UsageError where they cannot be made.

        The workflow's own is 0700 too, unless somebody opened it: who may write there can put
        another ``.hpcpipe`` in place of this one.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            outcomes = (self.home / name for name in FOLDERS)
            for folder in (self.batches, *outcomes, self.logs, self.plans):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.home.chmod(0o700)
        except OSError as error:
            raise UsageError(
                f"{error.filename}: {error.strerror}; choose a base_dir you can write to"
            ) from error

    @property
    def exists(self) -> bool:
        """Whether anything was ever submitted here; raises UsageError where it may not be read."""
        try:
            self.ledger.stat()
        except PermissionError:
            if not os.path.exists(self.home):
                return False
            if (owner := self.home.stat().st_uid) != os.geteuid():
                raise UsageError(
                    f"{self.home}: this run belongs to user id {owner}, and only they can look at "
                    "it or go on with it; submit the workflow with a base_dir of your own"
                ) from None
            raise UsageError(
                f"{self.home}: this run cannot be read, as you may not open the folder; "
                f"type: chmod u+rwx {quote(str(self.home))}"
            ) from None
        except OSError:
            return False
        return True

    def plan(self, digest: str) -> Path:
        """Name a frozen plan."""
        return self.plans / f"{digest}.plan"

    def payloads(self, name: str) -> Path:
        """Name the payloads of a frozen plan's node."""
        return self.plans / name

    def record(self, run: int) -> Path:
        """Name the record of a run."""
        return self.plans / f"{run}.pkl"

    def records(self) -> list[int]:
        """List the runs that have a record."""
        return sorted(int(path.stem) for path in self.plans.glob("*.pkl") if path.stem.isdecimal())

    def tasks(self, batch: str) -> Path:
        """Name a batch's task file."""
        return self.home / tasks_path(batch)

    def script(self, batch: str) -> Path:
        """Name a batch's script."""
        return self.batches / f"{batch}.sh"

    def log(self, batch: str, index: int | None) -> Path:
        """Name the log of one element of a batch, or of a plain job."""
        return self.logs / (f"{batch}.out" if index is None else f"{batch}.{index}.out")

    def own_log(self, batch: str, key: str) -> Path:
        """Name the log of a task of its own, which it has while others run beside it."""
        return self.logs / f"{batch}.{key}.out"

    def stopped(self, token: str) -> Path:
        """Name the file by which the first crash stops the tasks of a submission, if it is to."""
        return self.home / f"stopped-{token}"

    @contextmanager
    def lock(self, wait: float = 10, holder: str = "") -> Iterator[None]:
        """Hold the run's lock; raises LockHeld, naming the holder, after ``wait`` seconds.

        It is a claim (see `hpcpipe.worker.claim`), taken over only from a holder that is provably
        dead, or was killed before it could sign. All waits go by this process's own clock.
        """
        mine, give_up = _sign(holder), time.monotonic() + wait
        unsigned, first_seen = self._unsigned(), time.monotonic()
        while True:
            try:
                claim.take(str(self.lock_file), mine)
                break
            except claim.Held as held:
                if unsigned is None or self._unsigned() != unsigned:
                    unsigned, first_seen = self._unsigned(), time.monotonic()
                elif time.monotonic() - first_seen > _SIGN_SECONDS:
                    self.lock_file.unlink(missing_ok=True)
                    continue
                if time.monotonic() > give_up:
                    raise LockHeld(
                        f"{self.lock_file}: held by {self.holder() or held}; wait for it, or if it "
                        "is surely gone: hpcpipe unlock"
                    ) from None
                time.sleep(0.05)
        try:
            yield
        finally:
            if (claim.read_claim(str(self.lock_file)) or "").startswith(mine):  # else it was broken
                self.lock_file.unlink()

    def locked_by(self) -> tuple[str, str]:
        """Return which job of ours holds the lock, as it signed, and its id; else both empty."""
        try:
            signed = claim.read_claim(str(self.lock_file)) or ""
        except OSError:
            return "", ""
        return claim.job_of_claim(signed) if claim.is_signed(signed) else ("", "")

    def note_end(self, holder: str, job: str) -> None:
        """Note in the lock that the job that holds it has ended."""
        with suppress(OSError), open(self.lock_file, "r+b") as lock:
            lock.seek(0, os.SEEK_END)
            if self.locked_by() == (holder, job):
                lock.write(f"{claim.ENDED}\n".encode())

    def _unsigned(self) -> int | None:
        """Identify a lock without the name of its holder; None if there is no such lock."""
        try:
            stat = self.lock_file.stat()
        except OSError:
            return None
        return None if stat.st_size else stat.st_ino

    def is_held(self) -> bool:
        """Return whether somebody holds the lock who is not provably dead."""
        return bool(signer_lives(self.lock_file))

    def unlock(self, *, sure: bool) -> None:
        """Break the lock; raises LockHeld where its holder is seen to live on this host.

        Also where it cannot be seen, unless somebody is ``sure`` that it is gone.
        """
        signed = claim.read_claim(str(self.lock_file)) or ""
        here = claim.is_here(signed, _sign())
        if (here or not sure) and signer_lives(self.lock_file):
            words = (
                "is still running on this host; wait for it, or end that process"
                if here
                else "cannot be seen from here; if it is surely gone: hpcpipe unlock --yes"
            )
            raise LockHeld(f"{self.lock_file}: {self.holder()} {words}")
        self.lock_file.unlink(missing_ok=True)

    def told(self) -> int:
        """Return the last run whose end was told; 0 if there is none."""
        try:
            return int(self.notified.read_bytes())
        except (OSError, ValueError):
            return 0

    def holder(self) -> str:
        """Name who holds the lock, and since when; empty where nobody does."""
        try:
            signed = claim.read_claim(str(self.lock_file))
            stat = self.lock_file.stat()
        except OSError:
            return ""
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stat.st_mtime))
        return f"{claim.name_holder(signed or '')} (user id {stat.st_uid}) since {since}"


def _sign(holder: str = "") -> str:
    """Sign as this process; in a job, as the job."""
    job = next((os.environ[name] for name in _JOB_IDS if name in os.environ), "")
    return claim.sign(job, os.environ.get("SLURM_RESTART_COUNT", "0"), holder)


def environment_path(digest: str) -> str:
    """Name a file of variables that tasks inherit, from ``.hpcpipe``."""
    return f"batches/{digest}.env"


def tasks_path(batch: str) -> str:
    """Name a batch's task file, from ``.hpcpipe``, where jobs start."""
    return f"batches/{batch}.tasks"


def sign(file: Path) -> None:
    """Make a file with a claim of this process in it: there is no moment when it is unsigned.

    Raises FileExistsError where there is one.
    """
    part = file.with_name(f".{file.name}.{os.uname().nodename}.{get_native_id()}")
    part.unlink(missing_ok=True)  # of a client that was killed here
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, _sign().encode())
        os.link(part, file)
    finally:
        os.close(fd)
        part.unlink()


def signer_lives(file: Path) -> bool | None:
    """Return whether the process that signed a file lives, as far as can be seen from here.

    False only where it is provably dead. None where there is no file, or no signature yet.
    """
    try:
        signed = claim.read_claim(str(file))
    except OSError:
        return None
    return not claim.is_gone(signed, _sign()) if signed else None


def elapsed(since: float, now: float | None = None) -> float:
    """Return the seconds since a time that may be from another host's clock.

    A time in the future is as old as it is ahead: one by a clock that is much ahead is out of date,
    and one by a clock that differs by a second is not.
    """
    return abs((time.time() if now is None else now) - since)


def age(path: Path) -> float:
    """Return how old a file is, as `elapsed`; infinite if it does not exist."""
    try:
        return elapsed(path.stat().st_mtime)
    except OSError:
        return math.inf


def write_whole(path: Path, data: bytes | Iterable[bytes], mode: int = 0o600) -> None:
    """Write a file beside its place and rename it there, on disk before it has its name."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)  # of a client that was killed here and had our process id
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(fd, "wb") as file:
            file.writelines((data,) if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(fd)
    except OSError as error:  # a full disk
        part.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error
    part.replace(path)


def write_pickle(path: Path, value: Any) -> None:
    """Write plain values (no classes of ours) as a pickle, whole."""
    write_whole(path, dumps(value, 4))


def read_pickle(path: Path, default: Any = None) -> Any:
    """Read what `write_pickle` wrote, or ``default`` where there is nothing or it is damaged.

    Raises ResultError where another user could have written it.
    """
    try:
        with open_trusted(str(path)) as file:
            return load(file)
    except Refused as error:
        raise ResultError(str(error)) from error
    except Exception:  # a damaged pickle raises anything
        return default
