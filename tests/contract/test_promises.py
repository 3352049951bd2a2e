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
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from contract.dialects import LOCAL
from contract.dialects.base import Times
from contract.harness import Cluster, until
from hpcpipe.store.ledger import Ledger
from hpcpipe.store.rundir import RunDir
from hpcpipe.worker.outcome import load_value

COUNT = 100

# The last of the first node waits for the first of the second: in any other order than element by
# element it would wait in vain.
ALIGNED = f"""
    import time
    from pathlib import Path
    from hpcpipe import Workflow, each, task

    SIGN = "{{sign}}"

    @task(cpus=1, memory="100M", time="10m")
    def first(n):
        for _ in range(1200):
            if n < {COUNT - 1} or Path(SIGN).exists():
                return n + 1
            time.sleep(0.1)
        raise TimeoutError("the second node waits for all of the first")

    @task(cpus=1, memory="100M", time="10m")
    def second(n):
        Path(SIGN).touch()
        return n * 2

    wf = Workflow("aligned", base_dir="runs")
    wf.add(second, n=wf.add(first, n=each(range({COUNT}))))
"""
GATHERED = """
    from hpcpipe import Workflow, each, task

    @task(cpus=1, memory="100M", time="5m")
    def warp(subject):
        return {"image": subject * 10, "log": "warped %s" % subject}

    @task(cpus=1, memory="100M", time="5m")
    def smooth(image, fwhm):
        return image + fwhm

    @task(cpus=1, memory="100M", time="5m")
    def mean(images):
        return sum(images) / len(images)

    @task(cpus=1, memory="100M", time="5m")
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

    @task(cpus=1, memory="100M", time="10m")
    def sleep(n):
        print("sleeping", n)
        time.sleep(600)

    @task(cpus=1, memory="100M", time="10m")
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
def watched(cluster: Cluster) -> tuple[Cluster, Path]:
    """A cluster whose commands are counted: each is noted in a file, then run."""
    shims, log = cluster.home / "shims", cluster.home / "calls"
    shims.mkdir()
    log.touch()
    for name in cluster.dialect.commands:
        real = shutil.which(name) or f"/nowhere/{name}"
        shim = shims / name
        shim.write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\nexec {real} "$@"\n')
        shim.chmod(0o755)
    return replace(cluster, changed={"PATH": f"{shims}:{os.environ['PATH']}"}), log


def whole(times: Times, job: str) -> list[tuple[str, str]] | None:
    """Give the times of all elements of an array in their order, once all are known."""
    known = times(job)
    by_index = sorted(known, key=lambda element: int(re.findall(r"\d+", element)[-1]))
    return [known[element] for element in by_index] if len(known) == COUNT else None


@pytest.mark.can("elementwise")
def test_two_aligned_nodes_are_two_calls_few_files_and_run_element_by_element(
    watched: tuple[Cluster, Path],
) -> None:
    cluster, log = watched
    cluster.write("aligned.py", ALIGNED.format(sign=cluster.home / "sign"))
    said = cluster.hpcpipe("submit", "aligned.py").stdout
    assert "in 2 calls" in said
    calls = sorted(line.split()[0] for line in log.read_text().splitlines())
    assert calls == [*cluster.dialect.aligned], log.read_text()
    report = cluster.finish(seconds=180)
    done = {"all": COUNT, "done": COUNT}
    assert report["nodes"] == {"first": done, "second": done}, report["failures"][:3]
    if times := cluster.dialect.times:
        jobs = re.findall(r"\d+", said.partition(f"in 2 calls: {cluster.dialect.name} ")[2])[:2]
        first, second = (until(partial(whole, times, job)) for job in jobs)
        for before, after in zip(first, second, strict=True):
            assert after[0] >= before[1]
    made = [path for path in (cluster.home / "runs").rglob("*") if path.is_file()]
    assert len(made) <= 2 * 2 * COUNT + 20  # a DAG of HTCondor has a dozen of its own
    assert results(cluster, "second") == {str(n): (n + 1) * 2 for n in range(COUNT)}
    log.write_text("")
    cluster.hpcpipe("status")
    assert log.read_text() == ""  # the files tell it all


def outcomes(cluster: Cluster) -> dict[str, Any]:
    """Load every good value of the runs of a user, by node and key."""
    found = cluster.home.glob("runs/*/.hpcpipe/results/*/*.pkl")
    return {f"{path.parent.name}/{path.stem}": load_value(str(path)) for path in found}


def test_values_gathered_and_split_are_the_same_everywhere(cluster: Cluster) -> None:
    elsewhere = replace(cluster, dialect=LOCAL, home=cluster.home / "elsewhere")
    elsewhere.home.mkdir()
    for one in (cluster, elsewhere):
        one.write("gathered.py", GATHERED)
        one.hpcpipe("submit", "gathered.py")
    for one in (cluster, elsewhere):
        assert one.finish()["failures"] == []
    assert results(cluster, "smooth")["3/8"] == 38
    assert results(cluster, "mean") == {"4": 29.0, "8": 33.0}
    logs = [f"warped {subject}" for subject in (1, 2, 3, 4)]
    assert results(cluster, "table") == {"": {"means": [29.0, 33.0], "logs": logs}}
    assert len(outcomes(cluster)) == 4 + 8 + 2 + 1
    assert outcomes(cluster) == outcomes(elsewhere)


def test_the_client_may_die_and_be_logged_out_once_submit_has_returned(cluster: Cluster) -> None:
    cluster.write("gathered.py", GATHERED)
    # All of its session is hung up and killed, as at the end of a login.
    login = f"{shlex.quote(sys.executable)} -m hpcpipe submit gathered.py && kill -HUP 0; kill -9 0"
    done = subprocess.run(
        ["sh", "-c", login], cwd=cluster.home, env=cluster.environment, timeout=60, check=False,
        start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert done.returncode == -signal.SIGHUP
    assert b"You can log out now." in done.stdout
    assert cluster.finish()["failures"] == []
    assert results(cluster, "mean") == {"4": 29.0, "8": 33.0}


def test_a_scheduler_out_of_reach_makes_tasks_unknown_and_none_failed(cluster: Cluster) -> None:
    away = cluster.out_of_reach()
    cluster.write("sleeping.py", SLEEPING)
    cluster.hpcpipe("submit", "sleeping.py")
    report = away.status("--fresh")
    assert report["nodes"] == {name: {"all": 2, "unknown": 2} for name in ("sleep", "wake")}
    assert report["failures"] == []
    assert not report["finished"]
    assert report["trouble"]
    assert "could not ask" in away.hpcpipe("status", "--fresh").stdout
    refused = away.hpcpipe("retry", status=6).stderr
    assert refused.startswith("hpcpipe: ")
    report = cluster.status("--fresh")
    assert not report["trouble"]
    assert not any("unknown" in states for states in report["nodes"].values())
    assert report["failures"] == []
    cluster.hpcpipe("cancel")


def test_what_could_not_be_submitted_goes_on_when_the_scheduler_answers(cluster: Cluster) -> None:
    cluster.write("gathered.py", GATHERED)
    said = cluster.out_of_reach().hpcpipe("submit", "gathered.py", status=6).stderr
    assert "the same command again goes on from here" in said
    cluster.hpcpipe("submit", "gathered.py")
    report = cluster.finish()
    assert report["failures"] == []
    assert not report["interrupted"]


def test_a_log_is_followed_and_tasks_are_cancelled_by_name_or_all(cluster: Cluster) -> None:
    # Where elements cannot be paired, one has both steps in it, and is cancelled with both.
    paired = cluster.dialect.can("elementwise")
    fate, words = ("blocked", "1 task c") if paired else ("cancelled", "2 tasks c")
    cluster.write("sleeping.py", SLEEPING)
    cluster.hpcpipe("submit", "sleeping.py")
    until(lambda: cluster.hpcpipe("logs", "sleep/1", status=None).stdout)
    with subprocess.Popen(
        [sys.executable, "-m", "hpcpipe", "logs", "-f", "sleep/1"],
        cwd=cluster.home, env=cluster.environment, text=True, stdout=subprocess.PIPE,
    ) as follower:  # fmt: skip
        assert follower.stdout is not None
        try:
            # Where steps are fused, a line that names the task comes first.
            said = (line for line in follower.stdout if not line.startswith("hpcpipe: task sleep "))
            assert next(said) == "sleeping 1\n"
            assert follower.poll() is None
            assert cluster.hpcpipe("cancel", "sleep/1").stdout.startswith(words)
            follower.wait(60)  # the task has ended, and so has its log
        finally:
            follower.kill()
    states = until(lambda: _states(cluster, fate, 1))
    assert states["sleep"].get("running", 0) + states["sleep"].get("queued", 0) == 1
    assert states["sleep"].get("cancelled") == 1
    assert states["wake"].get(fate) == 1
    cluster.hpcpipe("cancel")
    report = cluster.finish()
    assert report["nodes"]["sleep"] == {"all": 2, "cancelled": 2}
    # What waited for the first one may have left the queue before the rest was cancelled.
    ends = {"all": 2, "cancelled": 2}, {"all": 2, "cancelled": 1, fate: 1}
    assert report["nodes"]["wake"] in ends
    assert cluster.hpcpipe("cancel").stdout == "Nothing was queued or running.\n"


def _states(cluster: Cluster, state: str, count: int) -> dict[str, dict[str, int]] | None:
    nodes: dict[str, dict[str, int]] = cluster.status("--fresh")["nodes"]
    return nodes if sum(node.get(state, 0) for node in nodes.values()) >= count else None


def test_a_map_run_again_runs_only_what_is_missing(cluster: Cluster) -> None:
    script = cluster.write("prep.sh", 'echo "$1" >> ran; [ -e mended ] || [ "$1" != b ]\n')
    words = ("map", "--time", "5m", "--memory", "50M", "--", "sh", script, "{}", ":::", "a", "b")
    assert "Submitted in 1 call" in cluster.hpcpipe(*words).stdout
    report = cluster.finish()
    assert [one["task"] for one in report["failures"]] == ["sh/b"]
    cluster.write("mended", "")
    again = cluster.hpcpipe(*words, "c").stdout
    assert "2 tasks to run, 1 done" in again
    assert cluster.finish()["nodes"] == {"sh": {"all": 3, "done": 3}}
    assert sorted((cluster.home / "ran").read_text().split()) == ["a", "b", "b", "c"]
    assert "Nothing to submit." in cluster.hpcpipe(*words, "c").stdout


@pytest.mark.slurm
def test_a_refused_account_is_named_and_what_is_suggested_ends_green(slurm: Cluster) -> None:
    slurm.write("gathered.py", GATHERED)
    refused = slurm.hpcpipe("submit", "--account", "nobodys", "gathered.py", status=5).stderr
    assert refused.startswith("hpcpipe: sbatch: error: ")
    assert "account" in refused.splitlines()[0]
    screen = slurm.hpcpipe("status").stdout
    assert "refused by the scheduler" in screen
    assert suggested(refused) == suggested(screen) == [["retry", "--account", "lab"]]
    slurm.hpcpipe(*suggested(screen)[0])
    assert slurm.finish()["failures"] == []


@pytest.mark.slurm
def test_who_waits_for_others_is_not_preferred_to_them(slurm: Cluster) -> None:
    slurm.write("gathered.py", GATHERED)
    slurm.hpcpipe("submit", "gathered.py", "--account", "lab")
    submissions = Ledger(RunDir(next(slurm.home.glob("runs/*"))).ledger).read().submissions
    jobs = [one.job for one in submissions.values() if one.job]
    shown = [subprocess.check_output(["scontrol", "show", "job", job], text=True) for job in jobs]
    priorities = [int(re.findall(r"Priority=(\d+)", one)[0]) for one in shown]
    assert len(jobs) > 1
    assert priorities == sorted(priorities, reverse=True)
    slurm.finish()
