"""What a submission may take: core-hours, places in the queue; and where its nodes can write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fakes import Lab

from hpcpipe import each
from hpcpipe.errors import ConfigError, OverBudget, UsageError
from hpcpipe.resources import Resources
from hpcpipe.run import submit
from hpcpipe.site import Account, Cost, Limits, Nodes, Queue, Site, Software
from hpcpipe.submit.options import Options
from hpcpipe.submit.prepare import draft
from hpcpipe.views.explain import explain
from hpcpipe.views.plan import plan_json, plan_lines

HOUR = 3600


@pytest.fixture
def lab(lab: Lab) -> Lab:
    """Ten tasks of two cpus and half an hour, and one after them that asks for no time."""
    asked = {"cpus": 2, "time": "30m", "account": "ada"}
    first = lab.workflow.command("echo {n}", n=each(range(10)), name="many", resources=asked)
    lab.workflow.command("echo", name="one", after=[first.gather()], resources={"account": "ada"})
    queues = (Queue(name="q", max_time=4 * HOUR), Queue(name="other", max_time=60))
    lab.site = Site(queues=queues, accounts={"ada": Account(budget=20)})
    return lab


def costs(lab: Lab) -> list[str]:
    lines = plan_lines(draft(lab.workflow, lab.site), "why")
    return [line for line in lines if "core-hours" in line or "budget" in line]


def test_a_plan_says_what_it_costs_at_worst_and_of_whom(lab: Lab) -> None:
    # 10 tasks x 2 cpus x 0.5 h, and 1 cpu for the queue's 4 h
    assert costs(lab) == ["Costs at worst 14 core-hours of ada."]
    bill = plan_json(draft(lab.workflow, lab.site))["cost"]
    assert bill == {
        "charged_in": "core-hours", "accounts": {"ada": 14.0}, "without_time_limit": ()
    }  # fmt: skip
    queue = Queue(name="q", cost=Cost(rate=0.5), exclusive=True, max_cpus=16)
    lab.site = replace(lab.site, queues=(queue,), accounts={"ada": Account()})
    # Eight tasks go side by side, so that all are in two elements of 16 cpus.
    assert costs(lab) == ["Costs at worst 8.00 core-hours of ada and what one takes, "
                          "without a time limit."]  # fmt: skip


def test_more_than_the_budget_is_refused_unless_it_is_said(lab: Lab) -> None:
    lab.site = replace(lab.site, accounts={"ada": Account(budget=12.5)})
    said = "ada: 14 core-hours at worst, and its budget is 12 a submission"
    assert costs(lab)[1:] == [f"Over budget: {said}. Submitting needs --over-budget."]
    with pytest.raises(OverBudget, match=f"^{said}\nNothing was submitted. .* --over-budget$"):
        lab.submit()
    assert not lab.rundir.exists
    assert not lab.scheduler.jobs
    submit(lab.workflow, site=lab.site, over_budget=True)
    assert len(lab.scheduler.jobs) == 2


def test_what_nobody_can_tell_the_cost_of_is_not_within_a_budget(lab: Lab) -> None:
    lab.site = replace(lab.site, queues=())
    with pytest.raises(OverBudget, match="nobody can tell the cost of one, which ask for no time"):
        lab.submit()


FEW = Limits(elements_count=False, max_jobs=1)


@pytest.mark.parametrize(
    ("site", "told"),
    [
        (Site(limits=Limits(max_jobs=2)), None),
        (
            Site(limits=Limits(max_jobs=1)),
            "'local' takes 1 job at a time, and this makes 2, however many tasks share one; submit",
        ),
        (Site(limits=Limits(max_jobs=4, overflow="held")), None),
        (Site(limits=replace(FEW, max_jobs=2)), None),
        (Site(limits=FEW), "site 'local' takes 1 job at a time, and this makes 2, however"),
        (
            Site(queues=(Queue(name="q", max_jobs=1),)),
            "queue 'q' of site 'local' takes 1 job at a time, and this makes 2, however many",
        ),
    ],
)
def test_more_jobs_than_the_site_takes_are_refused_before_any_is_submitted(
    lab: Lab, site: Site, told: str | None
) -> None:
    if told is None:
        assert draft(lab.workflow, site).calls == 2
        return
    with pytest.raises(ConfigError, match=told):
        submit(lab.workflow, site=site)
    assert not lab.rundir.exists


def test_tasks_are_packed_for_a_site_that_takes_few_jobs(lab: Lab) -> None:
    site = Site(limits=Limits(max_jobs=4, array_size=0))
    packed = draft(lab.workflow, site)
    assert [one.batch.elements for one in packed.prepared] == [1, 1, 1, 1]
    assert sum(len(one.batch.tasks) for one in packed.prepared) == 11


@pytest.mark.parametrize("array_size", [0, 1000])
@pytest.mark.parametrize("pack", [None, 2])
def test_tasks_are_packed_for_a_queue_that_takes_few_jobs(
    lab: Lab, array_size: int, pack: int | None
) -> None:
    site = Site(limits=Limits(array_size=array_size), queues=(Queue(name="q", max_jobs=4),))
    packed = draft(lab.workflow, site, Options(Resources(pack=pack)))
    assert 3 <= sum(one.batch.elements for one in packed.prepared) <= 4
    assert sum(len(one.batch.tasks) for one in packed.prepared) == 11


def test_packed_for_a_queue_they_may_be_too_long_for_it_and_that_is_said(lab: Lab) -> None:
    site = Site(queues=(Queue(name="q", max_jobs=4, max_time=HOUR),))
    with pytest.raises(ConfigError, match=r"many \(\d of its tasks share a job\): .*time"):
        draft(lab.workflow, site)


def test_a_plan_says_how_long_submitting_takes_where_that_is_slow(lab: Lab) -> None:
    lab.site = replace(lab.site, limits=Limits(submits_per_minute=6))
    lines = [*plan_lines(draft(lab.workflow, lab.site), "why")]
    assert "local takes 6 submit commands a minute: this takes 10 s." in lines


@pytest.mark.parametrize(
    ("pack", "most", "seconds", "told"),
    [
        (None, None, 4, "array of 3, 10 tasks, up to 4 side by side, each 8 cpus, 30 min"),
        (
            5,
            None,
            5,
            "array of 2, 10 tasks, up to 4 side by side, up to 2 in sequence, each 8 cpus, 1 h",
        ),
        (1, None, 4, "array of 10, each 2 cpus, 30 min"),
        (
            None,
            3,
            4,
            "array of 2, 10 tasks, up to 4 side by side, up to 2 in sequence, each 8 cpus, 1 h",
        ),
    ],
)
def test_tasks_share_a_machine_that_a_job_gets_whole(
    lab: Lab, pack: int | None, most: int | None, seconds: int, told: str
) -> None:
    queue = Queue(name="q", exclusive=True, max_cpus=9, max_time=4 * HOUR, max_jobs=most)
    site = Site(queues=(queue,))
    drafted = draft(lab.workflow, site, Options(Resources(pack=pack)))
    assert plan_json(drafted, cores=8)["expected"]["makespan"] == seconds  # one a task
    said = [line.partition(": ")[2] for line in plan_lines(drafted, "why") if "[0]" in line]
    assert said[0] == told
    record = submit(lab.workflow, site=site, resources=Resources(pack=pack)).record
    [many] = [one for one in record.batches.values() if one.nodes == ("many",)]
    assert (many.per_task.cpus, many.per_task.time) == (2, HOUR // 2)


def test_tasks_that_are_shorter_than_the_site_likes_are_packed(lab: Lab) -> None:
    site = replace(lab.site, limits=Limits(shortest_job=HOUR))
    many = draft(lab.workflow, site).prepared[0]
    assert many.batch.name == "many"
    assert (many.batch.elements, many.batch.longest) == (5, 2)
    assert many.route.resources.time == HOUR


def test_a_plan_says_why_not_each_other_queue_when_it_is_asked(lab: Lab) -> None:
    lines = [*plan_lines(draft(lab.workflow, lab.site), "why", others=True)]
    assert "        not other: time 30 min > 1 min" in lines


def test_a_run_folder_that_no_node_can_write_to_is_refused(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: lab.rundir.folder.parents[1])
    with pytest.raises(UsageError, match="the nodes of site 'local' cannot write to the home"):
        draft(lab.workflow, Site(nodes=Nodes(home=False)))
    with pytest.raises(ConfigError, match="its nodes share no filesystem with this machine"):
        draft(lab.workflow, Site(nodes=Nodes(common=False)))


def test_of_a_node_it_is_told_why_its_queue_and_why_not_each_other(lab: Lab) -> None:
    fsl = Software(version="6.0.7", queues=("q",))
    lab.site = replace(lab.site, software={"fsl": fsl})
    run = submit(lab.workflow, site=lab.site, resources=Resources(software=("fsl",)))
    assert [*explain(run.rundir, "many")] == [
        "many  10 tasks: 10 queued",
        "  requested  2 cpus, 30 min, fsl",
        "  queue      q: 30 min fits its 4 h limit, has fsl",
        "  not        other: time 30 min > 1 min, no fsl 6.0.7",
        "  software   fsl 6.0.7",
    ]
    assert "  not        other: no fsl 6.0.7" in [*explain(run.rundir, "one")]
