"""Outcomes that are no longer what was written: told, made again, and never a value."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import pytest
from click.testing import CliRunner
from fakes import Lab

from hpcpipe import each
from hpcpipe.cli import hpcpipe
from hpcpipe.errors import ResultError, WrittenByNewer
from hpcpipe.jobs import JobEnd, Reason, State
from hpcpipe.run import Run
from hpcpipe.site import Queue
from hpcpipe.store import outcomes
from hpcpipe.store.rundir import read_pickle, write_pickle
from hpcpipe.views.status import verdict

PLACES = 20


def number(x: int) -> int:
    return 1000 + x


def next_number(x: int) -> int:
    return x + 1


def spoilt(content: bytes) -> Iterator[bytes]:
    """Yield what is left of a file when it was cut short, and when one bit was flipped."""
    for place in range(PLACES):
        at = place * len(content) // PLACES
        yield content[:at]
        yield content[:at] + bytes([content[at] ^ (1 << place % 8)]) + content[at + 1 :]


def run_all(lab: Lab, *tasks: str) -> None:
    """Run what was submitted, to its end by the accounting as well."""
    for one in tasks:
        lab.run(one)
    ended = JobEnd("COMPLETED", None, 0)
    lab.scheduler.says = dict.fromkeys(lab.scheduler.says, ended)


@pytest.mark.parametrize("kind", ["python", "command", "python pack", "command pack"])
def test_a_damaged_outcome_is_told_and_no_value_and_made_again(lab: Lab, kind: str) -> None:
    if "python" in kind:
        lab.workflow.add(number, x=each([0, 1]), name="work")
    else:
        lab.workflow.command("true {x}", x=each([0, 1]), name="work")
    if "pack" in kind:
        limits = replace(lab.site.limits, max_jobs=1)
        lab.site = replace(lab.site, limits=limits, queues=(Queue(name="q"),))
    lab.submit()
    run_all(lab, *(["work/0"] if "pack" in kind else ["work/0", "work/1"]))
    run = Run(lab.rundir.folder)
    value = 1000 if "python" in kind else None
    files = [*lab.rundir.home.glob("packs/*.pack")] or [lab.find("work/0").good]
    [file] = files
    whole = file.read_bytes()
    for content in spoilt(whole):
        file.write_bytes(content)
        report = run.report()
        told = {task.reason for task in report.tasks}
        assert told == {Reason.DAMAGED} or not told, content
        try:
            assert run.result("work/0") == value
        except ResultError:
            assert told or run.report().tasks, content
        if not told:  # only what is between two outcomes
            assert sorted(run.results("work")) == ["0", "1"]
            assert "succeeded" in verdict(report)
    file.write_bytes(whole[: len(whole) // 3])
    assert {task.state for task in run.report().tasks} == {State.LOST}
    lab.submit()
    run_all(lab, "work/0")
    assert run.result("work/0") == value
    assert "all 2 tasks succeeded" in verdict(run.report())


def test_an_outcome_that_is_a_link_to_nothing_is_made_again(lab: Lab) -> None:
    lab.workflow.command("true", name="work")
    lab.submit()
    run_all(lab, "work")
    lab.find("work").good.unlink()
    lab.find("work").good.symlink_to("purged")
    assert "failed" in verdict(Run(lab.rundir.folder).report())
    lab.submit()
    run_all(lab, "work")
    assert "succeeded" in verdict(Run(lab.rundir.folder).report())


@pytest.mark.parametrize("looked_at", [0, 1000])
def test_who_reads_a_damaged_result_fails_with_the_cause_and_not_for_ever(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, looked_at: int
) -> None:
    monkeypatch.setattr(outcomes, "LOOKED_AT", looked_at)
    lab.workflow.add(next_number, x=lab.workflow.add(number, x=1))
    lab.submit()
    lab.run("number")
    file: Path = lab.find("number").good
    file.write_bytes(file.read_bytes()[:-4])
    assert lab.run("next_number").status == 1
    assert "the result of number is damaged" in lab.outcome("next_number")["error"]
    lab.scheduler.says = dict.fromkeys(lab.scheduler.says, JobEnd("FAILED", Reason.EXIT, 1))
    assert Run(lab.rundir.folder).report().tasks[0].reason is Reason.DAMAGED
    lab.submit()
    run_all(lab, "number", "next_number")
    assert Run(lab.rundir.folder).result("next_number") == 1002


@pytest.mark.parametrize("file", ["record", "batch", "plan", "node"])
def test_what_a_newer_version_wrote_is_said_to_be(lab: Lab, file: str) -> None:
    lab.workflow.add(number, name="work", x=1)
    lab.submit()
    if file in ("record", "batch"):
        path = lab.rundir.record(1)
        plain = pickle.loads(read_pickle(path)[1])
        (plain if file == "record" else plain["batches"][0])["later"] = 1
        content = pickle.dumps(plain)
        write_pickle(path, (blake2b(content).digest(), content))
    else:
        [path] = lab.rundir.plans.glob("*.plan")
        plain = pickle.loads(path.read_bytes())
        (plain if file == "plan" else plain["nodes"][0])["later"] = 1
        content = pickle.dumps(plain)
        digest = blake2b(content, digest_size=16).hexdigest()
        path = lab.rundir.plan(digest)
        path.write_bytes(content)
        record = pickle.loads(read_pickle(lab.rundir.record(1))[1]) | {"plan": digest}
        content = pickle.dumps(record)
        write_pickle(lab.rundir.record(1), (blake2b(content).digest(), content))
    done = CliRunner().invoke(hpcpipe, ["status", "--run", str(lab.rundir.folder)])
    assert isinstance(done.exception, WrittenByNewer)
    with pytest.raises(WrittenByNewer):  # it is not taken for one that is lost
        lab.submit()
    assert str(done.exception).startswith(f"{path}: was written by a newer hpcpipe; use that one")
