"""Why a task failed: each end has its own reason, in words that name the cause, with a remedy."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

import pytest
from fakes import QUEUED, Lab

from hpcpipe import each
from hpcpipe.jobs import JobEnd, JobStatus, Reason, State
from hpcpipe.run import retry
from hpcpipe.schedulers.base import Done
from hpcpipe.schedulers.slurm import Slurm
from hpcpipe.schedulers.slurm.sacct import read_ends
from hpcpipe.status.diagnose import reason_said
from hpcpipe.status.report import make_report
from hpcpipe.status.state import Task
from hpcpipe.submit.cancel import cancel
from hpcpipe.views.explain import explain
from hpcpipe.views.status import change_lines, status_lines
from hpcpipe.views.text import first_line
from hpcpipe.worker.outcome import NO_SPACE

KINDS = ["a", "b"]


def only(lab: Lab) -> Task:
    """Return the one task that failed by itself."""
    [task] = [one for one in make_report(lab.rundir, fresh=True).failures if one.label != "b"]
    return task


def spelled(lab: Lab, task: str) -> str:
    element = lab.find(task)
    return element.job if element.index is None else f"{element.job}_{element.index}"


def run(lab: Lab, task: str) -> int:
    """Run a task's script, keep its log, and tell the scheduler how it ended."""
    element, name = lab.find(task), spelled(lab, task)
    done = lab.run(task)
    lab.rundir.log(element.batch, element.index).write_text(done.err)
    reason = Reason.EXIT if done.status else None
    lab.scheduler.says[name] = JobEnd("FAILED", reason, done.status)
    return done.status


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_meaning_and_a_remedy(reason: Reason) -> None:
    about = reason.about
    assert about.meaning.endswith(".")
    assert (
        about.remedy.format(retry="hpcpipe retry", status="hpcpipe status").count("hpcpipe ") == 1
    )
    assert about.raises in ("", "memory", "time")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", Reason.GPU),
        ("RuntimeError: CUDA error: out of memory", Reason.GPU),
        ("cupy.cuda.memory.OutOfMemoryError: Out of memory allocating 1,024 bytes", Reason.GPU),
        ("XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate", Reason.GPU),
        ("CUDA_ERROR_OUT_OF_MEMORY", Reason.GPU),
        ("OSError: [Errno 28] No space left on device: 'x'", Reason.SPACE),
        ("cp: error writing 'y': Disk quota exceeded", Reason.SPACE),
        ("OSError: [Errno 122] Disk quota exceeded", Reason.SPACE),
        ("ValueError: out of memory of the relationship", None),
        ("no space between words", None),
    ],
)
def test_a_task_s_own_words_give_a_reason_away(words: str, reason: Reason | None) -> None:
    assert reason_said(words) is reason


@pytest.mark.parametrize(
    ("state", "code", "reason", "word"),
    [
        ("PREEMPTED", "0:15", Reason.PREEMPTED, "PREEMPTED"),
        ("REVOKED", "0:0", Reason.REVOKED, "REVOKED"),
        ("FAILED", "0:53", Reason.START, "its log or folder cannot be opened"),
        ("FAILED", "0:9", Reason.SIGNAL, "FAILED"),
        ("CANCELLED by 0", "0:15", Reason.CANCELLED, "CANCELLED by root"),
    ],
)
def test_each_end_that_slurm_knows_has_a_reason_of_its_own(
    lab: Lab, state: str, code: str, reason: Reason, word: str
) -> None:
    lab.workflow.command("echo {kind}", kind=each(["a"]), name="work")
    lab.submit()
    name = spelled(lab, "work/a")
    lab.scheduler.says |= read_ends(f"{name}|{state}|{code}||100M|5|node7\n")
    task = only(lab)
    assert (task.reason, word in task.words) == (reason, True), task.words
    if reason is Reason.START:
        element = lab.find("work/a")
        assert str(lab.rundir.log(element.batch, element.index).absolute()) in task.words


