"""Measure whole processes, alternating with a floor, and print one table of ratios."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import dumps
from statistics import median
from typing import Literal

import hpcpipe
from hpcpipe.store.ledger import Ledger
from hpcpipe.store.outcomes import Store
from hpcpipe.store.record import read_record
from hpcpipe.store.rundir import RunDir

PYTHON = sys.executable
HPCPIPE = str(Path(PYTHON).with_name("hpcpipe"))
NOOP = str(Path(__file__).with_name("noop.py"))  # two aligned nodes; $SUBJECTS is their size
SITE = os.environ.get("HPCPIPE_SITE", "slurm")  # the site of the real Slurm
SLURM = ("sbatch", "squeue", "sacct", "scontrol", "scancel")
PATIENCE = 1800  # seconds within which an array must end


# --- processes ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Use:
    """What a process and its children used: seconds and peak MB; and its output."""

    wall: float
    cpu: float
    memory: float
    said: str = ""

    def __add__(self, other: Use) -> Use:
        memory = max(self.memory, other.memory)
        return Use(self.wall + other.wall, self.cpu + other.cpu, memory, other.said)

    def __sub__(self, part: Use) -> Use:
        return Use(self.wall - part.wall, self.cpu - part.cpu, self.memory, self.said)


def use(*argv: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Use:
    """Run a command to its end. Raises CalledProcessError if it fails."""
    env = os.environ | dict(env or {})
    began = time.perf_counter()
    with subprocess.Popen(
        argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        said = process.stdout.read() if process.stdout else ""
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, argv, said)
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return Use(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / unit, said.strip())


def bare_python() -> Use:
    """Run the floor of every Python program in this environment."""
    return use(PYTHON, "-c", "pass")


def in_turns(rounds: int, *kinds: Callable[[], Use]) -> list[list[Use]]:
    """Run each kind once per round, so that a busy minute of the machine affects all of them."""
    taken = [[kind() for kind in kinds] for _ in range(rounds)]
    return [list(column) for column in zip(*taken, strict=True)]


@contextmanager
def scratch() -> Iterator[Path]:
    """Provide a folder below the current one, which all nodes must share.

    The user's own configuration is not used.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=".", ignore_cleanup_errors=True) as f:
        folder = Path(f).absolute()
        own = {"XDG_STATE_HOME": str(folder / "state"), "HPCPIPE_LOCAL": str(folder / "local")}
        before = dict(os.environ)
        os.environ.update(own)
        try:
            yield folder
        finally:
            os.environ.clear()
            os.environ.update(before)


def fresh(folder: Path) -> Path:
    """Return a new folder within another, in which nothing has been done yet."""
    return Path(tempfile.mkdtemp(dir=folder))


# --- Slurm, real or simulated ---------------------------------------------------------------------


def slurm_missing() -> str:
    """Return why no Slurm can be measured; empty if one answers."""
    if not all(map(shutil.which, SLURM)):
        return "sbatch and its like are not installed"
    ping = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, check=False)
    return "" if ping.returncode == 0 else f"scontrol ping: {ping.stdout or ping.stderr}".strip()


class Tools:
    """Slurm's commands as scripts to put first on PATH: each records its call, then answers.

    A script without an answer of its own calls the real command.
    """

    def __init__(self, folder: Path, answers: Mapping[str, str]) -> None:
        folder.mkdir()
        self._noted = folder / "calls"
        for name in SLURM:
            answer = answers.get(name, f'exec {shutil.which(name)} "$@"')
            script = f"#!/bin/sh\necho {name} >>{shlex.quote(str(self._noted))}\n{answer}\n"
            (folder / name).write_text(script)
            (folder / name).chmod(0o755)
        self.env = {"PATH": f"{folder}:{os.environ['PATH']}"}

    def calls(self) -> Counter[str]:
        """Return the number of calls of each command so far."""
        return Counter(self._noted.read_text().split() if self._noted.exists() else ())


class Pretended(Tools):
    """A Slurm that accepts everything and runs nothing."""

    def __init__(self, folder: Path) -> None:
        self._queue = folder / "queue"
        answers = {
            "sbatch": f"wc -l <{shlex.quote(str(folder / 'calls'))}",  # a new number
            "squeue": f"cat {shlex.quote(str(self._queue))}",
        }
        super().__init__(folder, dict.fromkeys(SLURM, "exit 0") | answers)
        (folder / "slurm.conf").write_text("ClusterName=pretended\n")
        self.env |= {"HPCPIPE_SITE": "slurm", "SLURM_CONF": str(folder / "slurm.conf")}

    def have_queued(self, jobs: Sequence[str], elements: int) -> None:
        """Make the queue show all elements of arrays as waiting."""
        lines = [f"{job}_[0-{elements - 1}]|PENDING|Priority\n" for job in jobs]
        self._queue.write_text("".join(lines))


