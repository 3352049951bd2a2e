"""Few arrays for any graph: that they keep all dependencies, and what they are thought to cost."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from random import Random

import networkx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hpcpipe.planner.search.search
from hpcpipe.frontends.foreign_graphs import from_networkx
from hpcpipe.jobs import Capabilities
from hpcpipe.keys.plan import make_plan
from hpcpipe.planner.batch import Limits
from hpcpipe.planner.compile import make_batches
from hpcpipe.planner.element_graph import Elements, make_elements
from hpcpipe.planner.layout import Array, make_batch
from hpcpipe.planner.predict import jobs_of
from hpcpipe.planner.regular import make_exact
from hpcpipe.planner.search.baseline import exact_makespans, exact_starts
from hpcpipe.planner.search.orderings import make_orderings
from hpcpipe.planner.search.search import coarsen, likely_cores
from hpcpipe.planner.simulate import Job, makespan, simulate

CAPABILITIES = [
    Capabilities(),
    Capabilities(window=2, first_index=1),
    Capabilities(sparse=False),
    Capabilities(elementwise=False),
    Capabilities(element_dependency=False),
    Capabilities(elementwise=False, element_dependency=False, sparse=False),
]


def elements(tasks: Sequence[tuple[float, int, Sequence[int]]]) -> Elements:
    """Make a graph of tasks: the seconds of each, its cores, and those before that it waits for."""
    graph = networkx.DiGraph()
    for number, (seconds, cpus, parents) in enumerate(tasks):
        graph.add_node(number, seconds=seconds, cpus=cpus, node="task")
        graph.add_edges_from((parent, number) for parent in parents)
    flow = from_networkx(graph, "random")
    known = {name: node.seconds for name, node in flow.nodes.items() if node.seconds}
    return make_elements(make_plan(flow), known)


@st.composite
def graphs(draw: st.DrawFn) -> Elements:
    """Draw a graph: of any shape, or of lineages whose tasks often need one another one to one."""
    dice = Random(draw(st.integers(0, 10**6)))
    count = draw(st.integers(1, 40))
    wide = draw(st.integers(1, 12))
    most = draw(st.sampled_from([1, 1, 2, 4]))
    paired = draw(st.booleans())
    tasks: list[tuple[float, int, Sequence[int]]] = []
    for number in range(count):
        above = [number - wide] if number >= wide else []
        if not paired or dice.random() < 0.2:
            above = dice.sample(range(number), min(number, dice.choice((0, 1, 1, 2, 3))))
        tasks.append((dice.choice((1.0, 2.5, 7.0, 30.0)), dice.randint(1, most), above))
    return elements(tasks)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a search end soon."""
    monkeypatch.setattr(hpcpipe.planner.search.search, "_EFFORT_SMALL", 20_000)


@settings(deadline=None, max_examples=40)
@given(graphs(), st.sampled_from(CAPABILITIES), st.integers(1, 12), st.integers(2, 20))
def test_whatever_the_graph_every_element_runs_once_and_after_what_it_needs(
    graph: Elements, can: Capabilities, size: int, calls: int
) -> None:
    arrays = coarsen(graph, can, size, calls=calls)
    assert sorted(e for array in arrays for e in array.elements) == list(range(len(graph)))
    assert all(len(array.elements) <= size for array in arrays)
    assert len(arrays) <= allowed(graph, size, calls)
    for array in arrays:
        check_array(array, can)
    for cores in (4, 9, 1000):
        check_starts(graph, arrays, cores, can)
    again = coarsen(graph, can, size, calls=calls)
    assert [array.elements for array in again] == [array.elements for array in arrays]


def test_a_part_of_a_cell_may_have_no_partner_where_another_part_has() -> None:
    above: list[tuple[float, list[int]]] = [
        (1.0, []), (30.0, []), (7.0, [1]), (7.0, [0, 2]), (30.0, [1]), (7.0, [4]), (7.0, [4, 1]),
    ]  # fmt: skip
    graph = elements([(seconds, 1, parents) for seconds, parents in above])
    arrays = coarsen(graph, Capabilities(), 2, calls=6)
    check_starts(graph, arrays, 1000, Capabilities())


def allowed(graph: Elements, size: int, calls: int) -> int:
    """Say how many arrays there may be: so many calls, or where depths and sizes force more, these
    and a cut of each layer."""
    layers: dict[object, int] = {}
    for element in range(len(graph)):
        layer = graph.depth[element], graph.places[element]
        layers[layer] = layers.get(layer, 0) + 1
    forced = sum(ceil(count / size) for count in layers.values())
    return calls if forced <= calls else forced + max(0, min(len(layers), calls - len(layers)))


def check_array(array: Array, can: Capabilities) -> None:
    """See that the scheduler can do what an array asks of it."""
    indices = list(array.indices)
    assert indices == sorted(set(indices))
    assert len(indices) == len(array.elements)
    assert indices[0] >= can.first_index
    assert can.sparse or indices[-1] - indices[0] == len(indices) - 1
    assert can.elementwise or all(wait.kind == "all" for wait in array.waits)
    assert can.element_dependency or all(wait.element is None for wait in array.waits)


def jobs_for(graph: Elements, arrays: Sequence[Array], can: Capabilities) -> list[Job]:
    """Give arrays, as they are to be submitted, as the simulator takes them."""
    return jobs_of([make_batch(graph, array, can) for array in arrays], graph)


