"""Whole runs on real schedulers: some of it fails, is taken away, or is very much."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from contract.harness import Bench, Cluster, until

# Three subjects of twenty fail; by codes that mean something of their own to Grid Engine, too.
SOME = """
    from hpcpipe import Workflow, each, task

    SUBJECTS = ["S%02d" % n for n in range(1, 21)]
    SCRIPT = 'case $1 in S03) exit 3 ;; S07) exit 99 ;; S11) exit 100 ;; esac; echo $1 > "$2"'
    ASKED = dict(cpus=1, memory="100M", time="10m")

    @task(**ASKED)
    def second(image):
        with open({ran!r}, "a") as ran:
            ran.write(image.read_text())

    wf = Workflow("some", base_dir="runs")
    first = wf.command(
        ["sh", "-c", SCRIPT, "sh", "{{subject}}", "{{image}}"], name="first", resources=ASKED,
        outputs={{"image": "image.txt"}}, subject=each(SUBJECTS, axis="subject"),
    )
    wf.add(second, image=first["image"])
"""
SLEEPING = """
    import time
    from hpcpipe import Workflow, each, task

    @task(cpus=1, memory="100M", time="10m")
    def sleep(n):
        print("sleeping", n)
        time.sleep(600)

    @task(cpus=1, memory="120M", time="10m")  # unlike the first, lest the two be fused
    def wait(n):
        return n

    wf = Workflow("sleeping", base_dir="runs")
    slept = wf.add(sleep, n=each([1, 2]))
    wf.add(wait, n=slept)
"""
WAKING = "while not __import__('os').path.exists('wake'): time.sleep(0.1)"
BAD = {"S03", "S07", "S11"}


def told(report: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {one["task"]: (one["state"], one["reason"]) for one in report["failures"]}


def test_of_twenty_of_which_three_fail_exactly_seventeen_go_on(cluster: Cluster) -> None:
    cluster.write("some.py", SOME.format(ran=str(cluster.home / "ran")))
    cluster.hpcpipe("submit", "some.py")
    report = cluster.finish()
    assert told(report) == {
        **{f"first/{subject}": ("failed", "exit") for subject in BAD},
        **{f"second/{subject}": ("blocked", "upstream failed") for subject in BAD},
    }
    codes = {one["task"]: one["exit"] for one in report["failures"] if "first/" in one["task"]}
    assert codes == {"first/S03": 3, "first/S07": 99, "first/S11": 100}
    good = {f"S{n:02}" for n in range(1, 21)} - BAD
    assert Counter((cluster.home / "ran").read_text().split()) == Counter(good)


def test_a_node_is_cancelled_and_so_is_what_needs_it(cluster: Cluster) -> None:
    cluster.write("sleeping.py", SLEEPING)
    cluster.hpcpipe("submit", "sleeping.py")
    assert cluster.hpcpipe("cancel", "wait").stdout.startswith("2 tasks cancelled")
    until(lambda: cluster.status("--fresh")["nodes"]["sleep"].get("running") == 2)
    assert cluster.status("--fresh")["nodes"]["wait"] == {"all": 2, "cancelled": 2}
    assert cluster.hpcpipe("cancel", "sleep").stdout.startswith("2 tasks cancelled")
    report = cluster.finish()
    assert set(told(report).values()) == {("cancelled", "cancelled")}
    assert len(report["failures"]) == 4


def test_what_was_removed_behind_our_back_is_never_waited_for(cluster: Cluster) -> None:
    cluster.write("sleeping.py", SLEEPING)
    said = cluster.hpcpipe("submit", "sleeping.py").stdout
    until(lambda: cluster.status("--fresh")["nodes"]["sleep"].get("running") == 2)
    jobs = said.partition(f"{cluster.dialect.name} ")[2].split()[:2]
    others = Bench(cluster, cluster.home / "elsewhere").scheduler
    others.cancel([job.rstrip(",.") for job in reversed(jobs)])
    fates = told(cluster.finish())
    assert {fates[f"sleep/{n}"] for n in (1, 2)} == {("cancelled", "cancelled")}
    # Some schedulers keep no trace of what never began, but why it did not is plain.
    assert {fates[f"wait/{n}"][0] for n in (1, 2)} <= {"blocked", "cancelled"}


def test_a_large_array_is_one_call_and_all_of_it_runs(cluster: Cluster) -> None:
    many = cluster.dialect.many
    words = ("map", "--time", "5m", "--memory", "50M", "--", "echo", ":::")
    said = cluster.hpcpipe(*words, *(str(n) for n in range(many))).stdout
    assert "Submitted in 1 call" in said
    assert cluster.finish(seconds=500)["nodes"] == {"echo": {"all": many, "done": many}}
    made = json.loads(cluster.hpcpipe("results", "echo", "--json").stdout)
    assert len(made) == many


@pytest.mark.can("stopped")
def test_a_scheduler_that_stops_for_a_while_goes_on_or_tells_what_it_lost(cluster: Cluster) -> None:
    assert cluster.dialect.stopped
    cluster.write("waking.py", SLEEPING.replace("time.sleep(600)", WAKING))
    cluster.hpcpipe("submit", "waking.py")
    until(lambda: cluster.status("--fresh")["nodes"]["sleep"].get("running") == 2)
    with cluster.dialect.stopped():
        report = cluster.status("--fresh")
        assert report["nodes"] == {name: {"all": 2, "unknown": 2} for name in ("sleep", "wait")}
        assert report["trouble"]
        assert not report["finished"]
        cluster.write("wake", "")
    if not cluster.dialect.lasting:
        lost, blocked = ("lost", "lost"), ("blocked", "upstream failed")
        fates = {"sleep/1": lost, "sleep/2": lost, "wait/1": blocked, "wait/2": blocked}
        assert told(cluster.finish()) == fates
        cluster.hpcpipe("retry")
    assert cluster.finish()["failures"] == []
