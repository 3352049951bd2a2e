"""HTCondor: its adapter against what 23.9.6 and 25.14 printed (tests/golden/outputs/htcondor), and
the DAG it writes against what DAGMan's manual says."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from fakes import ends_of
from standins import dagfile
from standins.htcondor import compiled

from hpcpipe.errors import SchedulerError, SchedulerUnavailable, SubmitUnclear
from hpcpipe.jobs import After, JobEnd, Reason, State
from hpcpipe.schedulers.base import Done
from hpcpipe.schedulers.htcondor import HTCondor
from hpcpipe.schedulers.htcondor import classads as jobads
from hpcpipe.schedulers.htcondor.dagman import Dag, Wait
from hpcpipe.schedulers.htcondor.submit_file import Description, describe

T = TypeVar("T")
OUTPUTS = Path(__file__).parent / "golden" / "outputs" / "htcondor"
SUBMITTED = (OUTPUTS / "condor_submit_dag.txt").read_text()  # cluster 19


def sample(name: str) -> Done:
    return Done(("condor",), 0, (OUTPUTS / name).read_text())


def htcondor(*answers: str | Done) -> tuple[HTCondor, list[Sequence[str]]]:
    """Make an adapter whose commands get these answers, in turn; and note the commands."""
    left, ran = list(answers), []

    def run(argv: Sequence[str], cwd: Path | None) -> Done:
        del cwd
        ran.append(argv)
        answer = left.pop(0)
        return Done(tuple(argv), 0, answer) if isinstance(answer, str) else answer

    return HTCondor(run), ran


def script(folder: Path, name: str, array: str = "") -> Path:
    path = folder / "batches" / f"{name}.sh"
    path.parent.mkdir(exist_ok=True)
    said = f"#HTCONDOR hpcpipe_array = {array}\n" * bool(array)
    path.write_text(f"#!/bin/sh\n{said}#HTCONDOR request_cpus = 2\nexit 0\n")
    return path


def told(ends: Mapping[T, JobEnd]) -> dict[T, tuple[Reason | None, int | None, int | None]]:
    return {job: (end.reason, end.exit_code, end.signal) for job, end in ends.items()}


def test_each_way_of_being_held_is_told_apart() -> None:
    rows = jobads.rows(sample("condor_q_json_attrs.json"))
    rows = [*rows, *jobads.rows(sample("condor_q_after_json.json"))]
    said = {row["ClusterId"]: jobads.status(row) for row in rows}
    assert {job: status.state for job, status in said.items()} == {
        **dict.fromkeys((6, 8, 9, 10, 11), State.FAILED),
        **dict.fromkeys((12, 16), State.QUEUED),
        13: State.RUNNING,
        14: State.HELD,
        15: State.RUNNING,
    }
    assert said[9].why == "The job exceeded allowed job duration of 00:04"
    assert [said[job].reason for job in (6, 9, 10)] == [Reason.START, Reason.TIME, Reason.TIME]
    assert said[6].why.endswith("(errno=13: 'Permission denied')")


def test_each_end_in_the_history_is_told_apart() -> None:
    rows = [*jobads.rows(sample("condor_history_json.json"))]
    rows += jobads.rows(sample("condor_history_13.json"))
    ends = {row["ClusterId"]: jobads.end(row) for row in rows}
    assert told(ends) == {
        **dict.fromkeys((1, 2, 15), (None, 0, None)),
        3: (Reason.EXIT, 3, None),
        4: (Reason.SIGNAL, None, 11),
        13: (Reason.CANCELLED, None, None),
    }
    assert ends[13].native == "via condor_rm (by user hpclab)"
    assert ends[15].wall == 6
    assert jobads.rows(sample("condor_history_unknown.txt")) == []
    assert jobads.rows(Done(("condor_q",), 0, "")) == []


def test_an_event_log_says_the_same_as_the_history() -> None:
    pytest.importorskip("htcondor2")
    log = jobads.read_log(str(OUTPUTS / "events.log"))
    assert log is not None
    ends = {row["ClusterId"]: jobads.end(row) for row in log}
    assert told(ends) == {
        3: (Reason.EXIT, 3, None),
        4: (Reason.SIGNAL, None, 11),
        9: (Reason.TIME, None, None),
        13: (Reason.CANCELLED, None, None),
        **dict.fromkeys((12, 14, 15), (None, 0, None)),
    }
    assert ends[9].native == "The job exceeded allowed job duration of 00:04"
    assert (ends[3].host, ends[3].max_memory) == ("vm", 6)
    nodes = jobads.read_log(str(OUTPUTS / "dag_nodes.log"))
    assert {row["DAGNodeName"] for row in nodes or ()} == {"A", "B", "C", "D"}
    assert jobads.read_log(str(OUTPUTS / "no.log")) is None


def test_a_node_held_and_then_removed_ended_as_it_was_held() -> None:
    held = htcondor(sample("condor_q_dag.json"))[0].poll(["2460"])
    assert {node: (one.state, one.reason) for node, one in held.items()} == {
        "2460/n0_3": (State.FAILED, Reason.START),
        "2460/n0_6": (State.HELD, Reason.START),
        "2460/n0_7": (State.QUEUED, Reason.START),
        "2460/n0_8": (State.FAILED, Reason.MEMORY),
        "2460/n0_9": (State.FAILED, Reason.TIME),
        "2460/n0_10": (State.RUNNING, Reason.START),
    }
    ends = ends_of(htcondor(sample("condor_history_dag.json"))[0], "2460")
    assert told(ends) == {
        "2460/n0_0": (None, 0, None),
        "2460/n0_1": (Reason.EXIT, 3, None),
        "2460/n0_2": (Reason.SIGNAL, None, 11),
        "2460/n0_3": (Reason.START, None, None),
        **dict.fromkeys(("2460/n0_4", "2460/n0_9"), (Reason.TIME, None, None)),
        **dict.fromkeys(("2460/n0_5", "2460/n0_8"), (Reason.MEMORY, None, None)),
        **{f"2460/n0_{n}": (Reason.CANCELLED, None, None) for n in (6, 7, 10)},
    }
    assert (ends["2460/n0_5"].max_memory, ends["2460/n0_5"].wall) == (318, 2)
    assert ends["2460/n0_9"].native == "The job exceeded allowed job duration of 00:04"
    pytest.importorskip("htcondor2")
    log = jobads.read_log(str(OUTPUTS / "dag_nodes_held.log")) or ()
    assert told({f"2460/{row['DAGNodeName']}": jobads.end(row) for row in log}) == told(ends)


def test_a_submission_is_one_dag_of_a_node_for_each_element(tmp_path: Path) -> None:
    adapter, ran = htcondor("", SUBMITTED, "", "", "All jobs have been released")
    first = adapter.submit(script(tmp_path, "a-1", "0-2"), token="t1", held=True)
    adapter.submit(script(tmp_path, "a-2", "0-2"), [After(first, "each")], token="t2")
    last = adapter.submit(
        script(tmp_path, "a-3"),
        [After("19/n1", well=False), After(first, element=2)],
        token="t3",
    )
    assert (first, last, adapter.element(first, 2)) == ("19/n0", "19/n2", "19/n0_2")
    adapter.release([first])
    mine = 'My.HpcpipeDag = "batches/a-1"'
    assert ran[1] == (
        *("condor_submit_dag", "-force", "-dont_suppress_notification"),
        *("-append", "hold = true", "-append", mine),
        "batches/a-1.dag",
    )
    tries = [argv for argv in ran if argv[0] == "condor_submit"]
    assert tries == [("condor_submit", "-dry-run", "-", f"batches/a-{n}.sub") for n in (1, 2, 3)]
    assert ran[-1] == ("condor_release", "19")
    nodes = dagfile.parse(tmp_path / "batches/a-1.dag", {})
    assert {name: node.parents for name, node in nodes.items()} == {
        **{f"n0_{n}": set() for n in range(3)},
        "n0": {"n0_0", "n0_1", "n0_2"},
        **{f"n1_{n}": {f"n0_{n}"} for n in range(3)},
        "n1": {"n1_0", "n1_1", "n1_2"},
        "n2": {"n1", "n0_2"},
    }
    assert [name for name, node in nodes.items() if node.noop] == ["n0", "n1"]
    assert (tmp_path / "batches/a-3.sub").read_text() == (
        "universe = vanilla\nnotification = Never\nexecutable = /bin/sh\n"
        "arguments = \"-c '[ -O . ] && [ -O batches ] && [ -O batches/a-3.sh ]"
        " && [ `find . batches batches/a-3.sh -prune ! -perm -020 ! -perm -002 | grep -c .` = 3 ]"
        " || exit 90; exec ./batches/a-3.sh'\"\n"
        "periodic_remove = JobStatus == 5 && (member(HoldReasonCode, {34, 46, 47})"
        " || HoldReasonCode == 21 && HoldReasonSubCode =?= 102"
        " || !member(HoldReasonCode, {1, 15}) && time() - EnteredCurrentStatus > 600)\n"
        "request_cpus = 2\nqueue\n"
    )


def ad(cluster: int, status: int, folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "ClusterId": cluster, "ProcId": 0, "JobStatus": status, "Iwd": str(folder), **more
    }  # fmt: skip


def test_what_waits_for_another_dag_asks_for_it_before_it_starts(tmp_path: Path) -> None:
    adapter, _ = htcondor("", SUBMITTED)
    above = adapter.submit(script(tmp_path, "a-1"), token="t1")
    queue = json.dumps([ad(19, 2, tmp_path, HpcpipeDag="batches/a-1")])
    later, _ = htcondor("", queue, SUBMITTED.replace("19", "20"))
    later.submit(script(tmp_path, "b-1", "0-1"), [After(above), After("7/n0")], token="t2")
    waits = (tmp_path / "batches/b-1.waits").read_text()
    assert waits == "n0_0 n0 batches/a-1\nn0_1 n0 batches/a-1\n"  # and for no DAG that is gone


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("jobstate", "1 n0 JOB_FAILURE 3 - - 2"),
        ("jobstate", "1 n0 POST_SCRIPT_TERMINATED - - - 1"),
        ("cancelled", "n0"),
        ("dag.dagman.log", "005 (019.000.000) 2026-11-29 11:58:40 Job terminated."),
        ("dag.dagman.log", "009 (019.000.000) 2026-11-29 11:58:40 Job was aborted."),
    ],
)
def test_it_starts_however_that_ended_and_also_if_it_never_began(
    tmp_path: Path, name: str, line: str
) -> None:
    above, dag = Dag(tmp_path, "batches/a-1"), Dag(tmp_path, "batches/b-1")
    (tmp_path / "batches").mkdir()
    dag.begin()
    dag.add(Description("batches/b-1.sub", None, ""), [Wait(above, "n0")], "t")
    (tmp_path / "batches/a-1.dag.dagman.log").write_text("000 (019.000.000) Job submitted\n")

    def asked() -> int:
        words = ("sh", "batches/b-1.pre", dag.name, "n0")
        return subprocess.run(words, cwd=tmp_path, check=False).returncode

    assert asked() == 2  # to be asked again
    with open(tmp_path / f"batches/a-1.{name}", "a") as file:
        file.write(f"{line}\n")
    assert asked() == 0


def test_what_stays_held_is_removed_by_htcondor_unless_a_hand_holds_it(tmp_path: Path) -> None:
    path = describe(script(tmp_path, "a-1")).path
    lines = (tmp_path / path).read_text().splitlines()
    [rule] = (line.partition(" = ")[2] for line in lines if line.startswith("periodic_remove"))
    now = time.time()
    removed = [
        (code, age)
        for code in (1, 7, 13, 15, 34, 46)
        for age in (5, 700)
        if compiled(rule)(
            {"JobStatus": 5, "HoldReasonCode": code, "EnteredCurrentStatus": now - age}
        )
    ]
    assert removed == [(7, 700), (13, 700), (34, 5), (34, 700), (46, 5), (46, 700)]


def test_nodes_that_dagman_keeps_are_told_from_those_that_it_submitted(tmp_path: Path) -> None:
    dag = Dag(tmp_path, "batches/a-1")
    adapter, _ = htcondor("", SUBMITTED, "")
    first = adapter.submit(script(tmp_path, "a-1", "0-3"), token="t1", held=True)
    second = adapter.submit(script(tmp_path, "a-2"), [After(first)], token="t2")
    held = ad(19, 5, tmp_path, HpcpipeDag=dag.name, HoldReasonCode=15, HoldReason="submitted on")
    polled = htcondor(json.dumps([held]))[0].poll([first, second])
    assert {polled[f"19/n0_{n}"].state for n in range(4)} == {State.HELD}
    assert polled[second].state is State.QUEUED
    (tmp_path / "batches/a-1.jobstate").write_text(
        "1 INTERNAL *** DAGMAN_STARTED 19.0 ***\n1 n0_0 SUBMIT 20.0 - - 1\n"
        "1 n0_1 SUBMIT 21.0 - - 2\n2 n0_1 JOB_FAILURE 3 - - 2\n1 n0_2 SUBMIT 22.0 - - 3\n"
    )
    queue = [
        ad(19, 2, tmp_path, HpcpipeDag=dag.name),
        ad(20, 5, tmp_path, DAGManJobId=19, DAGNodeName="n0_0", HoldReasonCode=34),
        ad(22, 1, tmp_path, DAGManJobId=19, DAGNodeName="n0_2"),
    ]
    marked = "All jobs have been marked for removal"
    adapter, ran = htcondor(*[json.dumps(queue)] * 3, marked, json.dumps(queue), marked)
    polled = adapter.poll([first, second])
    assert {one: status.state for one, status in polled.items()} == {
        "19/n0_0": State.FAILED,
        "19/n0_2": State.QUEUED,
        "19/n0_3": State.QUEUED,
        second: State.QUEUED,
    }
    assert polled["19/n0_0"].reason is Reason.MEMORY
    assert adapter.find(["t1", "t2", "t3"]) == {"t1": first, "t2": second}
    adapter.cancel([second, "19/n0_2"])
    [removal, again] = (argv for argv in ran[3:] if argv[0] == "condor_rm")
    assert again[2] == '(DAGManJobId == 19 && member(DAGNodeName, {"n0_2"}))'  # idle since
    assert removal[:2] == ("condor_rm", "-constraint")
    assert "DAGManJobId == 19 && member(DAGNodeName, {" in removal[2]
    assert sorted((tmp_path / "batches/a-1.cancelled").read_text().split()) == ["n0_2", "n1"]


def test_what_a_removed_dag_never_began_was_cancelled(tmp_path: Path) -> None:
    adapter, _ = htcondor("", SUBMITTED)
    job = adapter.submit(script(tmp_path, "a-1", "0-1"), token="t1")
    (tmp_path / "batches/a-1.jobstate").write_text("1 n0_0 SUBMIT 20.0 - - 1\n")
    rows = [ad(19, 3, tmp_path, HpcpipeDag="batches/a-1", RemoveReason="via condor_rm")]
    rows.append(ad(20, 4, tmp_path, DAGManJobId=19, DAGNodeName="n0_0", ExitCode=0))
    ends = ends_of(htcondor(json.dumps(rows))[0], job)
    assert ends["19/n0_0"].reason is None
    assert (ends["19/n0_1"].reason, ends["19/n0_1"].native) == (Reason.CANCELLED, "via condor_rm")


def test_each_try_has_a_dag_of_its_own(tmp_path: Path) -> None:
    """The first, whose answer said nothing, may arrive all the same."""
    adapter, _ = htcondor("", "", "", SUBMITTED)
    batch = script(tmp_path, "a-1")
    with pytest.raises(SubmitUnclear):
        adapter.submit(batch, token="t1", held=True)
    assert adapter.submit(batch, token="t2", held=True) == "19/n0"
    tokens = [Dag(tmp_path, f"batches/{name}").tokens for name in ("a-1", "a-1-2")]
    assert tokens == [{"t1": "n0"}, {"t2": "n0"}]


def test_a_description_that_htcondor_refuses_is_not_put_into_a_dag(tmp_path: Path) -> None:
    words = (OUTPUTS / "condor_submit_baddir.err").read_text()
    adapter, ran = htcondor(Done(("condor_submit",), 1, "", words))
    with pytest.raises(SchedulerError, match=r"^ERROR: No such directory: /nonexistent/dir"):
        adapter.submit(script(tmp_path, "a-1"), token="t")
    assert len(ran) == 1


def test_what_dagman_gave_up_before_it_began_could_not_be_started(tmp_path: Path) -> None:
    adapter, _ = htcondor("", SUBMITTED)
    job = adapter.submit(script(tmp_path, "a-1", "0-1"), token="t1")
    rows = [ad(19, 4, tmp_path, HpcpipeDag="batches/a-1", ExitCode=1)]
    ends = ends_of(htcondor(json.dumps(rows))[0], job)
    said = "DAGMan ended before it, with exit code 1: batches/a-1.dag.dagman.out"
    assert ends == {f"19/n0_{n}": JobEnd(said, Reason.START) for n in (0, 1)}


@pytest.mark.parametrize("live", [True, False], ids=["DAGMan runs", "DAGMan has ended"])
def test_what_schedd_refuses_could_not_be_started_in_its_words(tmp_path: Path, live: bool) -> None:
    adapter, _ = htcondor("", SUBMITTED)
    job = adapter.submit(script(tmp_path, "a-1", "0-1"), token="t1")
    for sample, name in (("dagman_refused.out", "dag.dagman.out"), ("dag_refused.jobstate",) * 2):
        name = name.replace("dag_refused.", "")
        (tmp_path / f"batches/a-1.{name}").write_text((OUTPUTS / sample).read_text())
    head = ad(19, 2 if live else 4, tmp_path, HpcpipeDag="batches/a-1", ExitCode=0)
    queue, history = ("", json.dumps([head]))[:: -1 if live else 1]
    later, ran = htcondor(queue, history)
    assert later.poll([job]) == {}
    ends = ends_of(later, job)
    assert ends == {f"19/n0_{n}": JobEnd("at most 8 cpus a job here", Reason.START) for n in (0, 1)}
    assert len(ran) == 2


def away(command: str) -> Done:
    """Give what a command says where its schedd does not answer."""
    return Done((command,), 1, "", (OUTPUTS / f"{command}_away.err").read_text())


SILENT = [away(f"condor_{verb}") for verb in ("q", "history", "release", "rm")]
SILENT.append(Done(("broken off",), 0, "[\n{"))


@pytest.mark.parametrize("done", SILENT, ids=lambda done: done.argv[0])
def test_silence_is_not_an_answer(done: Done) -> None:
    with pytest.raises(SchedulerUnavailable):
        htcondor(done)[0].poll(["19/n0"])


def test_a_submission_that_reaches_nobody_says_so_first(tmp_path: Path) -> None:
    adapter, _ = htcondor("", away("condor_submit_dag"))
    with pytest.raises(SchedulerUnavailable, match=r"^ERROR: Can't find address of local schedd"):
        adapter.submit(script(tmp_path, "a-1"), token="t")
