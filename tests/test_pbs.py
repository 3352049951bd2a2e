"""PBS: its adapter against what OpenPBS 23.06.06 printed (tests/golden/outputs/pbs)."""

from __future__ import annotations

from collections.abc import Sequence
from json import loads
from pathlib import Path

import pytest
from fakes import ends_of
from standins.pbs import spelled

from hpcpipe.errors import SchedulerError, SchedulerUnavailable
from hpcpipe.jobs import After, Reason, State
from hpcpipe.schedulers.base import Done
from hpcpipe.schedulers.pbs import PBS, qstat

OUTPUTS = Path(__file__).parent / "golden" / "outputs" / "pbs"
REFUSALS = [line.split("\t") for line in (OUTPUTS / "refusals.tsv").read_text().splitlines()]


def pbs(name: str, status: int = 0) -> PBS:
    """Make an adapter whose command is answered with a sample."""

    def read(ending: str) -> str:
        file = OUTPUTS / f"{name}.{ending}"
        return file.read_text() if file.exists() else ""

    def run(argv: Sequence[str], cwd: Path | None) -> Done:
        del cwd
        rows = loads(read("json") or "{}", strict=False).get("Jobs", {})
        return Done(tuple(argv), status, spelled(rows), read("err"))

    return PBS(run)


def test_what_is_live_is_told_from_what_waits_and_what_never_can_run() -> None:
    statuses = pbs("qstat_tf").poll(["4[].pbshost"])
    assert {job: (status.state, status.native) for job, status in statuses.items()} == {
        "4[2].pbshost": (State.RUNNING, "R"),
        "4[3].pbshost": (State.QUEUED, "Q"),
        "14.pbshost": (State.HELD, "H"),
        "15.pbshost": (State.QUEUED, "Q"),
        "16.pbshost": (State.FAILED, "Q"),
        "17.pbshost": (State.QUEUED, "Q"),
    }
    lacks = "Insufficient amount of resource: ncpus (R: 64 A: 8 T: 8)"
    assert statuses["16.pbshost"].why == f"Can Never Run: {lacks}"
    assert statuses["15.pbshost"].why == "Queue not started."
    assert statuses["14.pbshost"].why == "JobHeldUser"
    assert statuses["17.pbshost"].why.startswith("Insufficient amount of resource: ncpus (R: 4")
    assert statuses["4[3].pbshost"].why == ""  # the array's comment says that it began


def test_what_waits_for_another_job_is_said_in_plain_words() -> None:
    depend = "afterany:7[].pbshost@pbshost,beforeany:9.pbshost@pbshost"
    row = {"job_state": "H", "Hold_Types": "s", "depend": depend}
    assert qstat.status(row) == (State.QUEUED, "H", "Dependency", Reason.START)
    leads = row | {"job_state": "Q", "depend": "beforeany:9.pbshost@pbshost"}
    assert qstat.status(leads) == (State.QUEUED, "Q", "", Reason.START)


def test_each_end_is_told_apart() -> None:
    ends = ends_of(pbs("qstat_xf_ends"), "37.pbshost")
    assert {job: (end.reason, end.exit_code, end.signal) for job, end in ends.items()} == {
        "7.pbshost": (Reason.UPSTREAM, None, None),  # deleted, its predecessor having failed
        "37.pbshost": (Reason.TIME, None, None),
        "38.pbshost": (Reason.MEMORY, None, None),
        "39.pbshost": (Reason.SIGNAL, None, 11),
        "40.pbshost": (Reason.SIGNAL, None, 11),
        "41.pbshost": (Reason.EXIT, 255, None),
        "42.pbshost": (Reason.EXIT, 254, None),
        "43.pbshost": (Reason.EXIT, 254, None),
        "46.pbshost": (None, 0, None),
        "47.pbshost": (Reason.CANCELLED, None, 15),
        "48.pbshost": (Reason.CANCELLED, None, 9),
        "49.pbshost": (Reason.SIGNAL, None, 9),
    }
    assert ends["38.pbshost"][4:7] == (308, 15.0, "pbshost")
    assert ends["37.pbshost"].native.endswith("exceeded resource walltime")


