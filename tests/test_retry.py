"""A retry of some tasks only, by name; and what is suggested after a refusal."""

from __future__ import annotations

import errno
import os
from collections import Counter
from pathlib import Path

import pytest
from fakes import CANCELLED, HELD, Lab

from hpcpipe import each
from hpcpipe.errors import SchedulerError, UsageError
from hpcpipe.jobs import JobStatus
from hpcpipe.run import Run, retry
from hpcpipe.status.report import make_report

KINDS = ["a", "b", "c"]


def work(kind: str, log: str) -> str:
    with open(log, "a") as ran:
        ran.write(f"{kind}\n")
    return kind


def then(kind: str) -> str:
    return kind


@pytest.fixture
def log(lab: Lab, tmp_path: Path) -> Path:
    """A run of two nodes, of which nothing has run, and the file that the first writes to."""
    log = tmp_path / "log"
    lab.workflow.add(then, kind=lab.workflow.add(work, kind=each(KINDS), log=str(log)))
    lab.submit()
    return log


def end_all(lab: Lab) -> None:
    """Have the scheduler end whatever is in the queue."""
    live = [one for one, said in lab.scheduler.says.items() if isinstance(said, JobStatus)]
    lab.scheduler.says |= dict.fromkeys(live, CANCELLED)


def again(lab: Lab, *tasks: str, force: bool = False) -> list[str]:
    """Retry some tasks, and return which tasks were submitted."""
    end_all(lab)
    run, draft = retry(lab.rundir.folder, site=lab.site, tasks=tasks, force=force)
    record = run.record
    batches = [record.batches[prepared.id] for prepared in draft.prepared]
    return sorted(
        record.nodes[node].task(record.nodes[node].index(key))
        for batch in batches
        for node, key, _ in batch.tasks()
    )


def test_only_what_is_named_and_what_depends_on_it_runs_again(lab: Lab, log: Path) -> None:
    assert again(lab, "work/b") == ["then/b", "work/b"]
    assert again(lab, "then") == []  # what it needs has not succeeded, and is not named
    for name in ("work/b", "then/b"):
        assert lab.run(name).status == 0
    assert again(lab, "work/b", "work/c") == ["then/c", "work/c"]
    assert again(lab) == ["then/a", "then/c", "work/a", "work/c"]
    assert log.read_text() == "b\n"


def test_what_succeeded_runs_again_by_name_and_force(lab: Lab, log: Path) -> None:
    for kind in KINDS:
        assert lab.run(f"work/{kind}").status == lab.run(f"then/{kind}").status == 0
    assert again(lab, "work/b") == []
    assert again(lab, "work/b", force=True) == ["work/b"]
    assert lab.run("work/b").status == 0
    assert Counter(log.read_text().split()) == {"a": 1, "b": 2, "c": 1}
    end_all(lab)
    assert not make_report(lab.rundir, fresh=True).tasks
    assert Run(lab.rundir.folder).results("work") == {kind: kind for kind in KINDS}


@pytest.mark.parametrize(
    ("tasks", "force", "said"),
    [((), True, "--force"), (("nope",), False, "nope"), (("work/x",), True, "work/x")],
)
def test_a_name_that_no_task_has_is_refused(
    lab: Lab, log: Path, tasks: tuple[str, ...], force: bool, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        again(lab, *tasks, force=force)
    assert not log.exists()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("Invalid account or account/partition combination specified", "--account lab"),
        ("Job violates accounting/QOS policy (job submit limit)", ""),
        ("Your account has reached its limit of jobs", ""),
    ],
)
def test_another_account_is_suggested_only_if_the_account_was_refused(
    lab: Lab, words: str, hint: str
) -> None:
    def refuse(step: str) -> None:
        if step == "submit":
            raise SchedulerError(words)

    lab.workflow.add(then, kind="x")
    lab.scheduler.hook = refuse
    with pytest.raises(SchedulerError) as refused:
        lab.submit()
    assert str(refused.value).startswith(words)
    assert ("--account" in str(refused.value)) == bool(hint)
    assert hint in str(refused.value)


@pytest.mark.parametrize("event", ["run", "submitting", "submitted", "released"])
@pytest.mark.parametrize("quota", [False, True])
def test_a_full_disk_is_named_and_leaves_no_job_that_nobody_knows(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, event: str, quota: bool
) -> None:
    lab.workflow.add(then, kind=each(KINDS))
    write, number = os.write, errno.EDQUOT if quota else errno.ENOSPC

    def full(fd: int, data: bytes) -> int:
        if f'"event": "{event}"'.encode() not in data:
            return write(fd, data)
        write(fd, data[: len(data) // 2])
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match=os.strerror(number)) as told:
            lab.submit()
    assert told.value.filename == str(lab.rundir.ledger)
    lab.submit()
    assert [job.node for job in lab.scheduler.live.values()] == ["then"]
    assert not [one for one, said in lab.scheduler.says.items() if said == HELD]