def check_starts(graph: Elements, arrays: Sequence[Array], cores: int, can: Capabilities) -> None:
    """Run the arrays in the simulator, and see that no element starts before all it needs."""
    simulated = simulate(jobs_for(graph, arrays, can), cores, window=can.window)
    order = [element for array in arrays for element in array.elements]
    start = dict(zip(order, simulated.starts, strict=True))
    for element in range(len(graph)):
        for parent in graph.parents[element]:
            assert start[element] >= start[parent] + graph.seconds[parent]


def test_lineages_are_kept_apart_where_a_barrier_would_cost() -> None:
    # Four lineages of ten tasks, a merge and ten more; in two of them the first or last is slow.
    tasks: list[tuple[float, int, Sequence[int]]] = []
    for early, late in ((9.0, 1.0), (1.0, 9.0), (8.0, 2.0), (1.0, 9.0)):
        first = len(tasks)
        tasks += [(early, 1, ())] * 10
        tasks.append((1.0, 1, range(first, first + 10)))
        tasks += [(late, 1, [first + 10])] * 10
    graph = elements(tasks)
    whole = coarsen(graph, Capabilities(), 1000, calls=3)
    apart = coarsen(graph, Capabilities(), 1000, calls=12)
    assert len(whole) == 3
    assert cost(graph, whole) > 1.5
    assert len(apart) <= 12
    assert cost(graph, apart) < 1.15


def test_a_forest_is_searched_where_exact_arrays_are_more_than_the_calls() -> None:
    dice, graph = Random(0), networkx.DiGraph()
    for number in range(200):
        graph.add_node(number, seconds=dice.choice((1, 5)), node="task")
        if number >= 40:
            graph.add_edge(dice.randrange(number // 40 * 40 - 40, number // 40 * 40), number)
    plan = make_plan(from_networkx(graph, "forest"))
    exact = make_exact(plan, Capabilities(), Limits(calls=20))
    assert len(exact) > 20
    assert not any(wait.relaxed for batch in exact for wait in batch.waits)
    assert len(make_batches(plan, Capabilities(), Limits(calls=20))) <= 20


def test_lines_are_cut_between_all_lineages_after_one_needed_another() -> None:
    # Sixteen of tasks, a merge and tasks below it; one task needs two of the merges.
    tasks: list[tuple[float, int, Sequence[int]]] = []
    merges: list[int] = []
    for lineage in range(16):
        first, width = len(tasks), 25 + lineage % 7
        merges.append(first + width)
        tasks += [(20.0, 1, ())] * width
        tasks.append((1.0 + lineage, 1, range(first, first + width)))
        tasks += [(3.0, 1, [merges[-1]])] * 3
    tasks.append((3.0, 1, [merges[10], merges[14]]))
    graph = elements(tasks)
    merging = [element for element, parents in enumerate(graph.parents) if len(parents) > 2]
    for ordering in make_orderings(graph, exact_starts(graph, 40)):
        assert len({ordering.block[element] for element in merging}) == 16


def test_what_is_waited_for_as_a_whole_has_its_longest_elements_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hpcpipe.planner.search.search, "_SMALL", 0)
    first: list[tuple[float, int, Sequence[int]]] = [(1.0, 1, ()), (1.0, 1, ()), (9.0, 1, ())]
    whole = elements([*first, (50.0, 1, [0, 1]), (1.0, 1, [1, 2])])
    single = elements([*first, (50.0, 1, [0]), (9.0, 1, [1]), (2.0, 1, [2])])
    for graph, order in ((whole, [9.0, 1.0, 1.0]), (single, [1.0, 9.0, 1.0])):
        arrays = coarsen(graph, Capabilities(), 1000, calls=2)
        assert [graph.seconds[element] for element in arrays[0].elements] == order
    assert list(arrays[0].elements) == [0, 2, 1]  # the longest way down first


def test_short_ends_are_put_off_to_later_blocks_than_long_ones() -> None:
    tasks: list[tuple[float, int, Sequence[int]]] = []
    for lineage in range(24):
        merge = len(tasks) + 4
        tasks += [(10.0, 1, ())] * 4
        tasks += [(5.0 + lineage, 1, range(merge - 4, merge))]
        tasks += [(20.0, 1, [merge]), (2.0, 1, [merge])]
    graph = elements(tasks)
    _, moved, put_off, *_ = [one.block for one in make_orderings(graph, exact_starts(graph, 12))]
    ends = [sorted(below, key=graph.seconds.__getitem__) for below in graph.children]
    pairs = [pair for pair in ends if len(pair) == 2]
    assert all(moved[short] == moved[long] for short, long in pairs)
    assert sum(put_off[short] > put_off[long] for short, long in pairs) > 12


def cost(graph: Elements, arrays: Sequence[Array]) -> float:
    """Say how much longer arrays take than exact dependencies, on few to unlimited cores at worst.

    1.02 is two per cent.
    """
    cores = [*likely_cores(graph), 1000]
    jobs = jobs_for(graph, arrays, Capabilities())
    exact = exact_makespans(graph, cores)
    return max(makespan(jobs, n) / seconds for n, seconds in zip(cores, exact, strict=True))
