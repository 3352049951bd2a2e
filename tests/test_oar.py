"""OAR's adapter against what a real OAR 2.5.9 printed (tests/golden/outputs/oar)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
from fakes import ends_of

from hpcpipe.errors import SchedulerError, SchedulerUnavailable, SubmitUnclear
from hpcpipe.jobs import After, JobStatus, Reason, State
from hpcpipe.schedulers.base import Done, launch
from hpcpipe.schedulers.oar import Oar

OUTPUTS = Path(__file__).parent / "golden" / "outputs" / "oar"
RULE = "[ADMISSION RULE] Modify resource description with type constraints\n"
HEAD = (
    "#!/bin/sh\n#OAR -n a.b\n{}#OAR -l nodes=1/core=1,walltime=00:01:00\n# words\nexit 0\n#OAR -q x"
)


def oar(*answers: tuple[int, str, str]) -> Oar:
    """Make an adapter whose commands get these answers, in turn."""
    left = list(answers)

    def run(argv: Sequence[str], cwd: Path | None) -> Done:
        del cwd
        return Done(tuple(argv), *left.pop(0))

    return Oar(run)


def said(name: str) -> tuple[int, str, str]:
    return 0, (OUTPUTS / name).read_text(), ""


def test_each_end_is_told_apart() -> None:
    ends = ends_of(oar(said("ends.json")), "2513-2520")
    assert {job: (end.reason, end.exit_code, end.signal) for job, end in ends.items()} == {
        "2513": (None, 0, None),
        "2514": (Reason.EXIT, 2, None),
        "2515": (Reason.EXIT, 3, None),
        "2516": (Reason.SIGNAL, None, 11),
        "2517": (Reason.TIME, None, None),
        "2518": (Reason.CANCELLED, None, None),
        "2519": (Reason.CANCELLED, None, None),
        "2520": (Reason.NODE, None, None),
    }
    assert ends["2520"].native == "Error: WORKING_DIRECTORY"
    assert (ends["2517"].wall, ends["2517"].host) == (22.0, "localhost")
    assert (ends["2519"].wall, ends["2519"].host) == (0.0, "")


def test_what_oar_began_anew_under_another_id_is_told_of_the_first() -> None:
    waits = "No enough matching resources (no_matching_slot)"
    assert oar(said("anew-waiting.json")).poll(["2521-2522"]) == dict.fromkeys(
        ("2521", "2522"), JobStatus(State.QUEUED, "Waiting", waits)
    )
    assert ends_of(oar(said("anew-waiting.json")), "2521-2522") == {}
    ends = ends_of(oar(said("anew.json")), "2521-2522")
    assert {job: end.reason for job, end in ends.items()} == {"2521": None, "2522": None}


def test_of_what_is_held_it_is_said_how_to_release_it() -> None:
    status, text, _ = said("anew-waiting.json")
    rows = {
        job: {**row, "state": "Hold", "message": "R=2,W=0:2:0,J=B,N=after.uh"}
        for job, row in json.loads(text).items()
    }
    found = oar((status, json.dumps(rows), "")).poll(["2521-2522"])
    why = "held by hand, or by an interrupted submission; to release it: oarresume 2521"
    assert found["2521"] == JobStatus(State.HELD, "Hold", why)


def test_a_job_is_the_ids_of_its_elements_less_those_that_others_got() -> None:
    printed = "".join(f"OAR_JOB_ID={one}\n" for one in (8, 9, 12)) + "OAR_ARRAY_ID=8\n"
    said = Done(
        ("oarsub", "--array", "3"), 0, RULE + printed, "Simple array job submission is used\n"
    )
    job = Oar().read_submit(said)
    assert job == "8-9,12"
    assert [Oar().element(job, index) for index in (1, 2, 3)] == ["8", "9", "12"]
    assert Oar().element("7", None) == "7"
    sql = "job_id BETWEEN 8 AND 9 OR job_id BETWEEN 12 AND 12"
    assert sql in Oar().release_command([job])[-1]


def test_options_are_read_from_the_scripts_head_as_oar_would(tmp_path: Path) -> None:
    script = tmp_path / "it's" / "batches" / "x.sh"
    script.parent.mkdir(parents=True)
    script.write_text(HEAD.format("#OAR -p mem > 4000 AND fsl = 'YES'\n"))
    *words, command = Oar().submit_command(script, (), token="t 1", held=True)
    assert words == [
        *("oarsub", "-d", "/", "-n", "a.b", "-p", "mem > 4000 AND fsl = 'YES'"),
        *("-l", "nodes=1/core=1,walltime=00:01:00", "--hold"),
    ]
    folder = f"'{tmp_path}/it'\"'\"'s'"
    run = shlex.join(("sh", "-c", launch(script, ("sh",)), "hpcpipe:t 1"))
    assert command == f"cd {folder} && exec {run}"


@pytest.mark.parametrize(
    "ids",
    [(8, 9), (8, 9, 10, 77), (8,), ()],  # cut in half, or with a line that somebody else printed
)
def test_an_array_has_as_many_ids_as_elements_or_nothing_is_proven(ids: tuple[int, ...]) -> None:
    printed = "".join(f"OAR_JOB_ID={one}\n" for one in ids)
    with pytest.raises(SubmitUnclear, match="oarsub gave"):
        Oar().read_submit(Done(("oarsub", "--array", "3"), 0, RULE + printed))


def row(job: int, index: int, state: str = "Running", first: int = 0) -> dict[str, object]:
    """An element of the array 8, or what was begun anew for its element ``first``."""
    command = "cd /run && exec sh batches/x.sh hpcpipe:t1"
    facts = {"Job_Id": job, "array_index": index, "state": state, "resubmit_job_id": first}
    return {**facts, "array_id": 8, "command": command, "message": ""}


def rows(*jobs: dict[str, object]) -> tuple[int, str, str]:
    return 0, json.dumps({str(one["Job_Id"]): one for one in jobs}), ""


def test_what_is_cancelled_is_an_elements_own_chain_of_ids() -> None:
    """Elements 2 and 4 were begun anew, 4 twice: none but the latest of 4 is cancelled."""
    calls: list[tuple[str, ...]] = []
    anew = rows(row(20, 2, first=9), row(21, 4, "Error", 11), row(22, 4, first=21), row(8, 1))

    def run(argv: Sequence[str], cwd: Path | None) -> Done:
        del cwd
        calls.append(tuple(argv))
        return Done(tuple(argv), *(anew if argv[0] == "oarstat" else (0, "", "")))

    adapter = Oar(run)
    assert adapter.poll(["11"]).keys() == {"11"}
    adapter.cancel([adapter.element("8-11", 4)])
    assert [argv[-1] for argv in calls if argv[0] == "oardel"] == [
        "NOT state IN ('Terminated', 'Error') AND (job_id BETWEEN 22 AND 22)"
    ]


def test_an_element_that_is_gone_shifts_no_other_where_an_array_is_found() -> None:
    left = (row(8, 1), row(9, 2, "Error"), row(20, 3, first=10), row(12, 5))
    found = oar(rows(*left)).find(["t1"])
    assert found == {"t1": "8-10,0,12"}
    named = [Oar().element(found["t1"], index) for index in (1, 2, 3, 4, 5, 6)]
    assert named == ["8", "9", "10", "0", "12", "0"]


@pytest.mark.parametrize(
    ("after", "array", "ids", "asked"),
    [
        ([After("7")], "", ["7"], 1),
        ([After("7")], "#OAR --array 3\n", ["7"], 2),  # or 2.5.9 forgets the dependency
        ([After("8-9,12", element=3)], "#OAR --array 3\n", ["12"], 2),
        ([After("8-9,12"), After("7")], "#OAR --array 3\n", ["8", "9", "12", "7"], 1),
    ],
)
def test_a_dependency_is_on_every_element(
    after: list[After], array: str, ids: list[str], asked: int, tmp_path: Path
) -> None:
    script = tmp_path / "batches" / "x.sh"
    script.parent.mkdir()
    script.write_text(HEAD.format(array))
    words = Oar().submit_command(script, after, token="t", held=False)
    assert [words[at + 1] for at, word in enumerate(words) if word == "-a"] == ids
    assert words.count("-l") == asked


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((8, f"{RULE}OAR_JOB_ID=-5\n", "There are not enough resources\n"), "There are not enough"),
        ((248, RULE, "ERROR : The queue nix does not exist\n"), "ERROR : The queue nix"),
        ((0, RULE, ""), "gave no job id"),
    ],
)
def test_a_refusal_is_in_oars_words(answer: tuple[int, str, str], words: str) -> None:
    with pytest.raises(SchedulerError, match=words):
        Oar().read_submit(Done(("oarsub",), *answer))


def test_a_job_is_accepted_while_the_server_is_away_but_not_its_database(tmp_path: Path) -> None:
    away = "[ERROR] Cannot connect to executor localhost:6666. Job is killed.\n"
    assert Oar().read_submit(Done(("oarsub",), 9, f"{RULE}OAR_JOB_ID=7\n", away)) == "7"
    adapter = oar((25, "", "DB connection error, exiting.\n"))
    with pytest.raises(SchedulerUnavailable, match="DB connection error"):
        adapter.submit(tmp_path / "batches" / "x.sh", token="t")  # oarsub is not even begun
