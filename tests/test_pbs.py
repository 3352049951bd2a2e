"""PBS: its adapter against what OpenPBS 23.06.06 printed (tests/golden/outputs/pbs)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from json import dumps, loads
from pathlib import Path

import pytest

from hpcpipe.errors import SchedulerError, SchedulerUnavailable
from hpcpipe.model import After, Reason, State
from hpcpipe.schedulers import qstat
from hpcpipe.schedulers.base import Done
from hpcpipe.schedulers.pbs import PBS

OUTPUTS = Path(__file__).parent / "golden" / "outputs" / "pbs"
REFUSALS = [line.split("\t") for line in (OUTPUTS / "refusals.tsv").read_text().splitlines()]


def pbs(name: str, status: int = 0) -> PBS:
    """Make an adapter whose command is answered with a sample."""

    def read(ending: str) -> str:
        file = OUTPUTS / f"{name}.{ending}"
        return file.read_text() if file.exists() else ""

    def run(argv: Sequence[str], cwd: Path | None) -> Done:
        del cwd
        return Done(tuple(argv), status, read("json") or read("txt"), read("err"))

    return PBS(run)


def test_what_is_live_is_told_from_what_waits_and_what_never_can_run() -> None:
    statuses = pbs("qstat_tf").poll(["4[].pbshost"])
    assert {job: (status.state, status.native) for job, status in statuses.items()} == {
        "4[2].pbshost": (State.RUNNING, "R"),
        "4[3].pbshost": (State.QUEUED, "Q"),
        "14.pbshost": (State.HELD, "H"),
        "15.pbshost": (State.QUEUED, "Q"),
        "16.pbshost": (State.BLOCKED, "Q"),
        "17.pbshost": (State.QUEUED, "Q"),
    }
    lacks = "Insufficient amount of resource: ncpus (R: 64 A: 8 T: 8)"
    assert statuses["16.pbshost"].why == f"Can Never Run: {lacks}"
    assert statuses["15.pbshost"].why == "Not Running: Queue not started."


def test_each_end_is_told_apart() -> None:
    ends = pbs("qstat_xf_ends").account(["37.pbshost"], 0)
    assert {job: (end.reason, end.exit_code, end.signal) for job, end in ends.items()} == {
        "7.pbshost": (Reason.UPSTREAM, None, None),  # deleted, its predecessor having failed
        "37.pbshost": (Reason.TIME, None, None),
        "38.pbshost": (Reason.MEMORY, None, None),
        "39.pbshost": (Reason.SIGNAL, None, 11),
        "40.pbshost": (Reason.EXIT, 139, None),
        "41.pbshost": (Reason.EXIT, 255, None),
        "42.pbshost": (Reason.EXIT, 254, None),
        "43.pbshost": (Reason.EXIT, 254, None),
        "46.pbshost": (None, 0, None),
        "47.pbshost": (Reason.CANCELLED, None, 15),
        "48.pbshost": (Reason.CANCELLED, None, 9),
        "49.pbshost": (Reason.SIGNAL, None, 9),
    }
    assert ends["38.pbshost"][4:] == (308, 15.0, "pbshost")
    assert ends["37.pbshost"].native.endswith("exceeded resource walltime")


def test_elements_end_each_in_their_own_way_and_an_array_is_none() -> None:
    ends = pbs("qstat_xtf_array_failed").account(["19[].pbshost"], 0)
    assert {job: end.exit_code for job, end in ends.items()} == {
        "19[1].pbshost": 0,
        "19[2].pbshost": 7,
        "19[3].pbshost": 0,
        "22.pbshost": 0,  # after the success of the array above: this is how `afterok` lies
        "23.pbshost": None,
    }


@pytest.mark.parametrize("sample", ["qstat_tf_array_deleting", "qstat_xtf_array_deleted"])
def test_elements_that_were_deleted_while_they_waited_are_cancelled(sample: str) -> None:
    ends = pbs(sample).account(["65[].pbshost"], 0)
    assert {ends[f"65[{index}].pbshost"].reason for index in (3, 5, 6, 7)} == {Reason.CANCELLED}


def test_elements_of_an_array_that_is_held_are_held() -> None:
    text = (OUTPUTS / "qstat_tf_array_deleting.json").read_text()
    begun = '"job_state":\t"B",'
    assert begun in text
    held = text.replace(begun, '"job_state":\t"H",').replace(
        '"Hold_Types":\t"n"', '"Hold_Types":\t"u"', 1
    )
    statuses = PBS(lambda argv, _: Done(tuple(argv), 0, held)).poll(["65[].pbshost"])
    assert {job: status.state for job, status in statuses.items()} == {
        "65[1].pbshost": State.RUNNING,
        "65[2].pbshost": State.RUNNING,
        "65[4].pbshost": State.HELD,
        "65[8].pbshost": State.HELD,
    }


@pytest.mark.parametrize(
    ("sample", "status"),
    [("qstat_unknown", 153), ("qstat_finished_nox", 35), ("qstat_unknown_nohistory", 0)],
)
def test_what_the_server_does_not_know_is_absent(sample: str, status: int) -> None:
    assert pbs(sample, status).poll(["1.pbshost"]) == {}
    assert pbs(sample, status).account(["1.pbshost"], 0) == {}


def test_one_unknown_job_does_not_hide_the_others() -> None:
    ends = pbs("qstat_two_one_bad", 153).account(["6.pbshost", "99999.pbshost"], 0)
    assert {job: end.reason for job, end in ends.items()} == {"6.pbshost": None}


def test_an_answer_that_is_no_json_is_silence() -> None:
    torn = PBS(lambda argv, _: Done(tuple(argv), 0, '{"Jobs":{"1.pbshost":'))
    with pytest.raises(SchedulerUnavailable, match="no JSON"):
        torn.poll(["1.pbshost"])


JOBS = ["2[].pbshost", "4[].pbshost", "14.pbshost", "15.pbshost", "16.pbshost"]


def both(spoil: Callable[[str], str]) -> tuple[PBS, list[Sequence[str]]]:
    """Make an adapter whose questions are answered as JSON, spoiled, and else as text; and give
    the questions."""
    asked: list[Sequence[str]] = []

    def run(argv: Sequence[str], cwd: Path | None) -> Done:
        del cwd
        asked.append(argv)
        json = spoil((OUTPUTS / "qstat_fF_mixed.json").read_text())
        return Done(
            tuple(argv), 0, json if "json" in argv else (OUTPUTS / "qstat_f_mixed.txt").read_text()
        )

    return PBS(run), asked


def first_only(text: str) -> str:
    """Leave all jobs out but the first, as the version after 23.06.06 does (openpbs issue 2672)."""
    first = dict([next(iter(loads(text, strict=False)["Jobs"].items()))])
    return dumps({"Jobs": first})


def unescaped(text: str) -> str:
    """Print a variable as 19.1 does (openpbs issue 1255)."""
    return text.replace('"SLEEP":\t3', '"SLEEP":\t007', 1)


@pytest.mark.parametrize("spoil", [first_only, unescaped])
def test_where_the_json_is_wrong_the_text_says_the_same(spoil: Callable[[str], str]) -> None:
    right, asked = both(str)
    expected = right.poll(JOBS)
    assert len(asked) == 1
    spoiled, asked = both(spoil)
    told = spoiled.poll(JOBS)
    for job in JOBS[2:]:
        assert told[job] == expected[job]
    assert asked == [
        ("qstat", "-t", "-f", "-F", "json", *JOBS),
        ("qstat", "-t", "-f", *JOBS),
    ]


def test_text_is_read_as_json_is() -> None:
    json, text = (
        qstat.read((OUTPUTS / name).read_text())
        for name in ("qstat_fF_mixed.json", "qstat_f_mixed.txt")
    )
    assert list(text) == [*JOBS, "17.pbshost"]  # which started between the two
    later = ("eligible_time", "array_state_count", "array_indices_remaining", "mtime")
    for job in JOBS:
        for name, value in text[job].items():
            told = json[job][name]
            spelled = {k: str(v) for k, v in told.items()} if isinstance(told, dict) else told
            assert name in later or value in (spelled, str(told)), (job, name)


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
