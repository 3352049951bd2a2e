from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcpipe.errors import ConfigError
from hpcpipe.indices import ranges
from hpcpipe.jobs import State
from hpcpipe.quantities import format_memory, format_time, parse_memory, parse_time
from hpcpipe.resources import Resources

HOUR, DAY = 3600, 86400


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("2G", 2048),
        ("1.5G", 1536),
        ("2 GiB", 2048),
        ("2gb", 2048),
        ("500M", 500),
        ("1T", 1024 * 1024),
        ("2048K", 2),
        (300, 300),
    ],
)
def test_memory_is_read_as_mib(text: str | int, mib: int) -> None:
    assert parse_memory(text) == mib


@pytest.mark.parametrize("text", ["", "lots", "2X", "-2G", "0", "0G", 0, "1K", "1e3", "2 G x"])
def test_what_is_no_memory_is_refused_with_an_example(text: str | int) -> None:
    with pytest.raises(ConfigError, match="is not an amount; write for example 500M"):
        parse_memory(text)


@pytest.mark.parametrize("text", ["4", " 4096 "])
def test_memory_without_a_unit_is_refused_with_the_units(text: str) -> None:
    with pytest.raises(ConfigError, match=f"has no unit; write {text.strip()}G or {text.strip()}M"):
        parse_memory(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("30min", 1800),
        ("2h30m", 9000),
        ("2h 30m", 9000),
        ("1d", DAY),
        ("10:00", 600),  # minutes and seconds, as Slurm has it
        ("2:30:00", 9000),
        ("2-00:00:00", 2 * DAY),
        ("1-12:30", DAY + 12 * HOUR + 1800),  # with days: hours and minutes
        (90, 90),
    ],
)
def test_time_is_read_as_seconds(text: str | int, seconds: int) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["30", "", "0m", 0, -5, "soon", "5x", "1:2", "-1h", "1m 2h"])
def test_what_is_no_time_is_refused_with_an_example(text: str | int) -> None:
    with pytest.raises(ConfigError, match="is not a duration; write for example 30m"):
        parse_time(text)


@pytest.mark.parametrize(
    ("mib", "text"),
    [(1, "1 MB"), (1023, "1023 MB"), (1024, "1 GB"), (1536, "1.5 GB"), (131072, "128 GB")],
)
def test_memory_is_written_as_a_person_would(mib: int, text: str) -> None:
    assert format_memory(mib) == text
    assert parse_memory(text) == mib


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.54, "0.5 s"),
        (4, "4 s"),
        (12.7, "13 s"),
        (59.7, "1 min"),
        (90, "1 min 30 s"),
        (725, "12 min"),
        (4800, "1 h 20 min"),
        (DAY, "1 d"),
        (2 * DAY + 3 * HOUR + 59, "2 d 3 h"),
    ],
)
def test_time_is_written_as_a_person_would(seconds: float, text: str) -> None:
    assert format_time(seconds) == text


@given(st.integers(1, 400 * DAY))
def test_a_time_that_was_printed_can_be_pasted(seconds: int) -> None:
    assert 0 <= seconds - parse_time(format_time(seconds)) < 60


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"cpus": 0}, "cpus=0: must be a whole number, at least 1"),
        ({"cpus": "4"}, "cpus='4': must be a whole number"),
        ({"cpus": 1.5}, r"cpus=1\.5: must be a whole number"),
        ({"gpus": -1}, "gpus=-1: must be a whole number, at least 0"),
        ({"queue": "a b"}, "queue='a b': not a name; use letters"),
        ({"account": "$(id)"}, r"account='\$\(id\)': not a name"),
        ({"memory": "much"}, "memory 'much'"),
        ({"time": "long"}, "time 'long'"),
    ],
)
def test_a_bad_resource_is_refused_by_name(said: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Resources.parse(**said)


def test_resources_lie_over_each_other_and_are_raised_but_never_lowered() -> None:
    node = Resources.parse(cpus=2, memory="2G", time="1h", gpus=0)
    asked = Resources.parse(memory="4G", queue="long").over(node)
    assert asked == Resources(cpus=2, memory=4096, time=HOUR, gpus=0, queue="long")
    assert asked.at_least(Resources(memory=1024, time=2 * HOUR)) == Resources(
        cpus=2, memory=4096, time=2 * HOUR, gpus=0, queue="long"
    )
    assert Resources().at_least(Resources()) == Resources()
    assert str(asked) == "2 cpus, 4 GB, 1 h"
    assert str(Resources(gpus=2)) == "1 cpu, 2 gpus"


def test_a_state_is_live_or_bad_or_done() -> None:
    for state in State:
        assert [state.live, state.bad, state is State.DONE].count(True) == 1, state


@given(st.sets(st.integers(-5, 60)))
def test_ranges_say_the_same_numbers_in_as_few_runs_as_can_be(numbers: set[int]) -> None:
    runs = list(ranges(sorted(numbers)))
    assert {at for first, last in runs for at in range(first, last + 1)} == numbers
    starts = [at for at in numbers if at - 1 not in numbers]
    assert [first for first, _ in runs] == sorted(starts)
