"""The rules of the simulator, each by an example, and what holds whatever the jobs are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcpipe.errors import UsageError
from hpcpipe.planner.batch import Wait
from hpcpipe.planner.simulate import Job, Simulated, simulate

EACH = Wait(0, "each")


def array(*seconds: float, waits: Sequence[Wait] = (), cpus: int = 1) -> Job:
    return Job(seconds, range(len(seconds)), waits, cpus)


def starts(jobs: Sequence[Job], cores: int, window: int | None = None) -> list[float]:
    return list(simulate(jobs, cores, window=window).starts)


def test_jobs_come_in_the_order_of_submission_and_elements_in_that_of_their_indices() -> None:
    assert starts([array(3, 1), array(2)], 1) == [0, 3, 4]
    assert starts([array(3, 1), array(2)], 2) == [0, 0, 1]


def test_what_waits_for_the_whole_starts_after_its_last_element() -> None:
    assert starts([array(3, 1), array(2, waits=[Wait(0)])], 2) == [0, 0, 3]


def test_what_waits_for_each_starts_after_its_namesake() -> None:
    assert starts([array(3, 1), array(2, 2, waits=[EACH])], 4) == [0, 0, 3, 1]


def test_an_element_without_a_namesake_waits_for_the_whole() -> None:
    # As a real Slurm 22.05.8 and a Grid Engine 8.1.9 were seen to do.
    assert starts([array(3, 1), Job([2, 2], [1, 5], [EACH])], 4) == [0, 0, 1, 3]


def test_what_waits_for_one_element_starts_after_it() -> None:
    assert starts([array(3, 1), array(2, waits=[Wait(0, element=1)])], 2) == [0, 0, 1]


def test_only_the_lowest_elements_are_looked_at_where_there_is_a_window() -> None:
    jobs = [array(9, 9, 1, 1), array(1, 1, 1, 1, waits=[EACH])]
    assert starts(jobs, 8)[4:] == [9, 9, 1, 1]
    assert starts(jobs, 8, window=2)[4:] == [9, 9, 9, 9]


def test_what_fits_goes_before_what_does_not() -> None:
    assert starts([array(4), array(1, cpus=2), array(2)], 2) == [0, 4, 0]


def test_an_element_that_never_fits_is_told() -> None:
    with pytest.raises(UsageError, match="asks for 3 cores, and there are 2"):
        simulate([array(1, cpus=3)], 2)


@st.composite
def many(draw: st.DrawFn) -> list[Job]:
    jobs: list[Job] = []
    for number in range(draw(st.integers(1, 6))):
        size = draw(st.integers(1, 6))
        above = st.integers(0, max(0, number - 1))
        waits = st.lists(above, max_size=2 if number else 0, unique=True)
        ones = [(job, draw(st.sampled_from(jobs[job].indices))) for job in draw(waits)]
        each = draw(waits) if size > 1 else ()
        jobs.append(
            Job(
                draw(st.lists(st.integers(1, 9), min_size=size, max_size=size)),
                sorted(draw(st.sets(st.integers(0, 9), min_size=size, max_size=size))),
                [Wait(job) for job in draw(waits)]
                + [Wait(job, "each") for job in each]
                + [Wait(job, element=index) for job, index in ones],
                draw(st.integers(1, 3)),
            )
        )
    return jobs


@given(many(), st.integers(3, 12), st.sampled_from([None, 1, 3]))
def test_everything_runs_after_what_it_waits_for_and_within_the_cores(
    jobs: list[Job], cores: int, window: int | None
) -> None:
    told: Simulated = simulate(jobs, cores, window=window)
    spans: list[list[tuple[float, float]]] = []
    at = iter(told.starts)
    for job in jobs:
        spans.append([(start, start + s) for s, start in zip(job.seconds, at, strict=False)])
        for start, index in zip((span[0] for span in spans[-1]), job.indices, strict=True):
            for wait in job.waits:
                assert isinstance(wait.on, int)
                above = dict(zip(jobs[wait.on].indices, spans[wait.on], strict=True))
                one = index if wait.kind == "each" else wait.element
                wanted = [above[one]] if one in above else spans[wait.on]
                assert start >= max(end for _, end in wanted)
    every = [(s, e, job.cpus) for job, of in zip(jobs, spans, strict=True) for s, e in of]
    for moment in {start for start, _, _ in every}:
        assert sum(cpus for s, e, cpus in every if s <= moment < e) <= cores
    assert told.makespan == max(end for _, end, _ in every)
    assert told.core_seconds == sum((end - start) * cpus for start, end, cpus in every)
