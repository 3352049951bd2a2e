"""Nodes mapped over a list that a task returns: how many tasks they have is known at run time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from itertools import product
from pickle import loads
from typing import Any

import pytest
from fakes import Lab
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcpipe import Workflow, each
from hpcpipe.errors import WorkflowError
from hpcpipe.graph.axes import Axis, Edge, Source, listed_edge
from hpcpipe.graph.each import Each
from hpcpipe.graph.node import Node
from hpcpipe.jobs import Capabilities, JobEnd, Reason, State
from hpcpipe.keys.fates import RUN
from hpcpipe.keys.grow import grow
from hpcpipe.keys.plan import find_fates, freeze
from hpcpipe.planner.batch import Limits
from hpcpipe.planner.compile import make_batches
from hpcpipe.resources import Resources
from hpcpipe.run import Run, retry, submit_due
from hpcpipe.status import poll
from hpcpipe.store.ledger import Ledger
from hpcpipe.store.plan import Frozen, NodeRecord, read_plan, write_plan
from hpcpipe.store.record import latest_record
from hpcpipe.views.status import status_lines


def listed(count: Any, **_: Any) -> Any:
    return count if isinstance(count, str) else [10 * n for n in range(count)]


def add(x: Any = 0, y: Any = 0, **_: Any) -> Any:
    return x + y


def total(values: Any, **_: Any) -> Any:
    return sum(values)


def lengths(known: Mapping[int, int]) -> Callable[[NodeRecord, Any], Mapping[int, int]]:
    return lambda *_: known


def parents(plan: Frozen, node: str, upstream: str) -> dict[str, list[str]]:
    """Name the tasks upstream of each task, by label."""
    record, above = plan.nodes[node], plan.nodes[upstream]
    edges = [one for one in record.edges if one.upstream == upstream]
    return {
        record.label(at): [above.label(parent) for parent in edges[0].parents(at)]
        for at in range(len(record))
    }


@cache
def nested() -> Frozen:
    """Subjects with a list each, crossed with widths, and gathers over one, two or all axes."""
    wf = Workflow("nested", "runs")
    lists = wf.add(listed, name="lists", count=each([3, 1, 2], axis="subject"))
    works = wf.add(add, name="works", x=each(lists, axis="run"), y=each([1, 2], axis="width"))
    wf.add(total, name="by_run", values=works.gather("width"), after=lists)
    wf.add(total, name="by_subject", values=works.gather("run", "width"))
    wf.add(total, name="by_width", values=works.gather("run"))
    wf.add(total, name="all", values=works.gather())
    return freeze(wf)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.none() | st.integers(0, 3), min_size=3, max_size=3))
def test_a_list_for_each_subject_makes_ragged_nodes(counts: list[int | None]) -> None:
    known = {at: count for at, count in enumerate(counts) if count is not None}
    plan = grow(nested(), lengths(known))
    subjects = [label for at, label in enumerate(["3", "1", "2"]) if at in known]
    runs = {label: range(counts[at] or 0) for at, label in enumerate(["3", "1", "2"])}
    works = [f"{s}/{r}/{w}" for s in subjects for r in runs[s] for w in "12"]
    pairs = [f"{s}/{r}" for s in subjects for r in runs[s]]
    assert parents(plan, "works", "lists") == {one: [one[0]] for one in works}
    assert parents(plan, "by_run", "works") == {p: [f"{p}/1", f"{p}/2"] for p in pairs}
    assert parents(plan, "by_run", "lists") == {p: [p[0]] for p in pairs}
    assert parents(plan, "by_subject", "works") == {
        s: [one for one in works if one[0] == s] for s in subjects
    }
    assert parents(plan, "by_width", "works") == {
        f"{s}/{w}": [one for one in works if (one[0], one[-1]) == (s, w)]
        for s, w in product(subjects, "12")
    }
    whole = len(known) == 3
    assert [len(plan.nodes["all"]), bool(plan.nodes["all"].awaited)] == [whole, not whole]
    if whole:
        assert parents(plan, "all", "works") == {"": works}
    keys = [node.key(at) for node in plan.nodes.values() for at in range(len(node))]
    assert len({*keys}) == len(keys)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 3), min_size=3, max_size=3), st.integers(0, 2))
def test_what_grows_bit_by_bit_becomes_the_same(counts: list[int], missing: int) -> None:
    frozen = nested()
    known = dict(enumerate(counts))
    at_once = grow(frozen, lengths(known))
    before = grow(frozen, lengths({at: n for at, n in known.items() if at != missing}))
    after = grow(before, lengths(known))
    for name, node in at_once.nodes.items():
        now = dict(node.by_label())
        assert dict(after.nodes[name].by_label()) == now
        assert dict(before.nodes[name].by_label()).items() <= now.items()
        assert node.edges == after.nodes[name].edges


AT = [0, 1, 1, 2]  # which of three lists each of four works is mapped over
JOINED = [[0, 1], [2, 3], []]  # which works each join waits for, all that they become


@cache
def linked(*done: tuple[int, int]) -> Frozen:
    """Nodes joined place by place, as those of nipype; of lists that are ``done``, the lengths."""
    wf = Workflow("linked", "runs")

    def add_node(name: str, count: int, *links: Edge, axes: Any = ()) -> None:
        labels = tuple(f"{name[0]}{n}" for n in range(count))
        axis = Axis("iterables", labels)
        fixed = [axis] if count else []
        values = {"x": Each(labels, axis, labels)} if count else {}
        known = [place for place, _ in done] if name in ("lists", "works", "sums") else []
        wf.nodes[name] = Node(
            name, add, values, (*fixed, *axes), Resources(), False, links=links,
            done=[at for at, place in enumerate(AT) if place in known] if links else known,
            grows=bool(links),
        )  # fmt: skip

    add_node("lists", 3)
    over = Axis("part", (), (), Source("lists", ("it",), (), AT, done))
    add_node("works", 4, listed_edge("lists", [[one] for one in AT]), axes=(over,))
    one_by_one = [[0], [1], [2], [3]]
    add_node("sums", 4, listed_edge("works", one_by_one), listed_edge("lists", [[1]] * 4))
    add_node("joins", 3, listed_edge("sums", JOINED))
    add_node("all", 0, listed_edge("joins", [[0, 1, 2]]))
    return freeze(wf)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.none() | st.integers(0, 3), min_size=3, max_size=3), st.booleans())
def test_nodes_that_are_joined_place_by_place_grow_alike(
    counts: list[int | None], first_is_done: bool
) -> None:
    known = {at: count for at, count in enumerate(counts) if count is not None}
    done = [(0, known.pop(0))] if first_is_done and 0 in known else []
    plan = grow(linked(*done), lengths(known))
    known |= dict(done)
    there = [n for n, at in enumerate(AT) if at in known]
    works = {n: [f"w{n}/{part}" for part in range(known[AT[n]])] for n in there}
    assert parents(plan, "works", "lists") == {
        one: [f"l{AT[n]}"] for n in there for one in works[n]
    }
    assert parents(plan, "sums", "works") == {f"s{n}": works[n] for n in there}
    assert parents(plan, "sums", "lists") == {f"s{n}": ["l1"] for n in there}
    joins = [n for n, some in enumerate(JOINED) if {*some} <= {*there}]
    assert parents(plan, "joins", "sums") == {
        f"j{n}": [f"s{one}" for one in JOINED[n]] for n in joins
    }
    assert [len(plan.nodes["all"]), bool(plan.nodes["all"].awaited)] == (
        [1, False] if len(joins) == 3 else [0, True]
    )
    numbers = [int(one[-1]) for n in there for one in works[n]]
    assert [[*some] for _, some in plan.nodes["works"].picks] == [numbers]
    for name in ("works", "sums") if done else ():
        node = plan.nodes[name]
        labels = [node.label(at) for at in range(len(node))]
        assert {*node.done} == {at for at, label in enumerate(labels) if label[1] == "0"}
    keys = [node.key(at) for node in plan.nodes.values() for at in range(len(node))]
    assert len({*keys}) == len(keys)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 3), min_size=3, max_size=3), st.integers(0, 2))
def test_what_grows_bit_by_bit_place_by_place_becomes_the_same(
    counts: list[int], missing: int
) -> None:
    known = dict(enumerate(counts))
    at_once = grow(linked(), lengths(known))
    before = grow(linked(), lengths({at: n for at, n in known.items() if at != missing}))
    after = grow(before, lengths(known))
    given_one = grow(linked((missing, counts[missing])), lengths({}))
    for name, node in at_once.nodes.items():
        now = dict(node.by_label())
        assert dict(after.nodes[name].by_label()) == now
        assert dict(before.nodes[name].by_label()).items() <= now.items()
        assert dict(given_one.nodes[name].by_label()).items() <= now.items()
        assert node.edges == after.nodes[name].edges


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 30), st.integers(0, 2))
def test_a_list_of_any_length_makes_few_arrays(count: int, subjects: int) -> None:
    wf = Workflow("plain", "runs")
    lists = wf.add(listed, name="lists", count=count)
    axes: dict[str, Any] = {"y": each([*range(subjects)], axis="subject")} if subjects else {}
    works = wf.add(add, name="works", x=each(lists), **axes)
    wf.add(total, name="all", values=wf.add(add, name="more", x=works, y=1).gather())
    plan = find_fates(grow(freeze(wf), lengths({0: count})))
    assert not plan.irregular
    batches = make_batches(plan, Capabilities(), Limits())
    tasks = count * max(1, subjects)
    assert sum(len(batch.tasks) for batch in batches) == 2 + 2 * tasks
    assert len(batches) <= 4


def test_a_plan_that_grows_is_read_back_as_it_was(lab: Lab) -> None:
    lab.rundir.create()
    for frozen in (nested(), linked(), linked((1, 2))):
        plan = grow(frozen, lengths({0: 3, 2: 1}))
        again = read_plan(lab.rundir, first := write_plan(lab.rundir, plan))
        second = write_plan(lab.rundir, again)
        # By value: which equal strings are one object, which a pickle shows, says nothing.
        before, after = (loads(lab.rundir.plan(one).read_bytes()) for one in (first, second))
        assert before == after
        later = grow(again, lengths({0: 3, 1: 2, 2: 1}))
        assert len(later.nodes["all"]) == 1


def growing(lab: Lab, count: Any, *, name: str = "lists") -> None:
    wf = lab.workflow
    lists = wf.add(listed, name=name, count=count)
    works = wf.add(add, name="works", x=each(lists))
    wf.add(total, name="all", values=wf.add(add, name="more", x=works, y=1).gather())


def continued(lab: Lab) -> None:
    """Do what a continuation does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hpcpipe.run.pick_site", lambda _: (lab.site, ""))
        submit_due(Run(lab.rundir.folder))


