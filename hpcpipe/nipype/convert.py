"""Convert nipype's expanded graph to a workflow: similar units become one node, an array."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpcpipe.graph.axes import Axis, Edge, Source, listed_edge
from hpcpipe.graph.each import Each
from hpcpipe.graph.labels import label_of, labels_for
from hpcpipe.graph.node import Node
from hpcpipe.graph.workflow import Workflow
from hpcpipe.keys.references import Number
from hpcpipe.nipype import element
from hpcpipe.nipype.mapnodes import count
from hpcpipe.nipype.pickling import Sealed, Sealer, own_classes, script_module, seal_counters
from hpcpipe.nipype.tasks import Unit, make_units

if TYPE_CHECKING:
    import networkx

_LONGEST = 56  # length of a node's name, which leaves room for a number


def fill(
    workflow: Workflow,
    graph: networkx.DiGraph,
    *,
    updatehash: bool,
    usual: Mapping[str, Any],
    stop: str,
) -> dict[str, dict[str, Unit]]:
    """Add what nipype would run to a workflow; return the units of each node's tasks, by label.

    ``usual`` are the default resources of nodes; ``stop`` names the file that records the first
    crash, or is empty.
    """
    units, done = make_units(graph, usual)
    groups: dict[tuple[Any, ...], list[Unit]] = {}
    for unit in units:
        groups.setdefault(unit.kind, []).append(unit)
    shared = {
        "classes": Sealed("classes", lambda: own_classes(graph, workflow)),
        "script": Sealed("script", lambda: script_module(workflow)),
        "updatehash": updatehash,
        "stop": Sealed("stop", lambda: stop),
    }
    maker = _Maker(workflow.nodes, shared, done, [unit for unit in units if unit.over])
    for members in sorted(groups.values(), key=lambda members: members[0].depth):
        maker.add(members)
    return maker.named


def _free(wanted: str, taken: Collection[str]) -> str:
    """Return a unique node name; of a long name, the end is kept, which is more specific."""
    name = wanted[-_LONGEST:].lstrip(".-")
    base = name if re.match(r"[A-Za-z_]", name) else f"_{name}"
    number, free = 1, base
    while free in taken:
        number += 1
        free = f"{base}-{number}"
    return free


def _label(values: Any) -> str:
    """Return a unit's label: its values, of a file only what names the subject."""
    return label_of("_".join(label_of(one) if "/" in one else one for one in values))


class _Maker:
    """Makes nodes of units: upstream ones first, those that differ only in iterables at once."""

    def __init__(
        self,
        nodes: dict[str, Node],
        shared: Mapping[str, Any],
        done: Collection[Any],
        units: Iterable[Unit],
    ) -> None:
        self._nodes, self._shared, self._done = nodes, shared, done
        self._sealer = Sealer()
        self._place: dict[Unit, tuple[str, int]] = {}
        self.named: dict[str, dict[str, Unit]] = {}  # the units of each node, by label
        self._mapped: dict[Unit, dict[str, Unit]] = {}  # over lists of a unit, by what they select
        for unit in units:
            if unit.over:
                self._mapped.setdefault(unit.over.unit, {})[unit.select] = unit

    def add(self, members: Sequence[Unit]) -> None:
        """Add a node for units of one kind."""
        name = _free(members[0].name, self._nodes)
        sealed = self._sealed(members)
        axes: tuple[Axis, ...] = ()
        labels: tuple[str, ...] = ("",)
        own: dict[str, Any] = {argument: values[0] for argument, values in sealed.items()}
        if len(members) > 1 or members[0].values:
            labels = labels_for([unit.values for unit in members], _label)
            axes = (Axis("iterables", labels),)
            own = {one: Each(values, axes[0], labels) for one, values in sealed.items()}
        if members[0].over:
            axes += (Axis("sub-node", (), (), self._source(members)),)
            own["number"] = Number()
        links = tuple(self._links(members))
        self._nodes[name] = Node(
            name,
            element.run,
            {**own, "at_a_time": members[0].at_a_time, **self._shared},
            axes,
            members[0].resources,
            folder=False,
            links=links,
            fuse=True,  # import nipype once for all stages of a subject
            done=frozenset(at for at, unit in enumerate(members) if self._is_done(unit)),
            grows=members[0].over is not None
            or any(self._nodes[link.upstream].grows for link in links),
        )
        self.named[name] = dict(zip(labels, members, strict=True))
        self._place.update((unit, (name, at)) for at, unit in enumerate(members))

    def _sealed(self, members: Sequence[Unit]) -> dict[str, list[Sealed]]:
        """Return the arguments that differ between units of one kind."""
        sealed = {"parts": [self._sealer.seal(one) for one in members]}
        lists = sorted({select for unit in members for select in self._mapped.get(unit, ())})
        if lists:
            sealed["counters"] = [seal_counters(self._taken(one, lists)) for one in members]
        return sealed

    def _is_done(self, unit: Unit) -> bool:
        return all(one in self._done for one in unit.nodes)

    def _taken(self, unit: Unit, lists: Iterable[str]) -> dict[str, Unit | None]:
        """Return, for each list that such units return, the unit mapped over this one's, if any."""
        return {select: self._mapped.get(unit, {}).get(select) for select in lists}

    def _source(self, members: Sequence[Unit]) -> Source:
        """Return the lists over which units are mapped; nipype may have made some already."""
        assert members[0].over is not None
        name, _ = self._place[members[0].over.unit]
        select = members[0].select
        given = []
        for at, unit in enumerate(self.named[name].values()):
            if self._is_done(unit):
                mapped = self._taken(unit, [select])[select]
                given.append((at, count(mapped.counter()) if mapped else 0))
        places = tuple(self._place[one.over.unit][1] for one in members if one.over)
        return Source(name, (select,), (), places, tuple(given))

    def _links(self, members: Sequence[Unit]) -> Iterator[Edge]:
        """Return, for each upstream node, which of its tasks each member waits for."""
        above: dict[str, list[list[int]]] = {}
        for at, unit in enumerate(members):
            for parent in unit.parents:
                name, index = self._place[parent]
                above.setdefault(name, [[] for _ in members])[at].append(index)
        for name, needed in above.items():
            yield listed_edge(name, [sorted(indices) for indices in needed])
