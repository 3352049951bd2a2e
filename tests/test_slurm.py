"""Slurm's adapter against what a real Slurm 22.05.8 printed (tests/golden/outputs/slurm)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from contract.harness import Cluster
from fakes import ends_of

from hpcpipe.errors import SchedulerError, SubmitUnclear
from hpcpipe.jobs import After, JobStatus, Reason, State
from hpcpipe.schedulers.base import Done
from hpcpipe.schedulers.slurm import Slurm
from hpcpipe.schedulers.slurm.sacct import spread

OUTPUTS = Path(__file__).parent / "golden" / "outputs" / "slurm"
NO_ACCOUNTING = "Slurm accounting storage is disabled"


def slurm(*answers: tuple[int, str, str]) -> Slurm:
    """Make an adapter whose commands get these answers, in turn."""
    left = list(answers)

    def run(argv: Sequence[str], cwd: Path | None) -> Done:
        del cwd
        return Done(tuple(argv), *left.pop(0))

    return Slurm(run)


def test_the_accounting_tells_each_end_apart() -> None:
    ends = ends_of(slurm((0, (OUTPUTS / "sacct.txt").read_text(), "")), "62")
    assert {job: (end.reason, end.signal, end.max_memory) for job, end in ends.items()} == {
        "62": (Reason.TIME, None, 3),
        "105_1": (Reason.CANCELLED, None, 3),
        "105_2": (Reason.CANCELLED, None, 3),
        "105_3": (Reason.CANCELLED, None, 3),
        "108": (Reason.MEMORY, 9, 309),  # OverMemoryKill: more than the 100M it asked for
        "110": (Reason.CANCELLED, None, None),
        "26547": (Reason.NODE, None, None),
    }


def test_without_accounting_the_controllers_memory_is_read() -> None:
    text = (OUTPUTS / "scontrol.txt").read_text()
    adapter = slurm((1, "", NO_ACCOUNTING), (0, text, ""))
    ends = ends_of(adapter, "26562", "26786", "26546", "26543")
    assert {job: (end.reason, end.exit_code, end.wall) for job, end in ends.items()} == {
        "26562_0": (None, 0, 0.0),
        "26786_4": (Reason.EXIT, 3, 0.0),
        "26546_2": (Reason.CANCELLED, 0, 0.0),
        "26543_4": (Reason.TIME, 1, 75.0),
    }


def test_array_rows_are_spread_and_held_ones_are_told() -> None:
    said = "29634_[0-2,9%2]|PENDING|BeginTime|2037-01-01T00:00:00\n7|ODD|None|N/A\n"
    statuses = slurm((0, said, "")).poll(["29634"])
    held = JobStatus(State.HELD, "PENDING", "JobHeldUser")
    assert statuses == {
        **dict.fromkeys(("29634_0", "29634_1", "29634_2", "29634_9"), held),
        "7": JobStatus(State.UNKNOWN, "ODD"),
    }
    assert list(spread("8_[1-7:3]")) == ["8_1", "8_4", "8_7"]


def test_dependencies_of_a_kind_are_joined_by_colons() -> None:
    after = [After("7", "each"), After("8"), After("9", element=4), After("6", "each")]
    words = Slurm().submit_command(Path("run/batches/x.sh"), after, token="t", held=True)
    assert "--dependency=aftercorr:7:6,afterok:8:9_4" in words
    assert {"--begin=2037-01-01", "--kill-on-invalid-dep=yes", "batches/x.sh"} <= set(words)


def test_one_cluster_of_several_is_named_in_every_question() -> None:
    asked: list[tuple[str, ...]] = []

    def run(argv: Sequence[str], cwd: Path | None) -> Done:
        del cwd
        asked.append(tuple(argv))
        rows = "CLUSTER: abel\n7|RUNNING|None|N/A\n" if "squeue" in argv else ""
        return Done(tuple(argv), 0, rows)

    adapter = Slurm(run, cluster="abel", cancels=2)
    assert adapter.poll(["7"]) == {"7": JobStatus(State.RUNNING, "RUNNING")}
    adapter.find(["token"])
    ends_of(adapter, "7")
    adapter.release(["7", "8"])
    adapter.cancel(["7", "8", "9"])
    assert all("-M abel" in " ".join(words) for words in asked)
    assert asked[-2:] == [("scancel", "-M", "abel", "7", "8"), ("scancel", "-M", "abel", "9")]


SITE = """
extends = "test-slurm"
slurm = { cluster = "hpcpipe", gpus = "gres", signal = "TERM@55" }
[software.matlab]
version = "R2022b"
setup = ["MATLAB=R2022b; export MATLAB"]
licences = ["matlab:1"]
[[queues]]
name = "any"
spelled = "gpu"
max_gpus = 2
constraints = { gpulike = "gpulike", big = "big" }
"""


@pytest.mark.slurm
def test_what_was_routed_is_what_a_real_slurm_gives(slurm: Cluster) -> None:
    (slurm.home / "site.toml").write_text(SITE)
    words = [
        "--gpus",
        "1",
        "--requires",
        "big",
        "--requires",
        "gpulike",
        "--software",
        "matlab>=R2022",
    ]
    slurm.hpcpipe(
        "map", "--name", "look", "--site", "./site.toml", *words, "--throttle", "2", "--time", "2m",
        "--wait", "--", "sh", "-c", 'scontrol -o show job "$SLURM_JOB_ID"; echo "$MATLAB" {}',
        ":::", "1", "2", "3",
    )  # fmt: skip
    said = slurm.hpcpipe("logs", "look/3").stdout
    for fact in ("ArrayTaskThrottle=2", "Licenses=matlab", "Features=gpulike&big",
                 "TresPerNode=gres:gpu:1", "Partition=gpu"):  # fmt: skip
        assert fact in said
    assert said.endswith("R2022b 3\n")
    told = slurm.hpcpipe("explain", "look").stdout
    assert "queue      any: 1 of its 2 gpus, has big, gpulike, has matlab>=R2022" in told
    assert "software   matlab R2022b" in told


FLOW = """
from hpcpipe import Workflow, each
wf = Workflow("far")
say = ["sh", "-c", 'scontrol -o show job "$SLURM_JOB_ID"']
one = wf.command([*say, "{n}"], name="one", n=each([1, 2]), resources={"time": "1m"})
two = wf.command(say, name="two", after=[one], resources={"time": "5h"})
wf.command(say, name="three", after=[two.gather()], resources={"gpus": 1, "queue": "gpu"})
"""


@pytest.mark.slurm
def test_nodes_of_one_workflow_go_to_different_queues_one_after_the_other(slurm: Cluster) -> None:
    (slurm.home / "flow.py").write_text(FLOW)
    slurm.hpcpipe("run", "flow.py")
    queues = {"one/1": "short", "two/1": "long", "three": "gpu"}
    said = {task: slurm.hpcpipe("logs", task).stdout for task in queues}
    assert all(f"Partition={queue} " in said[task] for task, queue in queues.items())
    started = [re.findall(r"StartTime=(\S+)", said[task])[0] for task in queues]
    assert started == sorted(started)


@pytest.mark.slurm
def test_a_task_is_told_of_its_time_limit_before_it_comes(slurm: Cluster) -> None:
    (slurm.home / "site.toml").write_text(SITE)
    words = ("--name", "told", "--site", "./site.toml", "--time", "1m", "--wait")
    slurm.hpcpipe("map", *words, "--", "sleep", "{}", ":::", "100", status=10)
    [failed] = json.loads(slurm.hpcpipe("status", "--json").stdout)["failures"]
    # At the limit itself the reason would be the time limit.
    assert (failed["reason"], failed["error"]) == ("signal", "terminated: killed by signal 15")


@pytest.mark.parametrize(
    ("answer", "job"),
    [((0, "4711\n", ""), "4711"), ((0, "a plugin's chatter\n4711;lab\n", ""), "4711")],
)
def test_the_id_is_read_from_whichever_line_of_what_sbatch_prints(
    answer: tuple[int, str, str], job: str
) -> None:
    assert slurm(answer).submit(Path("run/batches/x.sh"), token="t") == job


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((0, "", ""), SubmitUnclear),
        ((0, "Submitted, somehow", ""), SubmitUnclear),
        ((1, "", "sbatch: error: Invalid partition name specified"), SchedulerError),
        ((1, "", "sbatch: error: Unable to contact slurm controller"), SubmitUnclear),
        ((1, "", "sbatch: error: Batch job submission failed: Socket timed out"), SubmitUnclear),
    ],
)
def test_no_id_a_refusal_and_silence_are_three_things(
    answer: tuple[int, str, str], error: type[SchedulerError]
) -> None:
    with pytest.raises(SchedulerError) as raised:
        slurm(answer).submit(Path("run/batches/x.sh"), token="t")
    assert type(raised.value) is error
