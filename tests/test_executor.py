"""The executor: how calls are named and grouped, and what becomes of those that cannot be sent."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeScheduler, Lab

from hpcpipe import Executor, task
from hpcpipe.errors import (
    ConfigError,
    LockHeld,
    SchedulerError,
    SchedulerUnavailable,
    UsageError,
    WorkflowError,
)
from hpcpipe.site import Queue, Site
from hpcpipe.store.record import RunRecord

REFUSED = SchedulerError("sbatch: error: Invalid account")


@pytest.fixture
def executor(lab: Lab) -> Iterator[Executor]:
    """An executor that hands over only what is flushed."""
    made = Executor("calls", base_dir=lab.rundir.folder.parent, site=lab.site, gather=600, cpus=2)
    yield made
    lab.scheduler.hook = lambda _: None
    made.shutdown(cancel_futures=True)


def submitted(executor: Executor) -> RunRecord:
    """Hand over, and give what the run then holds."""
    executor.flush()
    return executor.run.record


def labels(executor: Executor) -> dict[str, tuple[str, ...]]:
    nodes = submitted(executor).nodes
    return {name: node.axes[0].labels for name, node in nodes.items()}


def add(x: Any, y: Any = 0) -> Any:
    return x + y


@task(memory="2G")
def big(x: int) -> int:
    return x


def test_calls_are_named_by_their_arguments(executor: Executor) -> None:
    for x in ("T1/SAD07.nii.gz", Path("a/SAD08.nii"), 0.5, "SAD07", {"no": "name"}, [1]):
        executor.submit(add, x)
    executor.submit(add, "SAD09", y=4)
    executor.submit(functools.partial(add, y=4), "SAD10")
    executor.submit(lambda: 1)
    executor.submit(lambda: 2)
    assert labels(executor) == {
        "add": ("SAD07", "SAD08", "0.5", "SAD07-2", "5", "6", "SAD09_4", "SAD10_4"),
        "lambda": ("1",),
        "lambda-2": ("1",),
    }


def test_a_run_keeps_the_calls_of_every_submission(
    executor: Executor, scheduler: FakeScheduler
) -> None:
    for x in (1, 2):
        executor.submit(add, x)
    executor.flush()
    executor.submit(add, 3)
    executor.submit(big, 3)
    record = submitted(executor)
    assert labels(executor) == {"add": ("1", "2", "3"), "big": ("3",)}
    assert [job.node for job in scheduler.jobs.values()] == ["add", "add", "big"]
    assert record.nodes["add"].resources.cpus == 2
    assert str(record.nodes["big"].resources) == "2 cpus, 2 GB"


def test_another_clients_call_of_the_same_name_is_left_alone(
    executor: Executor, scheduler: FakeScheduler, lab: Lab
) -> None:
    executor.submit(add, {"x": 1})
    executor.flush()
    folder = lab.rundir.folder.parent / "calls"
    other = Executor.attach(folder, site=lab.site)
    other.submit(add, {"x": 2})
    assert labels(other) == {"add": ("1", "1-2")}
    assert "cancel" not in scheduler.calls
    # The very same call is the same task, whoever makes it.
    again = Executor.attach(folder, site=lab.site)
    again.submit(add, {"x": 1})
    assert labels(again) == {"add": ("1", "1-2")}
    assert len(scheduler.jobs) == 2


def test_a_task_may_have_several_futures(executor: Executor, lab: Lab) -> None:
    executor.submit(add, 1)
    executor.flush()
    attached = Executor.attach(executor.run, site=lab.site)
    [found] = attached.futures().values()
    again = attached.submit(add, 1)
    attached.flush()
    assert again.cancel()
    assert wait([found, again], 30).not_done == set()
    assert found.cancelled()


def test_an_argument_that_cannot_travel_stops_its_own_call_only(executor: Executor) -> None:
    [good, bad] = [executor.submit(add, 1), executor.submit(add, threading.Lock())]
    with pytest.raises(WorkflowError, match=r"add/2: its arguments cannot be sent to a node: "):
        executor.flush()
    assert isinstance(bad.exception(), WorkflowError)
    assert not good.done()
    assert labels(executor) == {"add": ("1",)}


class Scale:
    def __init__(self, by: int) -> None:
        self.by = by

    def __call__(self, x: int) -> int:
        return self.by * x

    def times(self, x: int) -> int:
        return self.by * x


def closure(by: int) -> Callable[[int], int]:
    return lambda x: by * x


@pytest.mark.parametrize(
    ("make", "node"),
    [
        (Scale, "Scale"),
        (lambda by: Scale(by).times, "times"),
        (closure, "lambda"),
        (lambda by: lambda x, by=by: by * x, "lambda"),
        (lambda by: functools.partial(Scale(by)), "Scale"),
    ],
)
def test_calls_that_differ_in_what_they_carry_are_one_array(
    executor: Executor, lab: Lab, make: Callable[[int], Any], node: str
) -> None:
    for by in (2, 3):
        executor.submit(make(by), 7)
    assert labels(executor) == {node: ("7", "7-2")}
    lab.rundir = executor.run.rundir
    for label, value in (("7", 14), ("7-2", 21)):
        assert lab.run(f"{node}/{label}").status == 0
        assert lab.value(f"{node}/{label}") == value


def test_what_can_be_seen_at_once_is_told_at_once(executor: Executor, lab: Lab) -> None:
    lock = threading.Lock()
    with pytest.raises(WorkflowError, match=r"add: missing a required argument: 'x'"):
        executor.submit(add)
    with pytest.raises(WorkflowError, match=r"<lambda>: cannot be sent to a node, because of .*"):
        executor.submit(lambda: lock)
    with pytest.raises(WorkflowError, match=r"submit\(7\): not a function"):
        executor.submit(7)  # type: ignore[arg-type]
    with pytest.raises(WorkflowError, match=r"push: lock: cannot be sent to a node: "):
        executor.push(lock=lock)
    with pytest.raises(WorkflowError, match=r"Executor: unknown resource 'cpu'; .* cpus\?"):
        Executor(site=lab.site, cpu=1)
    with pytest.raises(WorkflowError, match=r"executor name 'a b'"):
        Executor("a b", site=lab.site)
    assert not executor._rundir.exists


def test_the_run_of_a_workflow_takes_no_calls(lab: Lab) -> None:
    lab.workflow.add(add, x=1)
    lab.submit()
    with pytest.raises(UsageError, match="the run of a workflow; give the executor another name"):
        Executor("lab", base_dir=lab.rundir.folder.parent, site=lab.site)


def test_after_shutdown_no_call_is_taken(executor: Executor) -> None:
    future = executor.submit(add, 1)
    executor.shutdown(wait=True, cancel_futures=True)
    assert future.cancelled()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(add, 2)


def test_a_refusal_is_raised_and_told_by_the_futures(
    executor: Executor, scheduler: FakeScheduler
) -> None:
    def refuse(step: str) -> None:
        if step == "submit":
            raise REFUSED

    scheduler.hook = refuse
    future = executor.submit(add, 1)
    with pytest.raises(SchedulerError, match="Invalid account"):
        executor.flush()
    assert "Invalid account" in str(future.exception())


def test_demands_that_no_queue_meets_leave_nothing_behind(tmp_path: Path) -> None:
    site = Site(queues=(Queue(name="short", max_memory=1024),))
    executor = Executor("calls", base_dir=tmp_path, site=site, gather=600)
    future = executor.submit(big, 1)
    with pytest.raises(ConfigError, match="short"):
        executor.flush()
    assert isinstance(future.exception(), ConfigError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [SchedulerUnavailable("timed out"), LockHeld("by another")])
def test_what_could_not_be_handed_over_is_tried_again(
    executor: Executor, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("hpcpipe.executor.executor.submit_calls", fail)
        future = executor.submit(add, 1)
        executor.flush()
        assert not future.done()
    assert labels(executor) == {"add": ("1",)}


def test_an_interface_of_nipype_is_called_like_a_function(executor: Executor) -> None:
    from nipype.algorithms.misc import Gunzip

    unpack = task(memory="1G")(Gunzip())
    for name in ("SAD07.nii.gz", "SAD08.nii.gz"):
        Path(name).touch()
        executor.submit(unpack, in_file=name)
    with pytest.raises(WorkflowError, match=r"gunzip: no input 'file'"):
        executor.submit(unpack, file="SAD09.nii.gz")
    [node] = submitted(executor).nodes.values()
    assert (node.name, node.axes[0].labels) == ("gunzip", ("SAD07", "SAD08"))
    assert node.folder is not None
    assert str(node.resources) == "2 cpus, 1 GB"