@pytest.mark.parametrize("count", [0, 3])
def test_what_follows_is_submitted_once_the_list_is_there(lab: Lab, count: int) -> None:
    growing(lab, count)
    run = lab.submit()
    assert {name: c.total() for name, c in run.report().counts.items()} == {
        "lists": 1, "works": 0, "more": 0, "all": 0,
    }  # fmt: skip
    assert "width known when lists has ended: works more all" in [*status_lines(run.report())]
    assert lab.run("lists").status == 0
    assert lab.store.get("lists", lab.find("lists").good.stem)["widths"] == {(): count}
    continued(lab)
    for name in [f"{node}/{n}" for node in ("works", "more") for n in range(count)]:
        assert lab.run(name).status == 0
    assert lab.run("all").status == 0
    assert lab.value("all") == sum(10 * n + 1 for n in range(count))
    assert run.report().finished
    assert run.report().total == {State.DONE: 2 + 2 * count}


def test_a_run_has_not_finished_while_its_continuation_is_about_to_end(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing(lab, 2)
    run = lab.submit()
    assert lab.run("lists").status == 0
    lab.scheduler.says |= dict.fromkeys(lab.scheduler.says, JobEnd("COMPLETED", None))

    def ask(*words: Any, **options: Any) -> Any:
        if len(Ledger(lab.rundir.ledger).read().runs) == 1:
            continued(lab)
        return poll.ask(*words, **options)

    monkeypatch.setattr("hpcpipe.status.report.ask", ask)
    assert not run.report().finished


def test_what_is_no_list_fails_in_plain_words(lab: Lab) -> None:
    growing(lab, "text")
    run = lab.submit()
    assert lab.run("lists").status == 1
    words = "it returned a str, which is no list that works can be mapped over"
    assert lab.outcome("lists")["error"] == words
    lab.scheduler.says |= dict.fromkeys(lab.scheduler.says, JobEnd("FAILED", Reason.EXIT))
    continued(lab)
    report = run.report()
    assert report.finished
    assert "width unknown, as lists failed: works more all" in [*status_lines(report)]


def test_a_result_of_before_it_was_mapped_over_counts(lab: Lab) -> None:
    lab.workflow.add(listed, name="lists", count=2)
    lab.submit()
    assert lab.run("lists").status == 0
    lab.workflow.nodes.clear()
    growing(lab, 2)
    lab.submit()
    assert len(latest_record(lab.rundir).nodes["works"]) == 2


def test_mistakes_are_told_when_the_node_is_added() -> None:
    wf = Workflow("mistakes")
    lists = wf.add(listed, name="lists", count=each([1, 2], axis="subject"))
    works = wf.add(add, name="works", x=each(lists, axis="run"))
    with pytest.raises(WorkflowError, match="gather 'run' too, which has a length of its own"):
        wf.add(total, name="across", values=works.gather("subject"))
    other = wf.add(listed, name="other", count=3)
    with pytest.raises(WorkflowError, match="axis 'run' is of one list by x=works"):
        wf.add(add, name="both", x=works, y=each(other, axis="run"))


def test_a_task_that_has_just_come_to_be_can_be_named(lab: Lab) -> None:
    growing(lab, 3)
    run = lab.submit()
    assert lab.run("lists").status == 0
    drafted = retry(run.rundir.folder, site=lab.site, tasks=["works/2"])[1]
    assert drafted.plan.count(RUN) == 2  # and what follows it alone