def test_elements_end_each_in_their_own_way_and_an_array_is_none() -> None:
    ends = ends_of(pbs("qstat_xtf_array_failed"), "19[].pbshost")
    assert {job: end.exit_code for job, end in ends.items()} == {
        "19[1].pbshost": 0,
        "19[2].pbshost": 7,
        "19[3].pbshost": 0,
        "22.pbshost": 0,  # after the success of the array above: this is how `afterok` lies
        "23.pbshost": None,
    }


@pytest.mark.parametrize("sample", ["qstat_tf_array_deleting", "qstat_xtf_array_deleted"])
def test_elements_that_were_deleted_while_they_waited_are_cancelled(sample: str) -> None:
    ends = ends_of(pbs(sample), "65[].pbshost")
    assert {ends[f"65[{index}].pbshost"].reason for index in (3, 5, 6, 7)} == {Reason.CANCELLED}


def test_elements_of_an_array_that_is_held_are_held() -> None:
    rows = loads((OUTPUTS / "qstat_tf_array_deleting.json").read_text())["Jobs"]
    array = rows["65[].pbshost"]
    assert array["job_state"] == "B"
    array |= {"job_state": "H", "Hold_Types": "u"}
    held = spelled(rows)
    statuses = PBS(lambda argv, _: Done(tuple(argv), 0, held)).poll(["65[].pbshost"])
    assert {job: status.state for job, status in statuses.items()} == {
        "65[1].pbshost": State.RUNNING,
        "65[2].pbshost": State.RUNNING,
        "65[4].pbshost": State.HELD,
        "65[8].pbshost": State.HELD,
    }


@pytest.mark.parametrize(
    ("sample", "status", "job"),
    [
        ("qstat_unknown", 153, "99999.pbshost"),
        ("qstat_finished_nox", 35, "6.pbshost"),
        ("qstat_unknown_nohistory", 0, "5.pbshost"),
    ],
)
def test_what_the_server_does_not_know_is_absent(sample: str, status: int, job: str) -> None:
    assert pbs(sample, status).poll([job]) == {}
    assert ends_of(pbs(sample, status), job) == {}


def test_one_unknown_job_does_not_hide_the_others() -> None:
    ends = ends_of(pbs("qstat_two_one_bad", 153), "6.pbshost", "99999.pbshost")
    assert {job: end.reason for job, end in ends.items()} == {"6.pbshost": None}


SIGNALS = {  # as the release ends arrays and jobs
    "11020[2].pbshost": (Reason.SIGNAL, None, 11),
    "11020[3].pbshost": (Reason.CANCELLED, None, 15),  # its shell ended by itself, at a TERM
    "11022.pbshost": (Reason.SIGNAL, None, 11),
    "11023.pbshost": (Reason.SIGNAL, None, 11),
    "11024.pbshost": (Reason.TIME, None, None),
    "11025.pbshost": (Reason.MEMORY, None, None),
}
ELEMENTS = {
    "8016[0].pbshost": (None, 0, None),
    "8016[3].pbshost": (Reason.EXIT, 1, None),
    "8016[15].pbshost": (Reason.CANCELLED, None, None),  # it has the array's Exit_status: 0
}


@pytest.mark.parametrize(
    ("sample", "ended"),
    [("qstat_xtf_ends", SIGNALS), ("qstat_xtf_pending_element_deleted", ELEMENTS)],
)
def test_a_signal_and_an_element_that_never_ran_are_told(
    sample: str, ended: dict[str, tuple[Reason | None, int | None, int | None]]
) -> None:
    ends = ends_of(pbs(sample), *ended)
    assert {job: (end.reason, end.exit_code, end.signal) for job, end in ends.items()} == ended


def test_without_history_nothing_is_concluded_from_the_row_of_an_ended_element() -> None:
    """It is a copy of the array's."""
    assert pbs("qstat_tf_nohistory").poll(["2000[].pbshost"]).keys() == {
        "2000[2].pbshost", "2000[3].pbshost",
    }  # fmt: skip


