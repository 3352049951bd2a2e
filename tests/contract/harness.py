"""What the contract tests share: a scheduler as an adapter sees it, and as a user does."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Any, TypeVar

import psutil
import pytest

from hpcpipe.model import After, JobEnd, JobStatus, State
from hpcpipe.schedulers.base import Done, Scheduler, run_command
from hpcpipe.schedulers.local import Local, tree
from hpcpipe.schedulers.slurm import Slurm

T = TypeVar("T")
ODD = 'it\'s a "run" $(touch pwned) `touch pwned` of\nünïcode; 100 %'
PATIENCE = 90.0  # seconds; a busy machine and a Slurm that schedules every other second need some


SCHEDULERS = ("local", pytest.param("slurm", marks=pytest.mark.slurm))


@cache
def slurm_missing() -> str:
    """Say why no Slurm can be tried, or nothing where one can."""
    if not os.environ.get("SLURM_CONF"):
        return "SLURM_CONF is not set"
    if os.geteuid() == 0:
        return "the tests run as root, who is no ordinary user of it"
    try:
        ping = subprocess.run(
            ["scontrol", "ping"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"scontrol ping: {error}"
    return "" if ping.returncode == 0 else f"scontrol ping: {ping.stdout or ping.stderr}".strip()


def need(scheduler: str) -> None:
    """Skip the test if it needs a Slurm and there is none; where nothing may be skipped, fail."""
    if scheduler == "slurm" and (missing := slurm_missing()):
        said = f"all tests that need a real Slurm: {missing}"
        if os.environ.get("HPCPIPE_TEST_STRICT") == "1":
            pytest.fail(f"{said}; HPCPIPE_TEST_STRICT=1 lets nothing be skipped", pytrace=False)
        pytest.skip(said)


def until(condition: Callable[[], T | None], seconds: float = PATIENCE, pause: float = 0.1) -> T:
    """Wait for a condition to hold, and give what it gave."""
    give_up = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(pause)
    return value


# --- clusters -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cluster:
    """A scheduler under test, and the folder and environment of one user of it."""

    name: str
    home: Path
    changed: Mapping[str, str] = field(default_factory=dict)  # in the environment

    @property
    def environment(self) -> dict[str, str]:
        """What this user's commands find around them."""
        return {
            **os.environ,
            "HPCPIPE_SITE": {"local": "local", "slurm": "test-slurm"}[self.name],
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

    def out_of_reach(self) -> Cluster:
        """Give the same user where the scheduler cannot be asked."""
        if self.name == "local":
            (self.home / "file").touch()
            return replace(self, changed={"HPCPIPE_LOCAL": str(self.home / "file" / "spool")})
        dead = self.home / "dead.conf"
        conf = Path(os.environ["SLURM_CONF"]).read_text()
        # Nothing listens on port 9; by default each command would try for ten seconds or twenty.
        conf = re.sub(r"^(SlurmctldPort|AccountingStoragePort)=.*", r"\1=9", conf, flags=re.M)
        dead.write_text(f"{conf}\nMessageTimeout=2\n")
        return replace(self, changed={"SLURM_CONF": str(dead)})

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

        return until(finished, seconds, pause=0.5)

    def write(self, name: str, text: str) -> Path:
        """Write a file into the user's folder."""
        path = self.home / name
        path.write_text(dedent(text))
        return path

    def end(self) -> None:
        """End what the local scheduler left; a Slurm keeps nothing for us."""
        for lock in self.home.rglob("keeper.lock"):
            end_keeper(lock)


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
        local = self.cluster.name == "local"
        self.scheduler = Local(self.cluster.spool, grace=0.5) if local else Slurm(self._run)

    def _run(self, argv: Sequence[str], cwd: Path | None) -> Done:
        self.calls.append(argv)
        return run_command(argv, cwd)

    def script(self, body: str, **directives: str) -> Path:
        """Write a script in the scheduler's dialect; ``$index`` is its array index."""
        mark, index = {
            "local": ("#HPCPIPE", "HPCPIPE_INDEX"),
            "slurm": ("#SBATCH", "SLURM_ARRAY_TASK_ID"),
        }[self.cluster.name]
        directives["output"] = "logs/out.%a" if "array" in directives else "logs/out"
        if self.cluster.name == "slurm":
            directives |= {"time": "10:00", "mem": "50M"}
        head = "".join(f"{mark} --{name}={value}\n" for name, value in directives.items())
        script = self.folder / "batches" / "a script.sh"
        script.write_text(f"#!/bin/sh\n{head}index=${index}\n{dedent(body)}")
        return script

    def submit(
        self, body: str, *after: After, token: str = "t", held: bool = False, array: str = ""
    ) -> str:
        """Hand a script over; give the id."""
        script = self.script(body, **({"array": array} if array else {}))
        return self.scheduler.submit(script, after, token=token, held=held)

    def states(self, *jobs: str) -> dict[str, State]:
        """Give the state of all that is live of these."""
        polled: Mapping[str, JobStatus] = self.scheduler.poll(jobs)
        return {element: status.state for element, status in polled.items()}

    def ends(self, *elements: str) -> Mapping[str, JobEnd]:
        """Wait until the accounting knows how all of these ended, and give what it says."""

        def ended() -> Mapping[str, JobEnd] | None:
            ends = self.scheduler.account(elements, time.time() - PATIENCE)
            return ends if set(elements) <= set(ends) else None

        return until(ended, pause=0.3)

    def gone(self, *jobs: str) -> None:
        """Wait until nothing of these is queued or running."""
        until(lambda: not self.states(*jobs), pause=0.3)

    def read(self, name: str) -> str:
        """Read a file of the run folder."""
        return (self.folder / name).read_text()

    def has(self, name: str) -> bool:
        """Tell whether the run folder has a file."""
        return (self.folder / name).exists()
