"""What the contract tests share: a scheduler as an adapter sees it, and as a user does."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import dedent
from typing import Any, TypeVar

import psutil
import pytest

from contract.dialects import Dialect
from hpcpipe.indices import ranges
from hpcpipe.jobs import After, JobEnd, JobStatus, State
from hpcpipe.schedulers.base import Done, Scheduler, run_command
from hpcpipe.schedulers.local import tree

T = TypeVar("T")
ODD = 'it\'s a "run" $(touch pwned) `touch pwned` of\nünïcode; 100 %'
PATIENCE = 90.0  # seconds; a busy machine and a scheduler that looks every other second need some


def until(condition: Callable[[], T | None], seconds: float = PATIENCE, pause: float = 0.1) -> T:
    """Wait for a condition to hold, and give what it gave.

    Most conditions start a Python and commands of the scheduler, and cores are few: each pause is
    longer than the one before, up to three seconds.
    """
    give_up = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(pause)
        pause = max(pause, min(pause * 1.3, 3))
    return value


# --- clusters -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cluster:
    """A scheduler under test, and the folder and environment of one user of it."""

    dialect: Dialect
    home: Path
    changed: Mapping[str, str] = field(default_factory=dict)  # in the environment

    @property
    def environment(self) -> dict[str, str]:
        """What this user's commands find around them."""
        return {
            **os.environ,
            "HPCPIPE_SITE": self.dialect.site,
            "HPCPIPE_LOCAL": str(self.home / "spool"),
            "XDG_STATE_HOME": str(self.home / "state"),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            **self.changed,
        }

    @property
    def spool(self) -> Path:
        """Where the local scheduler keeps its jobs on this host."""
        base = self.environment["HPCPIPE_LOCAL"]
        return Path(base, os.uname().nodename.partition(".")[0])

    @property
    def odd(self) -> str:
        """A folder's name that no shell should read, of all that the scheduler can stand."""
        return re.sub(self.dialect.capabilities.no_path, " ", ODD)

    def out_of_reach(self) -> Cluster:
        """Give the same user where the scheduler cannot be asked."""
        return replace(self, changed=self.dialect.out_of_reach(self.home))

    def hpcpipe(
        self,
        *words: str | Path,
        status: int | None = 0,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command line of ours to its end, which must be in this status."""
        done = subprocess.run(
            [sys.executable, "-m", "hpcpipe", *(os.fspath(word) for word in words)],
            cwd=cwd or self.home, env=self.environment, text=True, errors="surrogateescape",
            stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        told = f"{shlex.join(map(str, words))}\n{done.stdout}\n{done.stderr}"
        assert status is None or done.returncode == status, told
        assert "Traceback" not in done.stderr, told
        return done

    def status(self, *words: str | Path, **options: Any) -> dict[str, Any]:
        """Ask for the report as a script would."""
        report: dict[str, Any] = json.loads(
            self.hpcpipe("status", "--json", *words, **options).stdout
        )
        return report

    def finish(self, *words: str | Path, seconds: float = PATIENCE, **options: Any) -> Any:
        """Wait until nothing of the run may change any more, and give the last report."""

        def finished() -> dict[str, Any] | None:
            report = self.status(*words, **options)
            return report if report["finished"] else None

        return until(finished, seconds * self.dialect.slow, pause=0.3)

    def write(self, name: str, text: str) -> Path:
        """Write a file into the user's folder."""
        path = self.home / name
        path.write_text(dedent(text))
        return path

    def end(self) -> None:
        """End what the local scheduler left, or a stand-in."""
        self.dialect.end(self.home)
        for lock in self.home.rglob("keeper.lock"):
            end_keeper(lock)


@contextmanager
def tried(dialect: Dialect, home: Path) -> Iterator[Cluster]:
    """Give a user of a scheduler, with what it takes to find it; end what is left afterwards."""
    dialect.need()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in dialect.variables(home).items():
            patch.setenv(name, value)
        cluster = Cluster(dialect, home)
        yield cluster
        cluster.end()


def end_keeper(lock: Path) -> None:
    """End the keeper of a spool, and all that it runs."""
    try:
        keeper = psutil.Process(int(lock.read_text()))
        if str(lock.parent) in keeper.cmdline():
            keeper.kill()
    except (ValueError, psutil.NoSuchProcess):
        pass  # it was never there, or is gone
    tree.kill({}, str(lock.parent), strays=True)


# --- adapters -------------------------------------------------------------------------------------


@dataclass
class Bench:
    """An adapter, the commands it ran, and a run folder to submit scripts from."""

    cluster: Cluster
    folder: Path
    calls: list[Sequence[str]] = field(default_factory=list)
    scheduler: Scheduler = field(init=False)

    def __post_init__(self) -> None:
        for name in ("batches", "logs"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.scheduler = self.cluster.dialect.adapter(self.cluster.spool, self._run)

    def _run(self, argv: Sequence[str], cwd: Path | None) -> Done:
        self.calls.append(argv)
        return run_command(argv, cwd)

    def script(self, body: str, array: Sequence[int] = (), *directives: str) -> Path:
        """Write a script in the scheduler's dialect; ``$index`` is its array index, ``$nth`` how
        far that is from the first."""
        dialect = self.cluster.dialect
        runs = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges(array))
        first, last = (array[0], array[-1]) if array else (0, 0)
        lines = [*directives, *(dialect.array if array else dialect.job)]
        facts = {"indices": runs, "first": first, "last": last, "unique": len(self.calls)}
        spelled = [line.format(**facts) for line in lines]
        head = "".join(f"{dialect.mark} {line}\n" for line in spelled)
        which = f"index={dialect.index if array else 0} nth=$((index - {first}))\n"
        scripts = self.folder / "batches"  # not every scheduler makes a copy of a script
        script = scripts / f"a script {len([*scripts.iterdir()])}.sh"
        begin = dialect.begin.format(log=f"logs/out{f'.{dialect.index}' if array else ''}")
        script.write_text(f"#!/bin/sh\n{head}{begin}{which}{dedent(body)}")
        script.chmod(0o700)
        return script

    def indices(self, count: int) -> Sequence[int]:
        """Number the elements of an array, from the first index that the scheduler has."""
        first = self.cluster.dialect.capabilities.first_index
        return range(first, first + count)

    def elements(self, job: str, count: int) -> list[str]:
        """Spell the elements of an array of so many."""
        return [self.scheduler.element(job, index) for index in self.indices(count)]

    def submit(
        self,
        body: str,
        *after: After,
        token: str = "t",
        held: bool = False,
        array: int | Sequence[int] = 0,
    ) -> str:
        """Hand a script over; give the id. An array is one of so many elements, or of these."""
        indices = self.indices(array) if isinstance(array, int) else array
        script = self.script(body, indices)
        return self.scheduler.submit(script, after, token=token, held=held)

    def states(self, *jobs: str) -> dict[str, State]:
        """Give the state of all that is live of these."""
        polled: Mapping[str, JobStatus] = self.scheduler.poll(jobs)
        return {element: status.state for element, status in polled.items()}

    def ends(self, *elements: str) -> Mapping[str, JobEnd]:
        """Wait until the accounting knows how all of these ended, and give what it says."""

        def ended() -> Mapping[str, JobEnd] | None:
            said = self.scheduler.account(elements, time.time() - PATIENCE)
            ends = {one: end for one, end in said.items() if isinstance(end, JobEnd)}
            return ends if set(elements) <= set(ends) else None

        return until(ended, pause=0.3)

    def gone(self, *jobs: str) -> None:
        """Wait until nothing of these is queued or running."""
        until(lambda: not self.states(*jobs), pause=0.3)

    def read(self, name: str) -> str:
        """Read a file of the run folder."""
        return (self.folder / name).read_text()

    def has(self, name: str) -> bool:
        """Return whether the run folder has a file."""
        return (self.folder / name).exists()