JOBS = ["11020[].pbshost", "11028.pbshost", "11029.pbshost"]
MIXED = (OUTPUTS / "qstat_tf_mixed.txt").read_text()


@pytest.mark.parametrize(
    "answer",
    [MIXED[:-2], MIXED[: MIXED.index("Job Id: 11028")], f"Welcome\n{MIXED}", '{"Jobs":{'],
    ids=["cut within a job", "cut between jobs", "a banner", "JSON"],
)
def test_an_answer_that_is_not_whole_is_silence(answer: str) -> None:
    torn = PBS(lambda argv, _: Done(tuple(argv), 0, answer))
    with pytest.raises(SchedulerUnavailable, match="could not read"):
        torn.poll(JOBS)


def test_the_stand_in_spells_text_as_the_real_one_does() -> None:
    rows = loads((OUTPUTS / "qstat_tf_mixed.json").read_text())["Jobs"]
    read, real = qstat.read(spelled(rows)), qstat.read(MIXED)
    later = ("eligible_time", "mtime", "resources_used")
    assert read.keys() == real.keys()
    for job, row in real.items():
        assert {k: v for k, v in row.items() if k not in later} == {
            k: read[job][k] for k in row if k not in later
        }


class Server:
    """A PBS with jobs; of a crash or a refusal qdel says nothing, or these words."""

    def __init__(self, deaf: int = 0, words: str = "") -> None:
        self.jobs = {job: {"job_state": state} for job, state in (("1.s", "H"), ("2.s", "R"))}
        self.deaf, self.words = deaf, words
        self.deleted: list[Sequence[str]] = []

    def run(self, argv: Sequence[str], cwd: Path | None) -> Done:
        """Answer a command."""
        del cwd
        if argv[0] == "qstat":
            gone = "".join(f"qstat: Unknown Job Id {job}\n" for job in argv if job[0].isdigit()
                           and job not in self.jobs)  # fmt: skip
            return Done(tuple(argv), 153 if gone else 0, spelled(self.jobs), gone)
        self.deleted.append(argv[1:])
        if len(self.deleted) > self.deaf:
            self.jobs.pop(argv[1], None)
        return Done(tuple(argv), 159 if self.words else 0, "", self.words)


def test_jobs_are_deleted_one_by_one_until_they_are_gone() -> None:
    server = Server(deaf=3)
    PBS(server.run).cancel(["1.s", "2.s", "99.s"])
    assert server.deleted == [("99.s",), ("2.s",), ("1.s",), ("1.s",)]


def test_what_cannot_be_deleted_is_named_in_the_servers_words() -> None:
    server = Server(deaf=9, words="qdel: Unauthorized Request  2.s")
    with pytest.raises(SchedulerError, match=r"Unauthorized Request  2.s\n.* 1.s 2.s") as refused:
        PBS(server.run).cancel(["1.s", "2.s"])
    assert not isinstance(refused.value, SchedulerUnavailable)


@pytest.mark.parametrize("name", ["qdel_server_down", "qdel_unknown_host"])
def test_a_server_that_qdel_cannot_reach_has_cancelled_nothing(name: str) -> None:
    with pytest.raises(SchedulerUnavailable, match="Couldn't connect to cluster"):
        pbs(name, 162).cancel(["1.pbshost"])


def test_arrays_are_waited_for_until_they_end_and_jobs_until_they_end_well() -> None:
    after = [After("7.srv"), After("8[].srv"), After("9.srv"), After("6.srv", well=False)]
    words = PBS().submit_command(Path("/a/run/batches/x.sh"), after, token="t", held=True)
    assert "depend=afterok:7.srv:9.srv,afterany:8[].srv:6.srv" in words
    assert {"-h", "/a/run/batches/x.sh"} <= set(words)


@pytest.mark.parametrize("name", [name for name, *_ in REFUSALS if name.startswith("qsub")])
def test_a_refusal_begins_with_the_words_of_pbs(name: str) -> None:
    with pytest.raises(SchedulerError) as refused:
        pbs(name, 2).submit(Path("run/batches/x.sh"), token="t")
    assert type(refused.value) is SchedulerError
    assert str(refused.value).startswith("qsub: ")