def bare_script(path: Path, *words: str) -> Path:
    """Write the script of a bare command."""
    path.write_text(f"#!/bin/sh\n#SBATCH --output=/dev/null\n{shlex.join(words)}\n")
    return path


def jobs_of(run: Path) -> list[str]:
    """Return the job ids of a run, in the order of submission."""
    submissions = Ledger(RunDir(run).ledger).read().submissions.values()
    return [one.job for one in submissions if one.job is not None]


def wait_for(jobs: Sequence[str]) -> None:
    """Wait until jobs have left the queue. Raises TimeoutError after ``PATIENCE``."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        ask = ["squeue", "-h", "-o", "%A", "-j", ",".join(jobs)]
        done = subprocess.run(ask, capture_output=True, text=True, check=False)
        if not done.stdout and (done.returncode == 0 or "Invalid job id" in done.stderr):
            return
        time.sleep(0.1)
    raise TimeoutError(f"jobs {' '.join(jobs)} are still in the queue after {PATIENCE} s")


def finish(run: Path, node: str) -> None:
    """Write the outcomes of a node's tasks as its workers would, without running them."""
    record = {"job": "1_0", "attempt": 0, "host": "node1", "start": time.time(), "wall": 0.01}
    outcome = dumps(record | {"ok": True, "cpu": 0.01, "max_memory": 9000}, 4) + dumps(None, 5)
    rundir = RunDir(run)
    tasks = read_record(rundir, 1).nodes[node]
    for index in range(len(tasks)):
        Store(rundir).result(node, tasks.key(index)).write_bytes(outcome)


# --- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, in words, and its goal."""

    what: str
    figure: str
    floor: str = ""
    ratio: str = ""
    goal: str = ""


def compare(
    what: str,
    by: Literal["cpu", "wall"],
    ours: Sequence[Use],
    floor: Sequence[Use],
    goal: float | None = None,
) -> Row:
    """Return a row for alternating measurements: both medians, and the median of the ratios."""
    pairs = [(getattr(a, by), getattr(b, by)) for a, b in zip(ours, floor, strict=True)]
    ratio = median(one / other for one, other in pairs)
    figures = [_seconds(median(column)) for column in zip(*pairs, strict=True)]
    name = "CPU" if by == "cpu" else by
    return Row(f"{what}: {name}", figures[0], figures[1], f"{ratio:.2f}", _goal(ratio, goal))


def amount(what: str, figure: float, unit: str, goal: float | None = None) -> Row:
    """Return a row for something without a floor: a count, or a time with its own goal."""
    said = _seconds(figure) if unit == "s" else f"{figure:,.0f} {unit}"
    return Row(what, said, goal=_goal(figure, goal, unit))


def _goal(figure: float, goal: float | None, unit: str = "") -> str:
    if goal is None:
        return ""
    return f"≤ {goal:,g} {unit}".rstrip() + (" (missed)" if figure > goal else "")


def _seconds(value: float) -> str:
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def main(rows: Callable[..., Iterable[Row | str]]) -> None:
    """Run the requested measurements and print the table; strings among the rows are notes."""
    parser = argparse.ArgumentParser(description=(sys.modules["__main__"].__doc__ or "").strip())
    parser.add_argument("--size", type=int, default=1000, help="tasks a node (default: 1000)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each kind (default: 3)")
    asked = parser.parse_args()
    began = os.getloadavg()[0]
    taken, notes = [Row("what", "figure", "floor", "ratio", "goal")], []
    for row in rows(asked.size, asked.rounds):
        print(row if isinstance(row, str) else row.what, file=sys.stderr)
        notes.append(row) if isinstance(row, str) else taken.append(row)
    print(*table(taken), "", *notes, *machine(began), sep="\n")


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a simple reStructuredText table; the first row is its header."""
    cells = [list(vars(row).values()) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    yield from (rule, lines[0], rule, *lines[1:], rule)


def machine(load: float) -> Iterator[str]:
    """Yield where and when this was measured; ``load`` is the load at the start."""
    yield f"{time.strftime('%Y-%m-%d')}, hpcpipe {hpcpipe.__version__}, {_slurm_version()}"
    yield f"{platform.python_implementation()} {platform.python_version()}, {platform.platform()}"
    cores, now = os.cpu_count(), os.getloadavg()[0]
    yield f"{cores} cores, load {load:.1f} at the start and {now:.1f} at the end"
    if "site-packages" not in str(hpcpipe.__file__):
        yield "hpcpipe is not installed as users have it: pip install ."


def _slurm_version() -> str:
    try:
        return use("sbatch", "--version").said
    except (OSError, subprocess.CalledProcessError):  # it also fails without a configuration
        return "no Slurm"
