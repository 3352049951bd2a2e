"""Where everything lies under ``<base_dir>/<workflow>/.hpcpipe``, and how it is written there.

Knows every path; refuses to know what the files mean. A file is written whole, beside its place,
and renamed into it; folders are 0700, since a pickle that others could write is never read.
"""

from __future__ import annotations

import os
import time
from _pickle import dumps, load  # without its Python face, which costs every status a millisecond
from _thread import get_native_id  # likewise
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from hpcpipe.errors import LockHeld, ResultError, UsageError
from hpcpipe.outcome import Refused, open_trusted, scan_pack

_SIGN_SECONDS = 2.0  # in which whoever made the lock writes into it who they are


class Listing(NamedTuple):
    """What one look at a node's results saw: good keys, error files by key, claimed keys."""

    good: frozenset[str]
    errors: dict[str, tuple[str, ...]]  # key → the batches it went wrong in
    claims: frozenset[str]
    packed: Mapping[str, str] = MappingProxyType({})  # good key → where in which pack


class RunDir:
    """The files of one workflow; ``folder`` is ``<base_dir>/<workflow>``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / ".hpcpipe"
        self.ledger = self.home / "ledger.jsonl"
        self.lock_file = self.home / "lock"
        self.batches = self.home / "batches"
        self.results = self.home / "results"
        self.packs = self.home / "packs"  # outcomes of elements of several tasks
        self.logs = self.home / "logs"
        self.plans = self.home / "plans"
        self.pushed = self.home / "pushed"  # constants of an executor, by digest
        self.asked = self.home / "asked.pkl"  # the scheduler's last answer, shared by all clients
        self.asking = self.home / "asking"  # there while a client asks
        self.files = self.home / "files.pkl"  # digests of input files

    def create(self) -> None:
        """Make the folders; raises UsageError where they cannot be made."""
        try:
            for folder in (self.batches, self.results, self.packs, self.logs, self.plans):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.home.chmod(0o700)
        except OSError as error:
            raise UsageError(
                f"{error.filename}: {error.strerror}; choose a base_dir you can write to"
            ) from error

    @property
    def exists(self) -> bool:
        """Tell whether anything was ever submitted here."""
        return self.ledger.exists()

    def result(self, node: str, key: str) -> Path:
        """Name the good outcome of a task."""
        return self.results / node / f"{key}.pkl"

    def error(self, node: str, key: str, batch: str) -> Path:
        """Name the outcome of a task that went wrong in a batch."""
        return self.results / node / f"{key}.{batch}.err"

    def log(self, batch: str, index: int | None) -> Path:
        """Name the log of one element of a batch, or of a plain job."""
        return self.logs / (f"{batch}.out" if index is None else f"{batch}.{index}.out")

    def own_log(self, batch: str, key: str) -> Path:
        """Name the log of a task of its own, which it has while others run beside it."""
        return self.logs / f"{batch}.{key}.out"

    def stopped(self, token: str) -> Path:
        """Name the file by which the first crash stops the tasks of a submission, if it is to."""
        return self.home / f"stopped-{token}"

    def list_packs(self) -> list[tuple[str, str, bool]]:
        """List the outcomes in all packs: the pack, the task's key, and whether it is good."""
        try:
            names = sorted(name for name in os.listdir(self.packs) if name.endswith(".pack"))
        except FileNotFoundError:
            return []
        try:
            return [
                (name, key, good)
                for name in names
                for key, good, _ in scan_pack(str(self.packs / name))
            ]
        except Refused as error:
            raise ResultError(str(error)) from error

    def list_all(self, nodes: Iterable[str]) -> dict[str, Listing]:
        """Look once at the results of several nodes; of packs, only the outline is read.

        What is in packs is in every node's listing: keys tell nodes apart.
        """
        listings = {node: self.list_results(node) for node in nodes}
        packs = self.list_packs()
        if not packs:
            return listings
        packed = {key: f"{self.packs / name}#{key}" for name, key, good in packs if good}
        errors: dict[str, tuple[str, ...]] = {}
        for name, key, good in packs:
            if not good:
                errors[key] = (*errors.get(key, ()), name.rsplit(".", 2)[0])
        return {
            node: Listing(one.good | packed.keys(), errors | one.errors, one.claims, packed)
            for node, one in listings.items()
        }

    def read_outcome(self, node: str, key: str, batch: str | None) -> Any:
        """Read what an outcome says of itself: the good one, or (``batch``) one that went wrong.

        Gives an empty dict where there is none, or it is damaged.
        """
        path, at = self._find(node, key, batch)
        return read_pickle(path, {}, at)

    def read_error(self, node: str, key: str, batch: str) -> Any:
        """Read the exception that a task raised in a batch; None where it left none."""
        path, at = self._find(node, key, batch)
        return read_pickle(path, None, at, skip=1)

    def _find(self, node: str, key: str, batch: str | None) -> tuple[Path, int]:
        """Find the file of an outcome, and where in it the outcome begins."""
        path = self.result(node, key) if batch is None else self.error(node, key, batch)
        for pack in () if path.exists() else sorted(self.packs.glob(f"{batch or '*'}.*.pack")):
            for found, good, at in scan_pack(str(pack)):
                if found == key and good == (batch is None):
                    return pack, at
        return path, 0

    def list_results(self, node: str) -> Listing:
        """Look once at a node's results, those in packs left out; reads no file."""
        good, claims = set(), set()
        errors: dict[str, tuple[str, ...]] = {}
        try:
            names = os.listdir(self.results / node)
        except FileNotFoundError:
            names = []
        for name in names:
            key, _, kind = name.partition(".")
            if kind == "pkl":
                good.add(key)
            elif kind == "claim":
                claims.add(key)
            elif kind.endswith(".err"):
                errors[key] = (*errors.get(key, ()), kind[:-4])
        return Listing(frozenset(good), errors, frozenset(claims))

    @contextmanager
    def lock(self, wait: float = 10) -> Iterator[None]:
        """Hold the run's lock; raises LockHeld, saying who holds it and since when, after ``wait``
        seconds. A holder that is provably gone (same host, dead pid) loses it, and so does one
        that was killed before it could sign."""
        from filelock import SoftFileLock, Timeout

        lock = SoftFileLock(self.lock_file, timeout=wait, poll_interval=0.05)
        unsigned = self._unsigned()
        try:
            if unsigned is not None and wait >= _SIGN_SECONDS:
                with suppress(Timeout):
                    lock.acquire(timeout=_SIGN_SECONDS)
                if not lock.is_locked and self._unsigned() == unsigned:
                    self.lock_file.unlink(missing_ok=True)
            if not lock.is_locked:
                lock.acquire()
        except Timeout:
            raise LockHeld(
                f"{self.lock_file}: held by {self.holder() or 'an unknown process'}; wait for it, "
                "or if it is surely gone: hpcpipe unlock"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _unsigned(self) -> int | None:
        """Identify a lock that says nothing of its holder; None where there is no such lock."""
        try:
            stat = self.lock_file.stat()
        except OSError:
            return None
        return None if stat.st_size else stat.st_ino

    def is_held(self) -> bool:
        """Tell whether somebody holds the lock who lives, as far as can be seen."""
        return bool(signer_lives(self.lock_file))

    def holder(self) -> str:
        """Say who holds the lock, and since when; empty where nobody does."""
        try:
            words = self.lock_file.read_text(errors="replace").split()
            stat = self.lock_file.stat()
        except OSError:
            return ""
        pid, host = [*words, "?", "?"][:2]
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stat.st_mtime))
        return f"process {pid} on {host} (user id {stat.st_uid}) since {since}"


