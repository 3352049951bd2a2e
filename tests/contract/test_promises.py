"""What users are promised, through workflows and the command line, on real schedulers."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contract.harness import Bench, Cluster, until

from hpcpipe.schedulers.localspool import Spool

COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sacctmgr")
COUNT = 100

# The last of the first node waits for the first of the second: in any other order than element by
# element it would wait in vain.
ALIGNED = f"""
    import time
    from pathlib import Path
    from hpcpipe import Workflow, each, task

    SIGN = "{{sign}}"

    @task(cpus=1, memory="20M", time="10m")
    def first(n):
        for _ in range(1200):
            if n < {COUNT - 1} or Path(SIGN).exists():
                return n + 1
            time.sleep(0.1)
        raise TimeoutError("the second node waits for all of the first")

    @task(cpus=1, memory="20M", time="10m")
    def second(n):
        Path(SIGN).touch()
        return n * 2

    wf = Workflow("aligned", base_dir="runs")
    wf.add(second, n=wf.add(first, n=each(range({COUNT}))))
"""
GATHERED = """
    from hpcpipe import Workflow, each, task

    @task(cpus=1, memory="50M", time="5m")
    def warp(subject):
        return {"image": subject * 10, "log": "warped %s" % subject}

    @task(cpus=1, memory="50M", time="5m")
    def smooth(image, fwhm):
        return image + fwhm

    @task(cpus=1, memory="50M", time="5m")
    def mean(images):
        return sum(images) / len(images)

    @task(cpus=1, memory="50M", time="5m")
    def table(means, logs):
        return {"means": means, "logs": logs}

    wf = Workflow("gathered", base_dir="runs")
    warped = wf.add(warp, subject=each([1, 2, 3, 4], axis="subject"))
    smoothed = wf.add(smooth, image=warped["image"], fwhm=each([4, 8], axis="fwhm"))
    means = wf.add(mean, images=smoothed.gather("subject"))
    wf.add(table, means=means.gather(), logs=warped["log"].gather())
"""
SLEEPING = """
    import time
    from hpcpipe import Workflow, each, task

    @task(cpus=1, memory="50M", time="10m")
    def sleep(n):
        print("sleeping", n)
        time.sleep(600)

    @task(cpus=1, memory="50M", time="10m")
    def wake(n):
        return n

    wf = Workflow("sleeping", base_dir="runs")
    wf.add(wake, n=wf.add(sleep, n=each([1, 2])))
"""


def results(cluster: Cluster, node: str) -> Any:
    return json.loads(cluster.hpcpipe("results", node, "--json").stdout)


def suggested(text: str) -> list[list[str]]:
    """Find the commands that a screen or message says to type, split as a shell would."""
    found = re.findall(r"(?:Next:|Type:|^     ) hpcpipe (.*?)(?:  .*)?$", text, re.M)
    return [shlex.split(words) for words in found]


@pytest.fixture
def watched(cluster: Cluster) -> Iterator[tuple[Cluster, Path]]:
    """A cluster whose commands are counted: each is noted in a file, then run."""
    shims, log = cluster.home / "shims", cluster.home / "calls"
    shims.mkdir()
    log.touch()
    for name in COMMANDS:
        real = shutil.which(name) or f"/nowhere/{name}"
        shim = shims / name
        shim.write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\nexec {real} "$@"\n')
        shim.chmod(0o755)
    yield replace(cluster, changed={"PATH": f"{shims}:{os.environ['PATH']}"}), log


def test_two_aligned_nodes_are_two_calls_few_files_and_run_element_by_element(
    watched: tuple[Cluster, Path],
) -> None:
    cluster, log = watched
    cluster.write("aligned.py", ALIGNED.format(sign=cluster.home / "sign"))
    said = cluster.hpcpipe("submit", "aligned.py").stdout
    assert "in 2 calls" in said
    calls = [line.split()[0] for line in log.read_text().splitlines()]
    if cluster.name == "slurm":
        assert sorted(calls) == ["sbatch", "sbatch", "scontrol"], log.read_text()
    else:
        assert calls == []
        assert Spool(cluster.spool).ids() == ["1", "2"]
    report = cluster.finish(seconds=180)
    done = {"all": COUNT, "done": COUNT}
    assert report["nodes"] == {"first": done, "second": done}, report["failures"][:3]
    made = [path for path in (cluster.home / "runs").rglob("*") if path.is_file()]
    assert len(made) <= 2 * 2 * COUNT + 10
    assert results(cluster, "second") == {str(n): (n + 1) * 2 for n in range(COUNT)}
    log.write_text("")
    cluster.hpcpipe("status")
    assert log.read_text() == ""  # the files tell it all
