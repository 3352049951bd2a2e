"""The files that a run takes on disk: told before, and counted after, without looking at each."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from fakes import Lab
from test_show import FORTY

from hpcpipe import each, task
from hpcpipe.graph.workflow import Workflow
from hpcpipe.jobs import JobEnd
from hpcpipe.run import submit
from hpcpipe.site import Limits, Queue, Site
from hpcpipe.store.rundir import RunDir
from hpcpipe.store.usage import Usage, measure
from hpcpipe.submit.prepare import draft
from hpcpipe.views.explain import find_log
from hpcpipe.views.status import status_lines


def work(x: int) -> int:
    return x


def test_a_plan_tells_how_many_files_its_tasks_will_leave(lab: Lab) -> None:
    lab.workflow.add(work, x=each([1, 2, 3], axis="x"))
    told = draft(lab.workflow, lab.site).files
    lab.submit()
    for x in (1, 2, 3):
        assert lab.run(f"work/{x}").status == 0
    lab.scheduler.says = dict.fromkeys(lab.scheduler.says, JobEnd("COMPLETED", None, 0))
    logs = 3  # which the lab has in pipes
    others = {"ledger.jsonl", "files.pkl"}
    left = [path for path in lab.rundir.home.rglob("*") if path.is_file()]
    made = [path for path in left if path.name not in others and path.suffix != ".env"]
    assert told == len(made) + logs
    assert measure(lab.rundir) == Usage(len(left), sum(path.stat().st_size for path in left))


def test_bytes_of_many_files_are_estimated_and_shown_where_a_quota_may_matter(
    tmp_path: Path,
) -> None:
    logs = tmp_path / ".hpcpipe" / "logs"
    logs.mkdir(parents=True)
    for n in range(2500):
        (logs / str(n)).write_bytes(b"x" * 100)
    usage = measure(RunDir(tmp_path))
    assert (usage.files, usage.bytes, usage.exact) == (2500, 250_000, False)
    few, many = (
        [line for line in status_lines(FORTY, usage=one) if "on disk" in line]
        for one in (usage, Usage(20_312, 1_300_000_000))
    )
    assert few == []
    assert many == ["on disk: 20,312 files, about 1.2 GB in .hpcpipe; see hpcpipe clean"]


def chatter(x: int) -> int:
    print("begins")
    for n in range(60_000):
        print("line", x, n, "." * 80)
    time.sleep(3.5)  # what watches the log looks every two seconds
    print("ends")
    return x


SH = (
    "echo begins; i=0; while [ $i -lt 3000 ]; do i=$((i + 1)); "
    'printf "%01000d\\n" {x}; done; sleep 3.5; echo ends'
)


@pytest.mark.parametrize(
    ("kind", "sh"),
    [("alone", False), ("in sequence", True), ("side by side", False), ("side by side", True)],
)
def test_a_log_over_the_limit_loses_its_middle_and_nothing_else(
    tmp_path: Path, kind: str, sh: bool
) -> None:
    asked = {"cpus": 1} | ({"pack": 2} if kind == "in sequence" else {})
    wf = Workflow("loud", tmp_path, source=__file__)
    xs = each([1] if kind == "alone" else [1, 2], axis="x")
    if sh:
        wf.command(["sh", "-c", SH], name="chatter", x=xs, resources=asked)
    else:
        wf.add(task(**asked)(chatter), x=xs)  # type: ignore[call-overload]
    queue = Queue(name="q", exclusive=kind == "side by side", max_cpus=2)
    site = Site(queues=(queue,), limits=Limits(log_size=2, settle_seconds=0, max_jobs=1))
    run = submit(wf, site=site)
    assert run.wait(timeout=60).finished
    logs = [[*find_log(run.rundir, f"chatter/{x}").lines()] for x in run.results("chatter")]
    for at, lines in enumerate(logs):  # several in sequence have one log, with one middle
        if at == 0 or kind != "in sequence":
            assert lines[0] == b"begins\n"
        if lines is logs[-1] or kind != "in sequence":
            assert lines[-1] == b"ends\n"
        assert sum(map(len, lines)) < (1 << 21) + 500
    notes = [one for lines in logs for one in lines if one.startswith(b"hpcpipe: ")]
    count = len(logs) if kind == "side by side" else 1
    assert notes == [b"hpcpipe: cut out here, as the log was over 2 MB\n"] * count
    assert len(measure(run.rundir).cut_logs) == 1
