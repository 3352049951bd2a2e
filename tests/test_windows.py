"""More tasks than a site takes at a time: what goes in a window, and what is left for the next."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import Element, Lab
from hypothesis import given
from hypothesis import strategies as st

from hpcpipe import Workflow, each
from hpcpipe.jobs import State
from hpcpipe.keys.fates import LATER, RUN
from hpcpipe.keys.plan import Plan, make_plan
from hpcpipe.planner.batch import Limits as PlannerLimits
from hpcpipe.resources import Resources
from hpcpipe.run import Run, submit, submit_due
from hpcpipe.site import Limits, Nodes, Queue, Site
from hpcpipe.submit.job_limits import route_classes
from hpcpipe.submit.prepare import draft
from hpcpipe.submit.windows import cut
from hpcpipe.views.plan import plan_lines

MOST = 20


def study(workflow: Workflow, subjects: int) -> None:
    """Two steps for each subject, and one over all."""
    first = workflow.command("a {n}", n=each(range(subjects), axis="n"), name="first")
    second = workflow.command(
        "b {n}", n=each(range(subjects), axis="n"), after=[first], name="next"
    )
    workflow.command("c", name="all", after=[second.gather()])


def to_run(plan: Plan) -> dict[str, list[int]]:
    return {name: [*node.to_run] for name, node in plan.nodes.items()}


@given(subjects=st.integers(1, 30), room=st.integers(0, 80), pack=st.integers(1, 5))
def test_a_window_has_whole_chains_and_no_more_elements_than_there_is_room_for(
    subjects: int, room: int, pack: int
) -> None:
    workflow = Workflow("w")
    study(workflow, subjects)
    plan = make_plan(workflow)
    limits = PlannerLimits(packs={Resources(): pack})
    window = cut(plan, limits, route_classes(plan, Site()), {None: room})
    tasks = to_run(window)
    count = sum(map(len, tasks.values()))
    assert count == min(2 * subjects + 1, room * pack)
    assert {*tasks["next"]} <= {*tasks["first"]}
    assert len(tasks["first"]) - len(tasks["next"]) <= 1
    assert all({*node.fates} <= {RUN, LATER} for node in window.nodes.values())


@pytest.fixture
def site() -> Site:
    return Site(limits=Limits(max_jobs=MOST, array_size=11, poll_seconds=0, settle_seconds=0))


def test_some_more_tasks_than_jobs_are_packed_and_submitted_at_once(lab: Lab, site: Site) -> None:
    study(lab.workflow, 20)
    made = draft(lab.workflow, site)
    assert (made.windows, made.plan.count(LATER)) == (1, 0)


@pytest.mark.parametrize("queue", [False, True])
def test_many_more_go_in_windows_and_the_plan_says_so(lab: Lab, site: Site, queue: bool) -> None:
    if queue:
        site = Site(queues=(Queue(name="q", max_jobs=MOST),))
    study(lab.workflow, 500)
    made = draft(lab.workflow, site)
    assert made.windows > 5
    assert 0 < sum(one.batch.elements for one in made.prepared) <= MOST - 4
    assert any(f"some {made.windows - 1} windows" in line for line in plan_lines(made, "why"))


def test_where_nodes_may_not_submit_all_is_packed(lab: Lab, site: Site) -> None:
    study(lab.workflow, 500)
    made = draft(lab.workflow, replace(site, nodes=Nodes(may_submit=False)))
    assert (made.windows, made.plan.count(LATER)) == (1, 0)
    assert sum(one.batch.elements for one in made.prepared) <= MOST


def test_no_pack_takes_longer_than_a_queue_allows(lab: Lab) -> None:
    asked = {"time": "1h"}
    lab.workflow.command("a {n}", n=each(range(1000)), name="first", resources=asked)
    limits = Limits(max_jobs=MOST)
    made = draft(lab.workflow, Site(limits=limits, queues=(Queue(name="q", max_time=3 * 3600),)))
    assert made.windows > 5
    assert {one.batch.longest for one in made.prepared} <= {1, 2, 3}


def end_queued(lab: Lab) -> int:
    """Run the scripts of all that is queued; return how many elements that were."""
    jobs = {name: job for name, job in lab.scheduler.live.items() if job.batch[0] != "+"}
    queued = [one for one in lab.scheduler.says if one.partition("_")[0] in jobs]
    for one in queued:
        job, _, index = one.partition("_")
        batch = jobs[job].batch
        element = Element(batch, int(index) if index else None, job, *(lab.rundir.home,) * 3)
        assert lab.run(element).status == 0
        del lab.scheduler.says[one]
    return len(queued)


def test_each_window_is_submitted_when_there_is_room_until_all_is_done(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")  # what elements call: it is done here
    most = 16
    file = Path("site.toml")
    file.write_text(f"[limits]\nmax_jobs = {most}\npoll_seconds = 0\nsettle_seconds = 0\n")
    lab.workflow.command("true {n}", n=each(range(100)), name="first")
    lab.workflow.command("true", name="all", after=[lab.workflow.nodes["first"].gather()])
    submit(lab.workflow, site=str(file.absolute()))
    sizes = []
    while not (report := Run(lab.rundir.folder).report(fresh=True)).finished:
        assert submit_due(Run(lab.rundir.folder)).prepared == ()  # there is no room
        sizes.append(end_queued(lab))
        submit_due(Run(lab.rundir.folder))
        assert len(sizes) < 100
    assert report.failures == []
    assert report.total == {State.DONE: 101}
    assert max(sizes) <= most
    assert len(sizes) > 5
