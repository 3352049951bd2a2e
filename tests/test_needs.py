"""What tasks request after they ran out of it: measured, remembered, within what queues give."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from fakes import CANCELLED, Lab

from hpcpipe import each
from hpcpipe.errors import ConfigError
from hpcpipe.jobs import JobEnd, Reason
from hpcpipe.resources import Resources
from hpcpipe.run import Run, retry, submit
from hpcpipe.site import Defaults, Queue, Step
from hpcpipe.submit.options import Options

HOUR = 3600
KILLED = JobEnd("OUT_OF_MEMORY", Reason.MEMORY)
LATE = JobEnd("TIMEOUT", Reason.TIME)
KINDS = ["a", "b", "c"]


def add(lab: Lab, words: str = "echo {kind}", **asked: Any) -> None:
    resources = {name: amount for name, amount in asked.items() if amount}
    lab.workflow.command(words, kind=each(KINDS), name="work", resources=resources)


def begin(lab: Lab, queues: tuple[Queue, ...] = (), **asked: Any) -> None:
    lab.site = replace(lab.site, queues=queues)
    add(lab, **asked)
    lab.submit()


def end(lab: Lab, task: str, word: JobEnd, **measured: Any) -> None:
    """End a task's latest element; ``measured`` is what the accounting knows besides."""
    element = lab.find(task)
    name = element.job if element.index is None else f"{element.job}_{element.index}"
    lab.scheduler.says[name] = word._replace(**measured)


def end_all(lab: Lab, word: JobEnd = CANCELLED) -> None:
    """End every element that is still in the queue."""
    ended = {one: word for one, said in lab.scheduler.says.items() if not isinstance(said, JobEnd)}
    lab.scheduler.says |= ended


def asked(lab: Lab) -> list[Resources]:
    return [one.resources for one in Run(lab.rundir.folder).record.batches.values()]


def again(lab: Lab, **options: str) -> Resources:
    """Retry, and return what the only batch requests."""
    retry(lab.rundir.folder, Options(Resources.parse(**options)), site=lab.site)  # type: ignore[arg-type]
    [one] = asked(lab)
    return one


@pytest.mark.parametrize(
    ("memory", "measured", "then"),
    [
        ("60M", {"max_memory": 277}, 347),  # 1.25 times what it used, rounded up
        ("60M", {"max_memory": 61}, 120),
        ("60M", {}, 120),
        (None, {"max_memory": 300}, 600),
        (None, {"max_memory": 80, "memory_limit": 400}, 800),  # the limit that the site gave it
        (None, {}, 2048),
    ],
)
def test_one_that_ran_out_of_memory_requests_by_what_it_had_and_used(
    lab: Lab, memory: str | None, measured: dict[str, int], then: int
) -> None:
    begin(lab, memory=memory)
    end(lab, "work/b", KILLED, **measured)
    assert again(lab).memory == then
    end(lab, "work/b", KILLED)
    assert again(lab).memory == 2 * then


def test_tasks_that_run_in_turn_request_by_what_their_element_used(lab: Lab) -> None:
    begin(lab, memory="60M", pack=3)
    end(lab, "work/b", KILLED, max_memory=277)
    assert again(lab).memory == 347


@pytest.mark.parametrize(
    ("time", "default", "then"), [("1h", None, 2 * HOUR), (None, 600, 1200), (None, None, 4000)]
)
def test_one_that_ran_out_of_time_requests_by_what_it_had(
    lab: Lab, time: str | None, default: int | None, then: int
) -> None:
    begin(lab, (Queue(name="q", default_time=default),), time=time)
    end(lab, "work/b", LATE, wall=0 if default else 2000)
    assert again(lab).time == then


def test_the_default_of_the_site_counts_as_requested(lab: Lab) -> None:
    lab.site = replace(lab.site, defaults=Defaults(memory=500))
    add(lab)
    lab.submit()
    end(lab, "work/b", KILLED)
    assert again(lab).memory == 1000


def test_tasks_that_had_the_same_stay_one_array(lab: Lab) -> None:
    begin(lab, memory="60M")
    for kind, used in zip(KINDS, (100, 200, 300), strict=True):
        end(lab, f"work/{kind}", KILLED, max_memory=used)
    assert again(lab).memory == 375


def test_a_need_is_kept_across_edits_until_the_workflow_requests_something_else(lab: Lab) -> None:
    begin(lab, memory="100M")
    end(lab, "work/b", KILLED)

    def edit(words: str, memory: str) -> list[int]:
        end_all(lab)
        lab.workflow.nodes.clear()
        add(lab, words, memory=memory)
        lab.submit()
        return sorted(one.memory or 0 for one in asked(lab))

    assert edit("printf {kind}", "100M") == [100, 200]  # b alone ran out
    assert edit("cat {kind}", "100M") == [100, 200]
    assert edit("echo {kind}", "90M") == [90]


@pytest.mark.parametrize(
    ("queues", "then"),
    [
        ((Queue(name="q", max_memory=150),), 150),
        ((Queue(name="q", max_memory=100), Queue(name="big", max_memory=170)), 170),
        ((Queue(name="q", max_memory=100), Queue(name="big")), 200),
    ],
)
def test_the_most_of_any_queue_is_requested(lab: Lab, queues: tuple[Queue, ...], then: int) -> None:
    begin(lab, queues, memory="100M")
    end(lab, "work/b", KILLED)
    assert again(lab).memory == then


@pytest.mark.parametrize(("longest", "then"), [(3 * HOUR, 2 * HOUR), (5400, 5400)])
def test_time_is_raised_within_the_steps_of_a_queue(lab: Lab, longest: int, then: int) -> None:
    begin(lab, (Queue(name="q", steps=(Step(longest, cpus=8),)),), time="1h")
    end(lab, "work/b", LATE)
    assert again(lab).time == then


def test_what_ran_out_of_the_most_there_is_is_refused_with_the_nearest_queue(lab: Lab) -> None:
    begin(lab, (Queue(name="q", max_memory=100), Queue(name="r", max_memory=50)), memory="100M")
    end(lab, "work/b", KILLED)
    with pytest.raises(ConfigError) as refused:
        again(lab)
    said = str(refused.value)
    assert said.startswith("work/b: ran out of memory with 100 MB, and no queue gives it more: ")
    assert "nearest is 'q': memory 200 MB > 100 MB" in said
    [words] = re.findall(r"hpcpipe retry (--memory \S+)", said)
    assert again(lab, memory=words.split()[1]).memory == 100


def test_options_of_a_retry_are_laid_over_those_of_the_submission(lab: Lab) -> None:
    add(lab, memory="1G")
    given = Resources.parse(
        memory="60M", time="1h", throttle=2, queue="q", software="fsl", account="lab", gpus=1
    )
    submit(lab.workflow, site=lab.site, resources=given)
    end_all(lab, KILLED)
    assert again(lab) == given._replace(memory=120)
    end_all(lab, KILLED)
    assert again(lab, memory="80M", time="2h") == given._replace(memory=80, time=2 * HOUR)
    end_all(lab, LATE)
    assert again(lab) == given._replace(memory=80, time=4 * HOUR)