NEVER = (
    "PartitionTimeLimit BadConstraints InvalidAccount InvalidQOS QOSNotAllowed JobHoldMaxRequeue"
)
PER_JOB = "AssocMaxCpuPerJobLimit QOSMaxWallDurationPerJobLimit QOSMinGRES MaxMemPerLimit"
PASSING = "Priority Resources AssocMaxJobsLimit QOSMaxJobsPerUserLimit AssocGrpCpuLimit Licenses"
NODES = "PartitionConfig|PartitionNodeLimit|ReqNodeNotAvail, UnavailableNodes:n1|PartitionDown"
NODES += "|BeginTime"


@pytest.mark.parametrize(
    ("word", "never"),
    [
        *((word, True) for word in f"{NEVER} {PER_JOB}".split()),
        *((word, False) for word in (*PASSING.split(), *NODES.split("|"))),
    ],
)
def test_slurm_s_reasons_that_nothing_changes_are_told_from_those_that_pass(
    word: str, never: bool
) -> None:
    answer = Done(("squeue",), 0, f"7|PENDING|{word}|N/A\n")
    one = Slurm().read_poll(answer)["7"]
    assert (one.state is State.FAILED, one.reason is Reason.NEVER) == (never, never)
    assert one.why.startswith(word)


def test_what_can_never_start_is_told_with_what_to_do_and_runs_with_the_next_retry(
    lab: Lab,
) -> None:
    lab.workflow.command("echo {kind}", kind=each(KINDS), name="work")
    lab.submit()
    why = "PartitionTimeLimit: requests more time than the partition allows"
    lab.scheduler.says |= {"1_0": JobStatus(State.FAILED, "PENDING", why, Reason.NEVER)}
    run(lab, "work/b")
    screen = "\n".join(status_lines(report := make_report(lab.rundir)))
    assert report.finished  # so nobody watches it for ever
    assert "can never start  work: a" in screen
    assert "time than the partition allows" in screen
    assert "hpcpipe retry" in screen
    retry(lab.rundir.folder, site=lab.site)
    assert [job.node for job in lab.scheduler.live.values()] == ["work"]


def test_a_command_s_last_line_is_on_the_screen_without_control_characters(lab: Lab) -> None:
    line = r"printf '50%%\r\033[31m%s: no such tool\033[0m\n\n' {kind} >&2; exit 127"
    lab.workflow.command(["sh", "-c", line.format(kind="$0"), "{kind}"], kind=each(KINDS), name="n")
    lab.submit()
    for kind in KINDS:
        run(lab, f"n/{kind}")
    tasks = make_report(lab.rundir).failures
    assert [task.words for task in tasks] == [f"exit 127: {kind}: no such tool" for kind in KINDS]
    screen = "\n".join(status_lines(make_report(lab.rundir)))
    assert '  exit  n: a  "exit 127: a: no such tool"' in screen


def fill(path: str) -> None:
    """Have the outcome of a task go to a device that is full."""
    [claim] = Path(path).glob("results/*/*.claim")
    claim.unlink()
    claim.symlink_to("/dev/full")


@pytest.mark.parametrize("python", [True, False])
def test_an_outcome_for_which_there_is_no_space_is_told_as_that(lab: Lab, python: bool) -> None:
    home = os.path.abspath(lab.rundir.home)
    if python:
        lab.workflow.add(fill, path=home)
    else:
        words = f"cd {home}/results/fill && ln -sf /dev/full *.claim"
        lab.workflow.command(["sh", "-c", words], name="fill")
    lab.submit()
    assert run(lab, "fill") == NO_SPACE
    task = only(lab)
    assert (task.state, task.reason) == (State.FAILED, Reason.SPACE)
    assert "Free some space" in [*explain(lab.rundir, "fill")][-1]


def overflow() -> None:
    with open("/dev/full", "w") as full:
        full.write("x")


