"""Grid Engine's adapter against what a real one, 8.1.9, printed (tests/golden/outputs/sge)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from pwd import getpwuid

import pytest
from contract.dialects import Dialect
from contract.dialects.sge import DRMAA, SGE
from contract.harness import Cluster

from hpcpipe.errors import SchedulerError, SchedulerUnavailable, SubmitUnclear
from hpcpipe.jobs import After, JobStatus, Reason, State
from hpcpipe.schedulers.base import Done
from hpcpipe.schedulers.sge import Sge
from hpcpipe.schedulers.sge.qacct import read_records, spread

OUTPUTS = Path(__file__).parent / "golden" / "outputs" / "sge"
QUEUED, RUNNING = JobStatus(State.QUEUED, "qw"), JobStatus(State.RUNNING, "r")

BY_HAND = "held by hand, or by an interrupted submission; to release it"


def read(name: str) -> str:
    return (OUTPUTS / name).read_text()


def sge(*answers: tuple[int, str, str]) -> Sge:
    """Make an adapter whose commands get these answers, in turn."""
    left = list(answers)

    def run(argv: Sequence[str], cwd: Path | None) -> Done:
        del cwd
        return Done(tuple(argv), *left.pop(0))

    return Sge(run)


def test_the_accounting_tells_each_end_apart() -> None:
    ends = read_records(read("qacct.txt"))
    assert {job: (end.reason, end.exit_code, end.signal) for job, end in ends.items()} == {
        "128": (Reason.TIME, None, 9),
        "130": (Reason.EXIT, 127, None),  # it wanted more memory than there was, and said so itself
        "132": (Reason.MEMORY, None, 9),
        "116": (Reason.EXIT, 100, None),
        "118": (Reason.START, None, None),
        "119": (Reason.START, None, None),
        "129": (Reason.TIME, None, 10),  # SIGUSR1: the soft limit
        "112": (Reason.EXIT, 1, None),
        "111": (None, 0, None),
        "157": (Reason.CANCELLED, None, 9),
        **{f"159.{n}": (Reason.CANCELLED, None, 9) for n in (1, 2, 4, 6)},
    }  # and not 114, which is started again and again
    assert (ends["132"].max_memory, ends["128"].wall, ends["111"].host) == (435, 4, "vm")
    assert ends["118"].native == "failed 28: changing into working directory"


def test_another_dialects_numbers_are_read_too() -> None:
    text = (
        "=====\njobnumber    7\ntaskid       2\nfailed       37 : qmaster enforced limit\n"
        "exit_status  137\nru_wallclock 3.4\nmaxvmem      24.051M\ncategory     -l h_vmem=20M\n"
        "=====\njobnumber    8\nfailed       0\nexit_status  0\nru_wallclock 00:00:03\n"
    )
    ends = read_records(text + text.replace("7\n", "9\n").replace("h_vm", "h_rt=3,h_vm"))
    assert ends["9.2"].reason is Reason.MEMORY  # and over its time only because that took a while
    assert (ends["7.2"].reason, ends["7.2"].max_memory) == (Reason.MEMORY, 24)
    assert (ends["8"].reason, ends["8"].max_memory) == (None, None)


def test_a_row_stands_for_all_of_its_elements() -> None:
    assert [*spread("7", "")] == [*spread("7", "undefined")] == ["7"]
    assert [*spread("7", "1-5:2,9,12-13")] == ["7.1", "7.3", "7.5", "7.9", "7.12", "7.13"]


def test_the_queue_is_read() -> None:
    wanted = ["104", "106", "109", "110", "99999", "111"]
    mixed = read("qstat-mixed.xml")
    assert sge((0, mixed, "")).poll(wanted) == {
        **{f"104.{n}": RUNNING if n < 3 else QUEUED for n in range(1, 11)},
        "111": RUNNING,
        "110": QUEUED,
        "106": JobStatus(State.QUEUED, "hqw", "Dependency"),
        "109": JobStatus(State.HELD, "hqw", f"{BY_HAND}: qrls 109"),
    }
    # A hold that is left after what it waited for has ended is somebody's own.
    ended = mixed.replace("<predecessor_jobs>104</predecessor_jobs>", "")
    told = sge((0, ended, ""), (0, ended, "")).poll(["106"])
    assert told == {"106": JobStatus(State.HELD, "hqw", "held by hand; to release it: qrls 106")}
    # `qstat -s hu` does not list what an operator holds, whom alone qrls obeys.
    others = re.sub(r"<job_list.*?</job_list>", "", ended, flags=re.S)
    told = sge((0, ended, ""), (0, others, "")).poll(["106"])
    assert told["106"].state is State.HELD
    assert told["106"].why == "held by an operator of the cluster, who alone can release it"
    suspended = sge((0, read("qstat-suspended.xml"), "")).poll(["180"])
    assert suspended == {"180": JobStatus(State.RUNNING, "s")}


def test_what_can_never_start_is_said_with_its_reason() -> None:
    queue = (0, read("qstat-eqw.xml"), "")
    polled = sge(queue, (0, read("qstat-j-eqw.txt"), "")).poll(
        ["110", "114", "117", "118", "119", "126"]
    )
    assert {job: status.state for job, status in polled.items()} == {
        "110": State.QUEUED,
        "114": State.QUEUED,  # Rq: to be started again
        "117": State.HELD,
        "118": State.FAILED,
        "119": State.FAILED,
        "126": State.FAILED,
    }
    assert polled["118"].native == "Eqw"
    assert polled["118"].why.endswith("can't chdir to /nonexistent/dir: No such file or directory")
    assert polled["126"].why.endswith('unable to find shell "/no/shell"')


@pytest.mark.parametrize(
    ("said", "job"),
    [
        ("102\n", "102"),
        ("104.1-10:1\n", "104"),
        ("Your request was changed.\n104.1-10:1\n", "104"),
        ('Your job-array 104.1-3:1 ("t1") has been submitted\n', "104"),
        ('Your job 102 ("t1") has been submitted\n', "102"),
    ],
)
def test_the_id_is_read_from_whichever_line_has_one(said: str, job: str) -> None:
    assert sge((0, said, "")).submit(Path("run/batches/x.sh"), token="t") == job


NO_QUEUE = "Unable to run job: error: no suitable queues\nExiting."
HOST = 'Job 9 (-l h_vmem=999G) cannot run at host "vm" because it offers only hc:h_vmem=32.000G'
LOAD = (
    'Job 9 (-l mem_free=1G) cannot run in queue "long@vm" because job requests unknown resource '
    "(mem_free)"
)
SLOTS = 'Job 9 cannot run in PE "smp" because it only offers 0 slots'
LISTED_OUT = 'Job 9 cannot run in queue "x" because it is not contained in its hard queue list (-q)'


def checked(*lines: str) -> tuple[int, str, str]:
    """Answer as `qsub -w v` does."""
    return 1, "", "Unable to run job: " + "\n".join((*lines, "verification: no suitable queues"))


def test_what_no_queue_could_run_is_refused_with_the_reason() -> None:
    adapter = sge((1, "", NO_QUEUE), checked(LISTED_OUT, HOST, *[HOST] * 9))
    with pytest.raises(SchedulerError) as refused:
        adapter.submit(Path("run/batches/x.sh"), token="t")
    assert str(refused.value) == "\n".join((HOST, HOST, HOST, NO_QUEUE))


@pytest.mark.parametrize("words", [LOAD, SLOTS])
def test_what_the_check_cannot_judge_is_submitted(words: str) -> None:
    """It knows no load values, which change, and takes a resource that is one for unknown."""
    adapter = sge((1, "", NO_QUEUE), checked(LISTED_OUT, words), (0, "7\n", ""))
    assert adapter.submit(Path("run/batches/x.sh"), token="t") == "7"


@pytest.mark.parametrize("said", ["", "7 8\n", "7\n8\n"])
def test_without_exactly_one_id_nothing_is_proven(said: str) -> None:
    with pytest.raises(SubmitUnclear, match="qsub gave"):
        sge((0, said, "")).submit(Path("run/batches/x.sh"), token="t")


def test_dependencies_are_spelled_by_kind() -> None:
    after = [After("7"), After("8", "each"), After("9")]
    argv = Sge().submit_command(Path("run/batches/x.sh"), after, token="t", held=True)
    assert argv == (
        "qsub", "-terse", "-ac", "hpcpipe=t", "-h", "-hold_jid", "7,9", "-hold_jid_ad", "8",
        "batches/x.sh",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("Unable to run job: job rejected: 0 is an invalid task id\nExiting.", SchedulerError),
        ('error: unable to send message to qmaster using port 9 on host "vm": got send error',
         SubmitUnclear),
        ('error: unable to read qmaster name: can\'t open "x" for reading', SubmitUnclear),
    ],
)  # fmt: skip
def test_a_refusal_is_not_silence(error: str, kind: type[SchedulerError]) -> None:
    with pytest.raises(SchedulerError, match=r"\w") as raised:
        sge((1, "", error)).submit(Path("run/batches/x.sh"), token="t")
    assert type(raised.value) is kind
    assert str(raised.value).startswith(error.partition("\n")[0])


def test_an_id_that_nobody_knows_is_absent() -> None:
    assert sge((1, "", "error: job id 99999 not found\n")).account(["99999"], 0) == {}


LISTED = read("qstat-eqw.xml")
DESCRIBED = "job_number:   118\ncontext:      hpcpipe=t1\n"


def test_a_job_that_ends_between_two_questions_hides_no_other() -> None:
    left = re.sub(
        r"<job_list.*?</job_list>", lambda one: one[0] * (">118<" in one[0]), LISTED, flags=re.S
    )
    answers = ((0, LISTED, ""), (0, DESCRIBED, ""), (0, left, ""))
    assert sge(*answers).find(["t1", "t2"]) == {"t1": "118"}


def test_a_job_that_is_queued_and_not_described_may_be_the_one_looked_for() -> None:
    answers = ((0, LISTED, ""), (0, DESCRIBED, ""), (0, LISTED, ""))
    with pytest.raises(SchedulerUnavailable, match="nothing of 109, 110, 114, 115"):
        sge(*answers).find(["t1", "t2"])


@pytest.mark.sge
@pytest.mark.parametrize("dialect", [SGE, DRMAA], ids=lambda one: one.name)
def test_default_options_of_a_user_change_no_job(dialect: Dialect, tmp_path: Path) -> None:
    dialect.need()
    cluster = Cluster(dialect, tmp_path)
    file = Path(getpwuid(os.getuid()).pw_dir, ".sge_request")
    file.write_text("-h\n-l h_rt=0:0:1\n-o /nowhere/x\n-t 5-7\n")
    try:
        cluster.hpcpipe("map", "--name", "one", "--", "sleep", "{}", ":::", "3")
    finally:
        file.unlink()
    assert cluster.finish()["nodes"] == {"one": {"all": 1, "done": 1}}
