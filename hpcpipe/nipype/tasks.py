"""Divide nipype's expanded graph into units: what one task runs, and which units it waits for.

Most units are one node. A MapNode whose width is known becomes a unit for each sub-node, and one
that collates; of one whose width is known later, one unit stands for all sub-nodes. A node that
runs without submitting joins the unit before or after it, if it does not then wait for anything it
does not need.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from hpcpipe.nipype.cache import find_done, is_spread, width
from hpcpipe.nipype.mapnodes import counter, source
from hpcpipe.nipype.names import Named, common_names
from hpcpipe.nipype.resources import demands
from hpcpipe.resources import Resources

if TYPE_CHECKING:
    import networkx


class Listed(NamedTuple):
    """The list over which a unit is mapped: the unit that leaves it, and the MapNode's field."""

    unit: Unit
    field: str


@dataclass(eq=False)
class Unit:
    """One task: its nodes in the order in which it runs them, or a sub-node of a MapNode.

    With ``over``, it becomes a task for each item of a list that another unit leaves. It is named
    after ``host``, one of its nodes. ``depth`` is the length of the longest path to it.
    """

    host: Any
    nodes: list[Any]
    resources: Resources
    parents: Sequence[Unit]
    names: Mapping[str, Named]  # of all nodes, by their full names
    sub: int | None = None
    at_a_time: int = 1
    over: Listed | None = None

    def __post_init__(self) -> None:
        self.depth: int = max((parent.depth + 1 for parent in self.parents), default=0)

    @property
    def name(self) -> str:
        """The name of its node and those that do the same, without the workflow's own name."""
        name = self.names[self.host.fullname][0].partition(".")[2] or self.host.name
        return name if self.sub is None and self.over is None else f"{name}.mapflow"

    @property
    def select(self) -> str:
        """The name of its list among those that the unit upstream returns.

        Units that are mapped over different outputs, or take them differently, do not share one.
        """
        assert self.over is not None
        taken = self.host.input_source[self.over.field][1], self.host.nested
        kind = type(self.host.interface)
        said = repr((self.over.field, taken, kind.__module__, kind.__qualname__))
        return f"{self.name}.{blake2b(said.encode(), digest_size=4).hexdigest()}"

    def counter(self) -> Any:
        """Return what counts its tasks, see `hpcpipe.nipype.mapnodes.counter`."""
        assert self.over is not None
        return counter(self.host, self.over.field)

    @property
    def values(self) -> tuple[str, ...]:
        """What distinguishes units of one name: sub-workflow, values of iterables, sub-node number.

        nipype writes ``..`` for the ``/`` of a value, which folders are named after.
        """
        values = [
            str(value).removeprefix("_").replace("..", "/") for value in self.host.parameterization
        ]
        if self.sub is not None:
            values.append(str(self.sub))
        rest = self.host._id.removeprefix(self.host.name).strip(".")
        values = values or ([rest] if rest else [])
        return (*self.names[self.host.fullname][1], *values)

    @property
    def kind(self) -> tuple[Any, ...]:
        """What tasks of one node have in common."""
        names = tuple(self.names[node.fullname][0] for node in self.nodes)
        over = self.over and (self.over.unit.kind, self.select)
        return (self.depth, self.name, names, self.resources, self.at_a_time, over)


def make_units(
    graph: networkx.DiGraph, usual: Mapping[str, Any]
) -> tuple[list[Unit], Collection[Any]]:
    """Divide nipype's graph into units, upstream ones first; also return the nodes that are done.

    ``usual`` are the default resources of nodes. Raises WorkflowError for amounts that cannot be
    read.
    """
    import networkx

    order = list(networkx.lexicographical_topological_sort(graph, lambda node: node.itername))
    done = find_done(graph, order)
    units: list[Unit] = []
    of: dict[Any, Unit] = {}
    twins: dict[str, Unit] = {}
    names = common_names(graph, order)
    before: dict[Any, list[Any]] = {}  # nodes to run at the start of another's unit
    for node in order:
        heads = before.pop(node, [])
        above = chain.from_iterable(graph.pred[one] for one in (*heads, node))
        parents = list(dict.fromkeys(of[one] for one in above if one in of))
        # Two equal values of an iterable make two nodes with one folder.
        twin = twins.get(node.output_dir())
        if twin is not None and all(parent.depth < twin.depth for parent in parents):
            twin.nodes.append(node)
            twin.parents = list(dict.fromkeys((*twin.parents, *parents)))
            of[node] = twin
            continue
        if node.run_without_submitting:
            if (last := _last(parents)) is not None:
                last.nodes += (*heads, node)
                of[node] = last
                continue
            if len(graph.succ[node]) == 1:
                (below,) = graph.succ[node]
                before.setdefault(below, []).extend((*heads, node))
                continue
        count = None if heads else width(node)
        over = None if heads or count is not None else _over(node, graph, of, usual)
        made = list(_make(node, heads, parents, count, over, usual, names))
        units += made
        of[node] = twins[node.output_dir()] = made[-1]
    return units, done


def _last(units: Sequence[Unit]) -> Unit | None:
    """Return the unit that is downstream of all others; None if there is none."""
    if not units:
        return None
    last = max(units, key=lambda unit: unit.depth)
    left = set(units) - {last}
    seen: set[Unit] = set()
    look = list(last.parents)
    while look and left:
        unit = look.pop()
        if unit not in seen:
            seen.add(unit)
            left.discard(unit)
            look += unit.parents
    return None if left else last


def _make(
    node: Any,
    heads: Iterable[Any],
    parents: Sequence[Unit],
    count: int | None,
    over: Listed | None,
    usual: Mapping[str, Any],
    names: Mapping[str, Named],
) -> Iterator[Unit]:
    """Yield the units of one node; the last is the one that others wait for."""
    if count is not None:
        asked = demands(node, usual)
        subs = [Unit(node, [node], asked, parents, names, sub=number) for number in range(count)]
        yield from subs
        yield Unit(node, [node], asked, subs, names)
        return
    if over is not None:
        asked = demands(node, usual)
        mapped = Unit(node, [node], asked, parents, names, over=over)
        yield mapped
        yield Unit(node, [node], asked, [mapped, *parents], names)  # there may be no sub-nodes
        return
    from nipype.pipeline.engine import MapNode

    at_a_time = int(_said(node, usual, "map_procs", 1)) if isinstance(node, MapNode) else 1
    asked = demands(node, usual, at_a_time)
    yield Unit(node, [*heads, node], asked, parents, names, at_a_time=at_a_time)


def _said(node: Any, usual: Mapping[str, Any], word: str, otherwise: Any) -> Any:
    """Return a setting of a node's ``plugin_args``, or of all nodes'."""
    own = node.plugin_args if isinstance(node.plugin_args, Mapping) else {}
    return {**usual, **own}.get(word, otherwise)


def _over(
    node: Any, graph: networkx.DiGraph, of: Mapping[Any, Unit], usual: Mapping[str, Any]
) -> Listed | None:
    """Return the list that a MapNode's sub-nodes are to be tasks over, if they are to be."""
    if not is_spread(node) or not _said(node, usual, "map_tasks", False):
        return None
    found = source(node, [one for one in graph.pred[node] if one in of])
    return found and Listed(of[found[0]], found[1])