@pytest.mark.parametrize("python", [True, False])
def test_a_task_that_finds_a_disk_full_is_told_as_that(lab: Lab, python: bool) -> None:
    if python:
        lab.workflow.add(overflow, name="work")
    else:
        lab.workflow.command(["sh", "-c", "echo x | cat >/dev/full"], name="work")
    lab.submit()
    run(lab, "work")
    assert only(lab).reason is Reason.SPACE
    assert "No space left on device" in only(lab).words


def test_who_cancelled_is_named_the_same_now_and_later(lab: Lab) -> None:
    lab.workflow.command("echo {kind}", kind=each(KINDS), name="work")
    lab.submit()
    lab.scheduler.says["1_0"] = JobEnd(f"CANCELLED by {os.getuid()}", Reason.CANCELLED)
    before = only(lab)
    assert before.words == f"CANCELLED by {getpass.getuser()}"
    assert lab.scheduler.says["1_1"] == QUEUED
    cancel(lab.rundir, ())
    report = make_report(lab.rundir)
    assert {task.label: task.words for task in report.failures} == {
        "a": before.words,
        "b": "by hpcpipe cancel",
    }


def test_waiting_for_what_others_must_change_is_told_by_watch_and_status(lab: Lab) -> None:
    lab.workflow.command("echo {kind}", kind=each(KINDS), name="work")
    lab.submit()
    before = make_report(lab.rundir)
    why = JobStatus(State.QUEUED, "PENDING", "ReqNodeNotAvail, UnavailableNodes:n[1-4]")
    lab.scheduler.says = dict.fromkeys(lab.scheduler.says, why)
    after = make_report(lab.rundir, fresh=True)
    said = "waiting 2: the nodes they need are down or reserved"
    assert said in [*change_lines(before, after)]
    assert said not in [*change_lines(after, after)]
    *_, waiting, suggested = status_lines(after)
    assert waiting == said
    assert suggested.startswith("Next: hpcpipe cancel")


def leave(kind: str) -> None:
    print(f"{kind}: wrong sampling rate")
    raise SystemExit(3)


def test_what_a_function_printed_before_it_left_is_told_without_its_traceback(lab: Lab) -> None:
    lab.workflow.add(leave, kind=each(["a"]))
    lab.submit()
    element, done = lab.find("leave/a"), lab.run("leave/a")
    printed = done.out.decode() + done.err  # both go to the log
    lab.rundir.log(element.batch, element.index).write_text(printed)
    lab.scheduler.says = {spelled(lab, "leave/a"): JobEnd("FAILED", Reason.EXIT, 1)}
    assert only(lab).words == "exit 3: a: wrong sampling rate"


CODE = """
def load():
    raise ValueError("no such column: age\\n\\nknown are:\\n  sex")
try:
    1 / 0
except ZeroDivisionError:
    load()
"""


def test_of_an_exception_with_many_lines_the_first_one_is_told(lab: Lab) -> None:
    lab.workflow.command([sys.executable, "-c", CODE], name="work")
    lab.submit()
    run(lab, "work")
    assert only(lab).words == "exit 1: ValueError: no such column: age"


def fail(words: str) -> None:
    raise ValueError(words)


@pytest.mark.parametrize("words", ["no such column\nknown are:\n  sex", "\n  no such column\n"])
def test_of_a_function_too(lab: Lab, words: str) -> None:
    lab.workflow.add(fail, name="work", words=words)
    lab.submit()
    run(lab, "work")
    task = only(lab)
    assert first_line(task.words) == "ValueError: no such column"


def test_elements_that_could_not_be_started_have_one_cause(lab: Lab) -> None:
    lab.workflow.command("true {x}", x=each(range(3)), name="work")
    lab.submit()
    said = "FAILED, exit code 0:53"
    lab.scheduler.says = {
        one: JobEnd(said, Reason.START, host=f"lab{number}")
        for number, one in enumerate(lab.scheduler.says)
    }
    lines = [*status_lines(make_report(lab.rundir, fresh=True))]
    [why] = [line for line in lines if "could not be started" in line]
    assert why.startswith("why   3  could not be started  work: 0 1 2 ")
