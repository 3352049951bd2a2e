"""Convert nipype's expanded graph to a workflow: similar units become one node, an array."""

from __future__ import annotations

import re
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpcpipe.graph.axes import Axis, Edge
from hpcpipe.graph.each import Each
from hpcpipe.graph.labels import label_of, labels_for
from hpcpipe.graph.node import Node
from hpcpipe.graph.workflow import Workflow
from hpcpipe.nipype import element
from hpcpipe.nipype.pickling import Sealed, Sealer, own_classes, script_module
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
) -> dict[str, list[Unit]]:
    """Add what nipype would run to a workflow; return the units of each node's tasks.

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
    sealer = Sealer()
    place: dict[Unit, tuple[str, int]] = {}
    named: dict[str, list[Unit]] = {}
    for members in sorted(groups.values(), key=lambda members: members[0].depth):
        name = _free(members[0].name, workflow.nodes)
        workflow.nodes[name] = _node(name, members, shared, done, place, sealer)
        named[name] = members
        place.update((unit, (name, at)) for at, unit in enumerate(members))
    return named


def _free(wanted: str, taken: Collection[str]) -> str:
    """Return a unique node name; of a long name, the end is kept, which is more specific."""
    name = wanted[-_LONGEST:].lstrip(".-")
    base = name if re.match(r"[A-Za-z_]", name) else f"_{name}"
    number, free = 1, base
    while free in taken:
        number += 1
        free = f"{base}-{number}"
    return free


def _node(
    name: str,
    members: Sequence[Unit],
    shared: Mapping[str, Any],
    done: Collection[Any],
    place: Mapping[Unit, tuple[str, int]],
    sealer: Sealer,
) -> Node:
    sealed = [sealer.seal(unit) for unit in members]
    axes: tuple[Axis, ...] = ()
    parts: Any = sealed[0]
    if len(members) > 1 or members[0].values:
        labels = labels_for([unit.values for unit in members], _label)
        axes = (Axis("iterables", labels),)
        parts = Each(sealed, axes[0], labels)
    finished = {at for at, unit in enumerate(members) if all(one in done for one in unit.nodes)}
    return Node(
        name,
        element.run,
        {"parts": parts, "at_a_time": members[0].at_a_time, **shared},
        axes,
        members[0].resources,
        folder=False,
        links=tuple(_links(members, place)),
        fuse=True,  # import nipype once for all stages of a subject
        done=frozenset(finished),
    )


def _label(values: Any) -> str:
    """Return a unit's label: its values, of a file only what names the subject."""
    return label_of("_".join(label_of(one) if "/" in one else one for one in values))


def _links(members: Sequence[Unit], place: Mapping[Unit, tuple[str, int]]) -> Iterator[Edge]:
    """Return, for each upstream node, which of its tasks each member waits for."""
    above: dict[str, list[list[int]]] = {}
    for at, unit in enumerate(members):
        for parent in unit.parents:
            name, index = place[parent]
            above.setdefault(name, [[] for _ in members])[at].append(index)
    for name, needed in above.items():
        yield _edge(name, [sorted(indices) for indices in needed])


def _edge(upstream: str, needed: Sequence[Sequence[int]]) -> Edge:
    """Return the edge for these needs: a regular one, which stays exact, if possible."""
    shapes = {tuple(index - indices[0] for index in indices) for indices in needed}
    if len(shapes) == 1 and (offsets := shapes.pop()):
        return Edge(upstream, array("q", [indices[0] for indices in needed]), offsets)
    starts = array("q", [0])
    for indices in needed:
        starts.append(starts[-1] + len(indices))
    return Edge(upstream, array("q", [one for indices in needed for one in indices]), starts=starts)
