"""Processes that the kernel kills for memory: a task that goes on without them has failed."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import Lab

from hpcpipe import each
from hpcpipe.jobs import JobEnd, Reason
from hpcpipe.run import Run, retry
from hpcpipe.site import Queue
from hpcpipe.status.report import make_report
from hpcpipe.worker.cgroup import find_events


def kill(events: str, n: int) -> int:
    """Do what the kernel does with the file, when it kills n children of a task."""
    Path(events).write_text(f"low 0\noom {n}\noom_kill {n}\noom_group_kill 0\n")
    return n


@pytest.mark.parametrize("kind", ["python", "command", "command pack"])
def test_a_task_whose_child_was_killed_for_memory_has_run_out_of_it(lab: Lab, kind: str) -> None:
    events = Path("memory.events").absolute()
    kill(str(events), 1)  # by an earlier task
    numbers = each([1, 3], axis="n", labels=["none", "two"])
    if kind == "python":
        lab.workflow.add(kill, events=str(events), n=numbers, name="work")
    else:
        lab.workflow.command(
            ["sh", "-c", f'echo oom_kill $0 >"{events}"', "{n}"], n=numbers, name="work"
        )
    if "pack" in kind:
        limits = replace(lab.site.limits, max_jobs=1)
        lab.site = replace(lab.site, limits=limits, queues=(Queue(name="q"),))
    lab.submit()
    env = {"HPCPIPE_MEMORY_EVENTS": str(events)}
    for label in ["none"] if "pack" in kind else ["none", "two"]:
        lab.run(f"work/{label}", env=env)
    lab.scheduler.says = dict.fromkeys(lab.scheduler.says, JobEnd("COMPLETED", None, 0))
    [task] = Run(lab.rundir.folder).report().tasks
    assert (task.label, task.reason) == ("two", Reason.MEMORY)
    assert re.fullmatch(
        r"the kernel killed 2 (processes of it|of its processes) for memory", task.words
    )


@pytest.mark.parametrize(
    ("lines", "events"),
    [
        (
            "0::/system.slice/job_7/step_batch\n",
            "/sys/fs/cgroup/system.slice/job_7/step_batch/memory.events",
        ),
        (
            "5:cpuset:/x\n4:memory:/slurm/uid_1/job_7\n0::/y\n",
            "/sys/fs/cgroup/memory/slurm/uid_1/job_7/memory.oom_control",
        ),
        ("", ""),
    ],
)
def test_the_kernels_count_is_that_of_the_jobs_own_cgroup(
    monkeypatch: pytest.MonkeyPatch, lines: str, events: str
) -> None:
    monkeypatch.setattr("hpcpipe.worker.cgroup.read", lambda _: lines)
    assert find_events() == events


def test_a_good_outcome_against_the_accounting_is_a_failure_that_is_looked_for_once(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the worker can read no cgroup, only the scheduler knows of a child that was killed."""
    can = lab.scheduler.capabilities._replace(tells_kills=True)
    monkeypatch.setattr(type(lab.scheduler), "capabilities", can)
    numbers = each([1, 2], axis="n")
    first = lab.workflow.command("echo {n}", n=numbers, name="first")
    asked = {"memory": "60M"}
    lab.workflow.command("echo {n}", n=numbers, after=[first], name="second", resources=asked)
    lab.workflow.command("echo {n}", n=1, name="other", resources=asked)
    lab.submit()
    names = ["first/1", "first/2", "second/1", "second/2", "other"]
    for name in names:
        assert lab.run(name).status == 0
    lab.scheduler.says = dict.fromkeys(lab.scheduler.says, JobEnd("COMPLETED", None, 0))
    element = lab.find("first/2")
    lab.scheduler.says[lab.scheduler.element(element.job, element.index)] = JobEnd(
        "OUT_OF_MEMORY", Reason.MEMORY
    )
    lab.scheduler.calls.clear()
    assert not make_report(lab.rundir).failures  # the accounting may not know yet
    assert lab.scheduler.calls == []
    later = time.time() + 60
    told = {one.name: one for one in make_report(lab.rundir, now=later).failures}
    assert told["first/2"].reason is Reason.MEMORY
    assert told["first/2"].words.startswith("OUT_OF_MEMORY: ")
    assert told["second/2"].reason is Reason.UPSTREAM
    assert len(told) == 2
    assert len(make_report(lab.rundir, now=later).failures) == 2
    retry(lab.rundir.folder, site=lab.site)
    for name in ("first/2", "second/2"):
        assert lab.run(name).status == 0
    lab.scheduler.says = dict.fromkeys(lab.scheduler.says, JobEnd("COMPLETED", None, 0))
    lab.scheduler.calls.clear()
    for _ in range(3):  # and when these have ended, once more
        assert not make_report(lab.rundir, now=later + 60).tasks
    assert sum("account" in one for one in lab.scheduler.calls) == 1
