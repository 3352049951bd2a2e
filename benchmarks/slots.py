"""A real Slurm with a known number of slots: its site, its latency, and the times of a run."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import measure
from measure import HPCPIPE, use

SLOTS = 40  # of the test cluster
Span = tuple[float, float]  # when an element started and ended, in seconds


def slots_site(folder: Path) -> dict[str, str]:
    """Write a site file with the number of cores; return the environment that names it."""
    site = folder / "slots.toml"
    site.write_text(f'extends = "{measure.SITE}"\n[limits]\ncores = {SLOTS}\n')
    return {"HPCPIPE_SITE": str(site)}


def latency(folder: Path, env: Mapping[str, str]) -> float:
    """Measure what Slurm adds to an element of a full cluster, in seconds, by many short sleeps."""
    naps = ("map", "--name=nap", "--base-dir=runs", "--", "sh", "-c", "sleep 1", ":::")
    per = 10
    flat = lasted(spans(folder, env, "nap", *naps, *map(str, range(per * SLOTS))))
    return max(0.0, flat / per - 1)


def spans(folder: Path, env: Mapping[str, str], name: str, *words: str) -> list[Span]:
    """Submit, wait, and return when each element started and ended, from the accounting."""
    use(HPCPIPE, *words, cwd=folder, env=env)
    jobs = measure.jobs_of(folder / "runs" / name)
    measure.wait_for(jobs)
    time.sleep(3)  # sacct lags behind
    ask = ("sacct", "-nPX", "-j", ",".join(jobs), "-o", "Start,End")
    told = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split()
    return [(seconds(start), seconds(end)) for start, end in (row.split("|") for row in told)]


def lasted(taken: Sequence[Span]) -> float:
    """Return the seconds from the first start to the last end."""
    return max(end for _, end in taken) - min(start for start, _ in taken)


def seconds(text: str) -> float:
    """Parse a time of the accounting."""
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