def sign(file: Path) -> None:
    """Make a file with this process's id and host in it: there is no moment when it is unsigned.

    Raises FileExistsError where there is one.
    """
    host = os.uname().nodename
    part = file.with_name(f".{file.name}.{host}.{get_native_id()}")
    part.unlink(missing_ok=True)  # of a client that was killed here
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, f"{os.getpid()} {host}".encode())
        os.link(part, file)
    finally:
        os.close(fd)
        part.unlink()


def signer_lives(file: Path) -> bool | None:
    """Tell whether the process lives that signed a file, by its id and host.

    One of another host is taken to. None where there is no file, or no signature yet.
    """
    try:
        pid, host = file.read_text(errors="replace").split()[:2]
        if host == os.uname().nodename:
            os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's process
    except (OSError, ValueError):
        return None
    return True


def write_whole(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file beside its place and rename it there, on disk before it has its name."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)  # of a client that was killed here and had our process id
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    part.replace(path)


def write_pickle(path: Path, value: Any) -> None:
    """Write plain values (no classes of ours) as a pickle, whole."""
    write_whole(path, dumps(value, 4))


def read_pickle(path: Path, default: Any = None, at: int = 0, skip: int = 0) -> Any:
    """Read what `write_pickle` wrote, or ``default`` where there is nothing or it is damaged.

    ``at`` is where it begins, ``skip`` how many pickles are before it from there. Raises
    ResultError where another user could have written it.
    """
    try:
        with open_trusted(str(path)) as file:
            file.seek(at)
            for _ in range(skip):
                load(file)
            return load(file)
    except Refused as error:
        raise ResultError(str(error)) from error
    except Exception:  # a damaged pickle raises anything
        return default
