"""The folder of the local scheduler: who writes what where, and how it is read back.

::

    <spool>/                     only its owner may enter
      keeper.lock                locked by the living keeper; its process id is inside
      keeper.log                 what keepers had to complain of
      wake                       FIFO: a byte wakes the keeper; no reader means no keeper
      drafts/                    what is being written, or removed: all else is complete
      requests/<time>-<pid>-<n>  "cancel" or "release", then ids, one a line
      jobs/<id>/
        job.json                 the `Spec`
        script                   as it was when submitted
        environment              NUL-separated
        events                   appended to by the keeper alone
        ended                    made by the keeper when the last element has ended

A line of ``events`` is ``<first>-<last> <word> <seconds since 1970>`` and then, for an end, the
other fields of `JobEnd`; for RUNNING, the process id; for RELEASED and STARTING, nothing. STARTING
is written before there is a process: what a keeper died over is lost, never started twice.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import NamedTuple

from hpcpipe.indices import ranges
from hpcpipe.jobs import After, JobEnd, Reason
from hpcpipe.schedulers.local.job import Spec

MARKS = ("HPCPIPE_SPOOL", "HPCPIPE_JOB_ID", "HPCPIPE_INDEX")  # spool, job, index: in every element
STARTING, RUNNING, RELEASED = "STARTING", "RUNNING", "RELEASED"
# Columns after the time; an end has all of JobEnd's.
_EXTRAS = {STARTING: 0, RUNNING: 1, RELEASED: 0}
_END_EXTRAS = 6
_DRAFTS = count()  # two threads may look at the clock at once
_EVENT = re.compile(r"^(\d+)-(\d+) (\w+) (\d+\.\d+)((?: [\w.-]+)*)\n", re.MULTILINE | re.ASCII)


class Event(NamedTuple):
    """One line of ``events``: what happened to the elements ``first`` to ``last``."""

    first: int
    last: int
    word: str
    when: float
    extras: tuple[str, ...]

    @property
    def end(self) -> JobEnd | None:
        """How the elements ended, or None where this is no end."""
        if self.word in _EXTRAS:
            return None
        reason, code, signal, memory, wall, host = self.extras
        return JobEnd(
            native=self.word,
            reason=None if reason == "-" else Reason[reason],
            exit_code=None if code == "-" else int(code),
            signal=None if signal == "-" else int(signal),
            max_memory=None if memory == "-" else int(memory),
            wall=None if wall == "-" else float(wall),
            host="" if host == "-" else host,
        )


def event_line(first: int, last: int, word: str, *extras: str) -> str:
    """Return one line of ``events``."""
    return " ".join((f"{first}-{last}", word, f"{time.time():.3f}", *extras)) + "\n"


def end_lines(indices: Sequence[int], end: JobEnd) -> str:
    """Return the end of these ascending indices, one line for each run of them."""
    columns = (
        end.native,
        end.reason.name if end.reason else "-",
        *("-" if fact is None else str(fact) for fact in (end.exit_code, end.signal)),
        "-" if end.max_memory is None else str(end.max_memory),
        "-" if end.wall is None else f"{end.wall:.3f}",
        end.host or "-",
    )
    return "".join(event_line(a, b, *columns) for a, b in ranges(indices))


@dataclass(frozen=True)
class Spool:
    """The folder; a job that is not there, or not any more, reads as None."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "keeper.lock"

    @property
    def log(self) -> Path:
        return self.root / "keeper.log"

    @property
    def fifo(self) -> Path:
        return self.root / "wake"

    def folder(self, job: str) -> Path:
        return self.root / "jobs" / job

    def check(self) -> None:
        """Raise PermissionError where the spool is, or could become, another user's.

        Scripts in it are run: it must be ours, also under sudo with the user's HOME.
        """
        with contextlib.suppress(FileNotFoundError):
            own, above = self.root.lstat(), self.root.parent.stat()
            others = stat.S_IWGRP | stat.S_IWOTH
            if own.st_uid != os.geteuid() or own.st_mode & others or not stat.S_ISDIR(own.st_mode):
                raise PermissionError(
                    errno.EPERM, "another user owns it or can write to it", str(self.root)
                )
            if above.st_mode & others and not above.st_mode & stat.S_ISVTX:
                raise PermissionError(
                    errno.EPERM,
                    "other users could replace what is in it; chmod go-w",
                    str(self.root.parent),
                )

    def make(self) -> None:
        """Make the folders that are missing; raises PermissionError as `check` does."""
        self.root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.mkdir(mode=0o700, exist_ok=True)
        self.check()
        for name in ("drafts", "requests", "jobs"):
            (self.root / name).mkdir(mode=0o700, exist_ok=True)

    def ids(self) -> list[str]:
        """List the jobs, oldest first."""
        with contextlib.suppress(FileNotFoundError):
            names = [folder.name for folder in (self.root / "jobs").iterdir()]
            return sorted(filter(str.isdecimal, names), key=int)
        return []

    def place(self, spec: Spec, script: bytes, environment: Mapping[bytes, bytes]) -> str:
        """Put a job in place, complete or not at all; return its id."""
        draft = self._draft()
        draft.mkdir(mode=0o700)
        (draft / "script").touch(0o777)
        (draft / "script").write_bytes(script)
        # Only so can the umask be read without changing it under other threads.
        spec = replace(spec, umask=0o777 & ~(draft / "script").stat().st_mode)
        plain = asdict(spec) | {"after": [after._asdict() for after in spec.after]}
        (draft / "job.json").write_text(json.dumps(plain), "ascii")
        pairs = b"\0".join(b"=".join(pair) for pair in environment.items())
        (draft / "environment").touch(0o600)
        (draft / "environment").write_bytes(pairs)
        job = int((self.ids() or ["0"])[-1]) + 1
        while True:
            try:
                # A folder cannot be renamed onto another with something in it, so that of two
                # clients only one gets the number.
                draft.rename(self.folder(str(job)))
                return str(job)
            except OSError:
                if not self.folder(str(job)).exists():
                    raise
                job += 1

    def request(self, verb: str, ids: Sequence[str]) -> None:
        """Ask the keeper, now or the next one, to ``cancel`` or ``release``."""
        draft = self._draft()
        draft.write_text("\n".join((verb, *ids)), "ascii")
        draft.rename(self.root / "requests" / draft.name)

    def requests(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Yield the requests that are there now; each is forgotten as the next is taken."""
        paths = sorted((self.root / "requests").iterdir())

        def read() -> Iterator[tuple[str, Sequence[str]]]:
            for path in paths:
                verb, *ids = path.read_text("ascii").split("\n")
                yield verb, ids
                path.unlink()

        return read()

    def _draft(self) -> Path:
        return self.root / "drafts" / f"{time.time_ns()}-{os.getpid()}-{next(_DRAFTS)}"

    def spec(self, job: str) -> Spec | None:
        """Read what a job asked for."""
        try:
            said = json.loads((self.folder(job) / "job.json").read_bytes())
            return Spec(**said | {"after": tuple(After(**one) for one in said["after"])})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):  # cut short when the power went
            return None

    def environment(self, job: str) -> dict[bytes, bytes]:
        """Read the environment a job was submitted from."""
        pairs = (self.folder(job) / "environment").read_bytes().split(b"\0")
        return {name: value for name, _, value in (pair.partition(b"=") for pair in pairs) if name}

    def ended(self, job: str) -> bool:
        """Return whether every element of a job is known to have ended."""
        return (self.folder(job) / "ended").exists()

    def mark_ended(self, job: str) -> None:
        """Record that every element of a job has ended."""
        (self.folder(job) / "ended").touch(0o600)

    def record(self, job: str, lines: str) -> None:
        """Append whole lines to a job's events, in one write."""
        path = self.folder(job) / "events"
        events = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            if os.write(events, lines.encode("ascii")) < len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        finally:
            os.close(events)

    def mend(self, job: str) -> None:
        """End a line that was cut short, so that the next one stands by itself."""
        with contextlib.suppress(FileNotFoundError):
            if not (self.folder(job) / "events").read_bytes().endswith(b"\n"):
                self.record(job, "\n")

    def events(self, job: str) -> Iterator[Event]:
        """Read a job's events; a line cut short by a full disk or a lost power is passed over."""
        try:
            text = (self.folder(job) / "events").read_text("ascii", "replace")
        except FileNotFoundError:
            return
        for match in _EVENT.finditer(text):
            first, last, word, when, rest = match.groups()
            extras = tuple(rest.split())
            if len(extras) == _EXTRAS.get(word, _END_EXTRAS):
                yield Event(int(first), int(last), word, float(when), extras)

    def purge(self, before: float, needed: Collection[str]) -> None:
        """Remove the jobs that ended before then, and drafts of clients that died.

        The last job stays whatever its age: from it the next id is counted, and no id may ever
        be given twice.
        """
        for job in self.ids()[:-1]:
            with contextlib.suppress(FileNotFoundError):
                if job not in needed and (self.folder(job) / "ended").stat().st_mtime < before:
                    self.folder(job).rename(draft := self._draft())
                    shutil.rmtree(draft)
        for draft in (self.root / "drafts").iterdir():
            if draft.stat().st_mtime < before:
                shutil.rmtree(draft) if draft.is_dir() else draft.unlink()

    def wake(self) -> bool:
        """Wake the keeper; tell whether there was one."""
        try:
            wake = os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # ENXIO: nobody reads; ENOENT: nobody ever did
            return False
        try:
            os.write(wake, b"\n")
        except BlockingIOError:  # so full that it will be read anyway
            pass
        except BrokenPipeError:  # the keeper left in between
            return False
        finally:
            os.close(wake)
        return True
