"""nipype's expanded graph as units: what one task runs, and which units it waits for.

Most units are one node. A MapNode whose width is known is a unit for each sub-node, and one that
collates. A node that asks to run without submitting joins the unit before it or after it, where it
then waits for nothing that it need not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from hpcpipe.model import Resources
from hpcpipe.nipype.cached import find_done, width
from hpcpipe.nipype.demands import demands

if TYPE_CHECKING:
    import networkx


@dataclass(eq=False)
class Unit:
    """One task: its nodes in the order in which it runs them, or the sub-node of its MapNode.

    It is named after ``host``, one of its nodes. ``depth`` counts the units before it.
    """

    host: Any
    nodes: list[Any]
    resources: Resources
    parents: Sequence[Unit]
    sub: int | None = None
    at_a_time: int = 1

    def __post_init__(self) -> None:
        self.depth: int = max((parent.depth + 1 for parent in self.parents), default=0)

    @property
    def name(self) -> str:
        """Name the node that it is a task of, less the workflow's own name."""
        name = self.host.fullname.partition(".")[2] or self.host.name
        return f"{name}.mapflow" if self.sub is not None else name

    @property
    def label(self) -> str:
        """Tell it apart from other units of its name: the values of its iterables, its sub-node."""
        values = [str(value).removeprefix("_") for value in self.host.parameterization]
        if self.sub is not None:
            values.append(str(self.sub))
        return "_".join(values) or self.host._id.removeprefix(self.host.name).strip(".")

    @property
    def kind(self) -> tuple[Any, ...]:
        """Give what tasks of one node have in common."""
        names = tuple(node.fullname for node in self.nodes)
        return (self.depth, self.name, names, self.resources, self.at_a_time)


def make_units(
    graph: networkx.DiGraph, usual: Mapping[str, Any]
) -> tuple[list[Unit], Collection[Any]]:
    """Divide nipype's graph into units, upstream ones first; also give the nodes that are done.

    ``usual`` is what nodes ask for that do not say. Raises WorkflowError for amounts that cannot
    be read.
    """
    import networkx

    order = list(networkx.lexicographical_topological_sort(graph, lambda node: node.itername))
    done = find_done(graph, order)
    units: list[Unit] = []
    of: dict[Any, Unit] = {}
    twins: dict[str, Unit] = {}
    before: dict[Any, list[Any]] = {}  # nodes to be run at the head of another's unit
    for node in order:
        heads = before.pop(node, [])
        above = chain.from_iterable(graph.pred[one] for one in (*heads, node))
        parents = list(dict.fromkeys(of[one] for one in above if one in of))
        # Two values of an iterable that are the same make two nodes of one folder.
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
        made = list(_make(node, heads, parents, count, usual))
        units += made
        of[node] = twins[node.output_dir()] = made[-1]
    return units, done


def _last(units: Sequence[Unit]) -> Unit | None:
    """Find the unit that all others come before; None where they do not wait for one another."""
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
    usual: Mapping[str, Any],
) -> Iterator[Unit]:
    """Make the units of one node, the one that others wait for last."""
    if count is not None:
        asked = demands(node, usual)
        subs = [Unit(node, [node], asked, parents, sub=number) for number in range(count)]
        yield from subs
        yield Unit(node, [node], asked, subs)
        return
    from nipype.pipeline.engine import MapNode

    own = node.plugin_args if isinstance(node.plugin_args, Mapping) else {}
    at_a_time = int({**usual, **own}.get("map_procs", 1)) if isinstance(node, MapNode) else 1
    yield Unit(node, [*heads, node], demands(node, usual, at_a_time), parents, at_a_time=at_a_time)
