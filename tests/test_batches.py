"""How few arrays a plan becomes, and that every task waits for all that it needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise, product
from math import ceil
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcpipe import Workflow, each
from hpcpipe.graph.node import Node, Output
from hpcpipe.indices import ranges
from hpcpipe.jobs import Capabilities
from hpcpipe.keys.fates import DONE, InFlight, Known
from hpcpipe.keys.plan import Plan, make_plan
from hpcpipe.planner.batch import Batch, InFlightJob, Limits, span
from hpcpipe.planner.compile import make_batches
from hpcpipe.planner.simulate import Job, simulate
from hpcpipe.resources import Resources
from hpcpipe.submit.job_limits import pack_of

Flying = Mapping[int, tuple[str, int | None]]  # task → job and array index


class Study:
    """A workflow of commands, and what is known of their tasks."""

    def __init__(self) -> None:
        self.wf = Workflow("wf")
        self.known: dict[str, Known] = {}

    def add(self, name: str, *above: Node | Output, **over: int) -> Node:
        """Add a node that takes values of others, over axes of these sizes of its own."""
        inputs: dict[str, Any] = {f"from{at}": one for at, one in enumerate(above)}
        inputs |= {axis: each(range(size), axis=axis) for axis, size in over.items()}
        return self.wf.command(["x", *(f"{{{i}}}" for i in inputs)], name=name, **inputs)

    def know(
        self,
        name: str,
        done: Sequence[int] = (),
        flying: Flying | None = None,
        raised: Sequence[int] = (),
    ) -> None:
        """Say which tasks of a node are done, in flight, or to be run with more memory."""
        node = make_plan(self.wf).nodes[name]
        self.known[name] = Known(
            {node.key(task) for task in done},
            {node.key(t): InFlight("b", *place) for t, place in (flying or {}).items()},
            {node.key(task): Resources(memory=1024 * (1 + task % 2)) for task in raised},
        )

    def plan(self) -> Plan:
        return make_plan(self.wf, self.known)

    def batches(self, can: Capabilities, limits: Limits) -> tuple[Batch, ...]:
        return make_batches(self.plan(), can, limits)


def spelled(batches: Sequence[Batch]) -> list[str]:
    """Say a batch in one line: ``b 0-3 each 0`` is an array that goes along batch 0."""
    return [" ".join((batch.name, _indices(batch), *_waits(batch))) for batch in batches]


def _indices(batch: Batch) -> str:
    if batch.indices is None:
        return "job"
    return ",".join(f"{a}-{b}" if a < b else f"{a}" for a, b in ranges(batch.indices))


def _waits(batch: Batch) -> Iterator[str]:
    for wait in batch.waits:
        on = wait.on.job if isinstance(wait.on, InFlightJob) else wait.on
        what = f"element {wait.element} of" if wait.element is not None else wait.kind
        yield f"{what} {on}{' relaxed' * wait.relaxed}"


# --- shapes -------------------------------------------------------------------------------------


def single(study: Study) -> None:
    study.add("a")


def lone(study: Study) -> None:
    study.add("b", study.add("a", s=4).gather())
    study.add("c", study.add("d"), s=1)


def aligned(study: Study) -> None:
    study.add("c", study.add("b", study.add("a", s=4)))


def tree(study: Study) -> None:
    study.add("d", study.add("c", study.add("b", study.add("a", s=4)).gather()))


def split(study: Study) -> None:
    study.add("b", study.add("a", s=4), f=2)


def gathered(study: Study) -> None:
    study.add("c", study.add("b", study.add("a", s=4), f=2).gather("s"))


def fanned_out(study: Study) -> None:
    study.add("b", study.add("a"), s=4)


def block(study: Study) -> None:
    study.add("b", study.add("a", s=3, r=4).gather("r"))


def diamond(study: Study) -> None:
    top = study.add("a", s=4)
    study.add("d", study.add("b", top), study.add("c", top))


def two_parents(study: Study) -> None:
    study.add("c", study.add("a", s=3), study.add("b", f=2))


def each_and_all(study: Study) -> None:
    parent = study.add("a", s=3)
    study.add("b", parent, parent.gather())


def chained(study: Study) -> None:
    study.add("b", study.add("a", s=25))
    study.add("c", study.wf.nodes["b"].gather())


def wide(study: Study) -> None:
    study.add("b", study.add("a", s=3), f=30)


def tall(study: Study) -> None:
    study.add("b", study.add("a", r=5, s=30).gather("r"))


def half_done(study: Study) -> None:
    aligned(study)
    study.know("a", done=[0, 2])


def middle_done(study: Study) -> None:
    top = study.add("a", s=2)
    study.add("c", study.add("b", top, top))
    study.know("b", done=[1])  # and a 1 is run once more


def some_flying(study: Study) -> None:
    aligned(study)
    study.know("a", done=[0], flying={1: ("77", 9), 3: ("77", 5)})


def all_flying(study: Study) -> None:
    gathered(study)
    study.know("a", flying={task: ("77", task) for task in range(4)})


def job_flying(study: Study) -> None:
    fanned_out(study)
    study.know("a", flying={0: ("77", None)})


def crossed(study: Study) -> None:
    several = study.add("b", s=5, r=2)
    study.add("c", study.add("a", s=5), several.gather("r"))
    study.know("a", done=[2])
    study.know("b", flying={task: (f"j{task}", None) for task in range(10)})


def few_left(study: Study) -> None:
    aligned(study)
    for name in "abc":
        study.know(name, done=[0, 2])


def raised(study: Study) -> None:
    aligned(study)
    study.know("a", raised=[1, 3])


def later_half(study: Study) -> None:
    first = study.add("a", s=4)
    study.add("c", study.add("b", first), first)
    study.know("b", done=[0, 1])
    study.know("c", done=[0, 1])


BASIC = Capabilities()
PLAIN = Capabilities(elementwise=False, element_dependency=False)
DENSE = Capabilities(sparse=False)
FROM_1 = Capabilities(first_index=1)
EQUALS = Capabilities(subset=False, element_dependency=False)
NO_ARRAYS = Capabilities(arrays=False)
EACH_ONLY = Capabilities(element_dependency=False)
MANY, CALLS = Limits(), Limits(calls=40)
TEN, NONE = Limits(array_size=10), Limits(array_size=0)
CROSSED = "; ".join(
    ["a 0-3"]
    + [f"c job element {at} of 0 all j{of} all j{of + 1}" for at, of in enumerate((0, 2))]
    + ["c job all j4 all j5"]
    + [f"c job element {at} of 0 all j{of} all j{of + 1}" for at, of in ((2, 6), (3, 8))]
)
RELAXED = " ".join(f"all j{at} relaxed" for at in (0, 1, 2, 3, 6, 7, 8, 9))
SINGLY = "; ".join(["a job"] * 4 + [f"b job all {i // 2}" for i in range(8)])


@pytest.mark.parametrize(
    ("shape", "can", "limits", "expected"),
    [
        (single, BASIC, MANY, "a job"),
        (lone, BASIC, MANY, "a 0-3; b job all 0; d job; c job all 2"),
        (aligned, BASIC, MANY, "a 0-3; b 0-3 each 0; c 0-3 each 1"),
        (aligned, FROM_1, MANY, "a 1-4; b 1-4 each 0; c 1-4 each 1"),
        (aligned, PLAIN, MANY, "a+2 0-3"),
        (tree, PLAIN, MANY, "a+1 0-3; c job all 0; d job all 1"),
        (split, BASIC, MANY, "a 0-3; b 0-3 each 0; b 0-3 each 0"),
        (gathered, BASIC, MANY, "a 0-3; b 0-3 each 0; b 0-3 each 0; c job all 1; c job all 2"),
        (fanned_out, BASIC, MANY, "a job; b 0-3 all 0"),
        (block, BASIC, MANY, "a 0-3; a 0-3; a 0-3; b job all 0; b job all 1; b job all 2"),
        (diamond, BASIC, MANY, "a 0-3; b 0-3 each 0; c 0-3 each 0; d 0-3 each 1 each 2"),
        (two_parents, BASIC, MANY,
         "a 0-2; b 0-1; c 0-2 each 0 element 0 of 1; c 0-2 each 0 element 1 of 1"),
        (two_parents, EACH_ONLY, MANY,
         "a+1 0-3; b job; c 0-2 each 0 all 1; c 0-2 all 0 relaxed"),
        (each_and_all, BASIC, MANY, "a 0-2; b 0-2 all 0"),
        (chained, BASIC, TEN,
         "a 0-9; a 0-9; a 0-4; b 0-9 each 0; b 0-9 each 1; b 0-4 each 2; c job all 3 all 4 all 5"),
        (wide, BASIC, CALLS, "a 0-2; b 0-29 element 0 of 0; b 0-29 element 1 of 0; "
                             "b 0-29 element 2 of 0"),
        (wide, PLAIN, CALLS, "a 0-2; b 0-89 all 0 relaxed"),
        (tall, BASIC, CALLS, "a 0-149; b 0-29 all 0 relaxed"),
        (split, NO_ARRAYS, MANY, SINGLY),
        (split, BASIC, NONE, SINGLY),
        (half_done, BASIC, MANY, "a 0-1; b 0-1; b 0-1 each 0; c 0-1 each 1; c 0-1 each 2"),
        (middle_done, PLAIN, NONE, "a job; a job; b+1 job all 0; b+1 job"),
        (some_flying, BASIC, MANY,
         "a job; b job; b 5,9 each 77; b job all 0; c job all 1; c 5,9 each 2; c job all 3"),
        (some_flying, DENSE, MANY,
         "a+2 0-1; b+1 0-1 all 77 relaxed"),
        (all_flying, BASIC, MANY, "b 0-3 each 77; b 0-3 each 77; c job all 0; c job all 1"),
        (all_flying, BASIC, Limits(array_size=3),
         "b 0-2 each 77; b 3 each 77; b 0-2 each 77; b 3 each 77; "
         "c job all 0 all 1; c job all 2 all 3"),
        (all_flying, BASIC, NONE,
         "; ".join(f"b job element {i // 2} of 77" for i in range(8))
         + "; c job all 0 all 2 all 4 all 6; c job all 1 all 3 all 5 all 7"),
        (job_flying, BASIC, MANY, "b 0-3 all 77"),
        (crossed, BASIC, MANY, CROSSED),
        (crossed, BASIC, Limits(calls=1), f"a 0-3; c job all j4 all j5; c 0-3 each 0 {RELAXED}"),
        (few_left, BASIC, MANY, "a 0-1; b 0-1 each 0; c 0-1 each 1"),
        (raised, BASIC, MANY,
         "a 0-1; a 0-1; b 0-1 each 0; b 0-1 each 1; c 0-1 each 2; c 0-1 each 3"),
        (later_half, BASIC, MANY, "a 0-3; b 2-3 each 0; c 2-3 each 1 each 0"),
        (later_half, EQUALS, MANY, "a 0-3; b 0-1 all 0 relaxed; c 0-1 each 1"),
    ],
)  # fmt: skip
def test_a_shape_becomes_these_calls(
    shape: Callable[[Study], None], can: Capabilities, limits: Limits, expected: str
) -> None:
    study = Study()
    shape(study)
    assert "; ".join(spelled(study.batches(can, limits))) == expected


def test_a_thousand_subjects_in_two_nodes_are_two_calls() -> None:
    study = Study()
    study.add("b", study.add("a", s=1000))
    assert spelled(study.batches(BASIC, Limits())) == ["a 0-999", "b 0-999 each 0"]


@pytest.mark.parametrize(
    ("pack", "time", "least", "lanes", "expected"),
    [
        (None, None, 1, 1, 1),
        (10, None, 1, 1, 10),
        (None, None, 7, 1, 7),
        (10, None, 7, 1, 10),
        (None, 600, 1, 1, 6),
        (None, None, 1, 8, 8),  # one in every lane
        (3, None, 1, 8, 3),  # as it is said
        (1, None, 1, 8, 1),
        (None, None, 5, 8, 8),
        (3, None, 5, 8, 8),
        (None, None, 9, 8, 16),  # again one in every lane
        (20, None, 9, 8, 20),
        (None, 1800, 1, 8, 16),
        (None, 3600, 1, 8, 8),
    ],
)
def test_so_many_strands_share_an_element(
    pack: int | None, time: int | None, least: int, lanes: int, expected: int
) -> None:
    asked = Resources(pack=pack, time=time)
    assert pack_of(asked, lanes, least, shortest=3600) == expected


@given(st.lists(st.integers(0, 9), min_size=1), st.integers(1, 9))
def test_strands_in_lanes_take_as_long_as_jobs_on_cores(seconds: list[int], lanes: int) -> None:
    assert span(seconds, lanes) == simulate([Job(seconds, range(len(seconds)))], lanes).makespan


# --- any workflow -------------------------------------------------------------------------------


SIZES = {"p": 2, "q": 3, "r": 4}


@st.composite
def studies(draw: st.DrawFn) -> Study:
    study = Study()
    nodes: list[Node] = []
    for name in "abcd"[: draw(st.integers(1, 4))]:
        above: list[Node | Output] = []
        for parent in draw(st.lists(st.sampled_from(nodes), max_size=3)) if nodes else ():
            axes = [axis.name for axis in parent.axes]
            gathered = draw(st.sets(st.sampled_from(axes))) if axes else set()
            above.append(parent.gather(*gathered) if gathered else parent)
        own = draw(st.sets(st.sampled_from("pqr"), max_size=2))
        nodes.append(study.add(name, *above, **{axis: SIZES[axis] for axis in sorted(own)}))
    for node in nodes:
        fates = draw(st.lists(st.sampled_from("rrrdfjm"), min_size=node.size, max_size=node.size))
        at = {fate: [task for task in range(node.size) if fates[task] == fate] for fate in "dfjm"}
        flying: dict[int, tuple[str, int | None]] = {
            task: (f"{node.name}{task % 2}", 40 - task) for task in at["f"]
        }
        flying |= {task: (f"{node.name}job{task}", None) for task in at["j"]}
        study.know(node.name, done=at["d"], flying=flying, raised=at["m"])
    return study


capabilities = st.builds(
    Capabilities,
    arrays=st.sampled_from([True, True, True, False]),
    elementwise=st.booleans(),
    element_dependency=st.booleans(),
    subset=st.booleans(),
    sparse=st.booleans(),
    array_of_one=st.booleans(),
    success=st.booleans(),
    hold=st.booleans(),
    first_index=st.integers(0, 1),
    window=st.none() | st.integers(1, 4),
    no_path=st.just(""),
)
ASKED = [Resources(), Resources(memory=1024), Resources(memory=2048)]  # in a study
limits = st.builds(
    Limits,
    array_size=st.sampled_from([1000, 0, 1, 2, 5]),
    calls=st.sampled_from([200, 1, 12]),
    packs=st.just({}) | st.dictionaries(st.sampled_from(ASKED), st.integers(1, 7)),
    lanes=st.just({}) | st.dictionaries(st.sampled_from(ASKED), st.integers(1, 5)),
)

Task = tuple[str, int]


Place = tuple[int | InFlightJob, int | None]  # a batch or job, and the index in it


def needs(wf: Workflow, task: Task) -> set[Task]:
    """Work out what a task needs from the places along its axes alone."""
    node = wf.nodes[task[0]]
    places = [dict(zip((a.name for a in node.axes), at, strict=True)) for at in _all(node)]
    found = set()
    for output in node.upstreams:
        for index, at in enumerate(_all(output.node)):
            there = zip((axis.name for axis in output.node.axes), at, strict=True)
            if all(n in output.gathered or places[task[1]][n] == place for n, place in there):
                found.add((output.node.name, index))
    return found


def elements(batch: Batch) -> Iterator[tuple[int | None, list[Task]]]:
    """Give the index of every element, and its tasks in the order in which it runs them."""
    tasks = [(node.node.name, task) for node, task in batch.members()]
    starts = batch.starts or range(len(tasks) + 1)
    for position, (first, last) in enumerate(pairwise(starts)):
        yield batch.indices[position] if batch.indices else None, tasks[first:last]


def _all(node: Node) -> Iterator[tuple[int, ...]]:
    return product(*(range(len(axis)) for axis in node.axes))


@settings(max_examples=200, deadline=None)
@given(studies(), capabilities, limits)
def test_whatever_the_workflow_every_task_runs_once_and_after_what_it_needs(
    study: Study, can: Capabilities, limits: Limits
) -> None:
    plan = study.plan()
    batches = make_batches(plan, can, limits)
    where: dict[Task, Place] = {}
    for name, node in plan.nodes.items():
        for task, place in node.in_flight.items():
            where[name, task] = InFlightJob(place.job), place.index
    for number, batch in enumerate(batches):
        assert all(isinstance(w.on, InFlightJob) or w.on < number for w in batch.waits)
        assert len(set(batch.waits)) == len(batch.waits)
        check_array(batch, can, limits)
        if not can.subset:
            above = [batches[w.on] for w in batch.waits if w.kind == "each" and type(w.on) is int]
            assert all([*(one.indices or ())] == [*(batch.indices or ())] for one in above)
        for index, tasks in elements(batch):
            check_strands(study.wf, batch, tasks)
            for name, task in tasks:
                assert (name, task) not in where, "in two batches"
                check_needs(plan, batches, where, (number, index), needs(study.wf, (name, task)))
                where[name, task] = number, index
                assert batch.resources == plan.asked(plan.nodes[name], task)
    for name, node in plan.nodes.items():
        placed = {task for other, task in where if other == name}
        assert placed == {task for task, fate in enumerate(node.fates) if fate != DONE}
    check_exactness(study.wf, batches, where, can)


def check_array(batch: Batch, can: Capabilities, limits: Limits) -> None:
    """The array is one that scheduler and site take."""
    if batch.indices is None:
        assert batch.elements == 1
        return
    indices = list(batch.indices)
    assert can.arrays
    assert len(indices) == batch.elements
    assert indices == sorted(set(indices))
    assert indices[0] >= 0
    assert can.sparse or indices == list(range(indices[0], indices[-1] + 1))
    assert len(indices) <= limits.array_size


def check_strands(wf: Workflow, batch: Batch, tasks: list[Task]) -> None:
    """Of tasks that run side by side none needs one of another strand, or of what is after it."""
    if batch.lanes == 1:
        return
    strands = [tasks[at : at + batch.strand] for at in range(0, len(tasks), batch.strand)]
    assert len(tasks) == len(strands) * batch.strand
    assert ceil(len(strands) / batch.lanes) * batch.strand <= batch.turns
    for strand in strands:
        for task in strand:
            assert needs(wf, task).isdisjoint(set(tasks) - set(strand[: strand.index(task)]))


def check_needs(
    plan: Plan, batches: Sequence[Batch], where: Mapping[Task, Place], own: Place, needed: set[Task]
) -> None:
    """All that a task needs is done, ran before in its element, or its batch waits for it."""
    batch = batches[cast(int, own[0])]
    for upstream, parent in needed:
        if plan.nodes[upstream].fates[parent] == DONE or where[upstream, parent] == own:
            continue
        on, index = where[upstream, parent]
        assert on in waited(batches, batch) or any(
            wait.on == on and (wait.element == index if wait.kind == "all" else index == own[1])
            for wait in batch.waits
        ), f"{batch.name} does not wait for {upstream} {parent}"


def waited(batches: Sequence[Batch], batch: Batch) -> set[int | InFlightJob]:
    """List what has wholly ended when a batch starts: what it waits for, and what that did."""
    whole = {w.on for w in batch.waits if w.kind == "all" and w.element is None}
    above = [batches[wait.on] for wait in batch.waits if isinstance(wait.on, int)]
    return whole.union(*(waited(batches, one) for one in above))


def check_exactness(
    wf: Workflow, batches: Sequence[Batch], where: Mapping[Task, Place], can: Capabilities
) -> None:
    """What waits for elements that each of its own does not need says that it is relaxed."""
    at: dict[Place, set[Task]] = defaultdict(set)
    for task, place in where.items():
        at[place].add(task)
    for batch in batches:
        wanted = {
            index: {one for task in tasks for one in needs(wf, task)}
            for index, tasks in elements(batch)
        }
        for wait in batch.waits:
            assert can.elementwise or wait.kind == "all"
            assert can.element_dependency or wait.element is None
            if wait.kind == "all" and wait.element is None and isinstance(wait.on, InFlightJob):
                continue  # what else that job holds, only its scheduler knows
            for index, wants in wanted.items():
                named = [index] if wait.kind == "each" else [wait.element]
                if wait.kind == "all" and wait.element is None:
                    named = [one for one, _ in elements(batches[cast(int, wait.on)])]
                exact = all(at[wait.on, one] & wants for one in named)
                assert exact or wait.relaxed, (spelled(batches), wait)
