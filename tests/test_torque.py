"""Torque: its adapter against what one of 2020 printed (tests/golden/outputs/torque)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from fakes import ends_of

from hpcpipe.errors import SchedulerError, SchedulerUnavailable
from hpcpipe.jobs import After, Reason, State
from hpcpipe.schedulers.base import Done
from hpcpipe.schedulers.torque import Torque

OUTPUTS = Path(__file__).parent / "golden" / "outputs" / "torque"
REFUSALS = [line.split("\t") for line in (OUTPUTS / "refusals.tsv").read_text().splitlines()]


def torque(name: str, status: int = 0) -> Torque:
    """Make an adapter whose command is answered with a sample."""

    def read(ending: str) -> str:
        file = OUTPUTS / f"{name}.{ending}"
        return file.read_text() if file.exists() else ""

    def run(argv: Sequence[str], cwd: Path | None) -> Done:
        del cwd
        return Done(tuple(argv), status, read("xml"), read("err"))

    return Torque(run)


def test_what_is_live_is_told_from_what_waits() -> None:
    statuses = torque("qstat_t").poll(["2[].pbshost"])
    assert {job: (status.state, status.native) for job, status in statuses.items()} == {
        "1.pbshost": (State.QUEUED, "Q"),
        "2[3].pbshost": (State.QUEUED, "Q"),
        "2[4].pbshost": (State.QUEUED, "Q"),
        "2[5].pbshost": (State.QUEUED, "H"),  # kept back by %2
        "2[6].pbshost": (State.QUEUED, "H"),
        "9.pbshost": (State.QUEUED, "H"),
        "13.pbshost": (State.QUEUED, "H"),
        "17.pbshost": (State.QUEUED, "H"),
        "18.pbshost": (State.QUEUED, "H"),
        "19[1].pbshost": (State.QUEUED, "H"),
        "19[2].pbshost": (State.QUEUED, "H"),
        "19[3].pbshost": (State.QUEUED, "H"),
        "21.pbshost": (State.HELD, "H"),
        "24.pbshost": (State.RUNNING, "R"),
    }
    assert statuses["13.pbshost"].why == "Dependency"


def test_each_end_is_told_apart() -> None:
    ends = ends_of(torque("qstat_ends"), "2[].pbshost")
    assert {job: (end.reason, end.exit_code, end.signal) for job, end in ends.items()} == {
        **{f"2[{index}].pbshost": (None, 0, None) for index in range(1, 7)},
        "5.pbshost": (Reason.EXIT, 3, None),
        "7[1].pbshost": (Reason.EXIT, 7, None),
        "7[2].pbshost": (None, 0, None),
        "7[3].pbshost": (None, 0, None),
        "9.pbshost": (Reason.UPSTREAM, None, None),
        "21.pbshost": (Reason.CANCELLED, None, None),
        "24.pbshost": (Reason.TIME, None, None),
        "26.pbshost": (Reason.SIGNAL, None, 11),  # `exit 139`, as far as anybody can tell
        "27.pbshost": (Reason.SIGNAL, None, 11),
        "28.pbshost": (Reason.EXIT, 127, None),
        "29.pbshost": (Reason.EXIT, 254, None),
        "31.pbshost": (Reason.CANCELLED, None, 15),
    }
    assert ends["5.pbshost"][4:7] == (8, 5.0, "pbshost")


def test_what_the_server_has_forgotten_is_absent_and_hides_no_others() -> None:
    assert torque("qstat_unknown", 153).poll(["99999.pbshost"]) == {}
    ends = ends_of(torque("qstat_two_one_bad", 153), "5.pbshost", "99999.pbshost")
    assert {job: end.exit_code for job, end in ends.items()} == {"5.pbshost": 3}


def test_a_server_that_is_down_cannot_be_asked() -> None:
    with pytest.raises(SchedulerUnavailable, match="could not connect to trqauthd"):
        torque("qstat_server_down", 33).poll(["1.pbshost"])


def test_arrays_and_elements_are_waited_for_until_they_end_in_words_of_their_own() -> None:
    after = [After("7.srv"), After("8[].srv"), After("8[].srv", element=3), After("9.srv")]
    words = Torque().submit_command(Path("/a/x/y.sh"), after, token="t", held=False)
    assert "depend=afterok:7.srv:9.srv,afteranyarray:8[].srv,afterany:8[3].srv" in words


@pytest.mark.parametrize("name", [name for name, *_ in REFUSALS if name.startswith("qsub")])
def test_a_refusal_has_the_words_of_torque(name: str) -> None:
    with pytest.raises(SchedulerError) as refused:
        torque(name, 2).submit(Path("run/batches/x.sh"), token="t")
    assert type(refused.value) is SchedulerError
    assert str(refused.value) == (OUTPUTS / f"{name}.err").read_text().strip()
