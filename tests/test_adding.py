"""A scheduler is added by what ``docs/adding.rst`` says, and does what the others do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from contract.dialects.tsp import ADDING, TSP, Tsp
from contract.harness import Bench, Cluster, tried, until
from test_readme import masked, try_page, write_screens

from hpcpipe.jobs import After, JobEnd, JobStatus, Reason, State
from hpcpipe.schedulers.base import Done

PAGE = ADDING.parent / "adding.rst"
FLOW = """
    import os
    import time
    from hpcpipe import Workflow, each, task

    HERE = os.path.dirname(__file__)

    @task(cpus=1, time="10m")
    def first(subject):
        if subject == "SAD02":
            raise ValueError("no T1 for SAD02")
        while subject == "{waits}" and not os.path.exists(HERE + "/go"):
            time.sleep(0.1)
        return subject

    @task(cpus=1, time="5m")
    def second(subject):
        return subject.lower()

    @task(cpus=1)
    def both(subjects):
        return " ".join(subjects)

    wf = Workflow("three", base_dir="runs")
    lower = wf.add(second, subject=wf.add(first, subject=each(["SAD01", "SAD02", "SAD03"])))
    wf.add(both, subjects=lower.gather())
"""
LISTING = """\
ID   State      Output               E-Level  Times(r/u/s)   Command [run=2/2]
4    running    /tmp/ts-out.wkf4i3                         [0]&& [first-1:aa]sh -c script=$0
5    queued     (file)                                       [4]&& [both-1:bb]sh -c script=$0
6    allocating (file)                                       [both-2:cc]sh -c script=$0
0    finished   /tmp/a b/ts-out.1YAZ4I 3        1.00/0.00/0.00 [first-2:dd]sh -c script=$0
1    skipped    (no output)                                  [0]&& [second-2:ee]sh -c script=$0
2    finished   /tmp/ts-out.fZxncp -1       2.50/0.01/0.00 [second-3:ff]sh -c script=$0
3    finished   stdout               0        0.00/0.00/0.00 echo not of hpcpipe
"""


@pytest.fixture
def spooler(tmp_path: Path) -> Iterator[Cluster]:
    """A user of task spooler, who has installed the package of its adapter."""
    with tried(TSP, tmp_path) as cluster:
        yield cluster


def test_what_it_lists_is_read() -> None:
    done = Done(("tsp", "-l"), 0, LISTING)
    assert Tsp().read_poll(done) == {
        "4:aa": JobStatus(State.RUNNING, "running"),
        "5:bb": JobStatus(State.QUEUED, "queued"),
        "6:cc": JobStatus(State.UNKNOWN, "allocating"),
    }
    ends = {job: end._replace(host="") for job, end in Tsp().read_account(done).items()}
    assert ends == {
        "0:dd": JobEnd("finished", Reason.EXIT, exit_code=3, wall=1.0),
        "1:ee": JobEnd("skipped", Reason.UPSTREAM, wall=0.0),
        "2:ff": JobEnd("finished", Reason.SIGNAL, wall=2.5),
    }
    assert Tsp().read_find(done).keys() == {"aa", "bb", "cc"}


def test_hpcpipe_itself_knows_nothing_of_it() -> None:
    top = PAGE.parents[1]
    files = [*top.glob("hpcpipe/**/*.py"), *top.glob("templates/*"), *top.glob("site-configs/*")]
    assert [file for file in files if file.is_file() and b"tsp" in file.read_bytes()] == []


@pytest.mark.tsp
def test_a_machine_that_has_it_is_recognised_by_its_command(spooler: Cluster) -> None:
    only = spooler.home / "bin"
    only.mkdir()
    (only / "tsp").symlink_to("/bin/true")
    there = replace(spooler, changed={"HPCPIPE_SITE": "", "PATH": str(only)})
    why, *lines = there.hpcpipe("site", "show").stdout.splitlines()
    assert re.fullmatch(r"# no site file; tsp found: using .*/hpcpipe_tsp/tsp.toml", why)
    assert any(line.startswith('scheduler = "tsp"') for line in lines)
    assert "\ntsp\t" in there.hpcpipe("site", "list").stdout
    refused = there.hpcpipe("site", "init", "-", status=3).stderr
    assert refused.startswith("hpcpipe: a live tsp cannot be looked at yet; known: local, slurm")


@pytest.mark.tsp
def test_the_page_shows_what_is_really_printed(
    spooler: Cluster, request: pytest.FixtureRequest
) -> None:
    screens = [*try_page(PAGE, spooler.home / "study")]
    assert len(screens) == 2
    if request.config.getoption("--update-golden"):
        write_screens(PAGE, screens)
        return
    for block, printed in screens:
        assert masked(printed) == masked(block.text)


@pytest.mark.tsp
def test_a_failing_subject_stops_only_what_lacks_it(spooler: Cluster) -> None:
    spooler.write("three.py", FLOW)
    spooler.hpcpipe("submit", "three.py")
    report = spooler.finish()
    told = {one["task"]: (one["state"], one["reason"]) for one in report["failures"]}
    blocked = ("blocked", "upstream failed")
    assert told == {
        "first/SAD02": ("failed", "error"),
        "second/SAD02": blocked,
        "both": blocked,
    }
    assert report["nodes"]["second"] == {"all": 3, "done": 2, "blocked": 1}


@pytest.mark.tsp
def test_what_runs_and_what_is_queued_is_cancelled(spooler: Cluster) -> None:
    spooler.write("three.py", FLOW.replace("{waits}", "SAD01"))
    spooler.hpcpipe("submit", "three.py")
    until(lambda: spooler.status()["nodes"]["second"].get("done"))
    spooler.hpcpipe("cancel")
    report = spooler.finish()
    told = {one["task"]: one["state"] for one in report["failures"]}
    assert told["first/SAD01"] == told["second/SAD01"] == told["both"] == "cancelled"
    (spooler.home / "go").touch()
    spooler.hpcpipe("retry")
    assert spooler.finish()["nodes"]["first"] == {"all": 3, "done": 2, "failed": 1}


@pytest.mark.tsp
def test_a_job_waits_for_all_of_several(spooler: Cluster) -> None:
    bench = Bench(spooler, spooler.home / "run")
    waits = "until [ -e go ]; do sleep 0.1; done; touch"
    slow, quick = bench.submit(f"{waits} slow"), bench.submit("exit 3")
    any_end = bench.submit("test -e slow", After(slow), After(quick, well=False))
    well = bench.submit("touch never", After(slow), After(quick))
    assert bench.ends(well)[well].reason is Reason.UPSTREAM
    assert bench.states(slow, any_end) == dict.fromkeys((slow, any_end), State.RUNNING)
    (bench.folder / "go").touch()
    assert bench.ends(any_end)[any_end].exit_code == 0
    assert not bench.has("never")
