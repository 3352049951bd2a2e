"""nipype's expanded graph as a workflow of hpcpipe: units alike become one node, an array."""

from __future__ import annotations

import re
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpcpipe.axes import Axis, Edge
from hpcpipe.labels import labels_for
from hpcpipe.mapped import Each
from hpcpipe.nipype import element
from hpcpipe.nipype.sealing import Sealed, Sealer, own_classes, script_module
from hpcpipe.nipype.units import Unit, make_units
from hpcpipe.node import Node
from hpcpipe.workflow import Workflow

if TYPE_CHECKING:
    import networkx

_LONGEST = 56  # of a node's name, so that a number may follow


def fill(
    workflow: Workflow,
    graph: networkx.DiGraph,
    *,
    updatehash: bool,
    usual: Mapping[str, Any],
    stop: str,
) -> dict[str, list[Unit]]:
    """Fill a workflow with what nipype would run; give the units that the tasks of a node are.

    ``usual`` is what nodes ask for that do not say; ``stop`` the file that is to tell of the first
    crash, or empty.
    """
    units, done = make_units(graph, usual)
    groups: dict[tuple[Any, ...], list[Unit]] = {}
    for unit in units:
        groups.setdefault(unit.kind, []).append(unit)
    shared = {
        "classes": Sealed("classes", lambda: own_classes(graph, workflow)),
        "script": script_module(workflow),
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
    """Make a node's name; of one too long the end tells more. A number tells apart doubles."""
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
    if len(members) > 1 or members[0].label:
        labels = labels_for([unit.label for unit in members])
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
        fuse=True,  # so that nipype is imported once for all stages of a subject
        done=frozenset(finished),
    )


def _links(members: Sequence[Unit], place: Mapping[Unit, tuple[str, int]]) -> Iterator[Edge]:
    """Say, for every node above, which of its tasks each member waits for."""
    above: dict[str, list[list[int]]] = {}
    for at, unit in enumerate(members):
        for parent in unit.parents:
            name, index = place[parent]
            above.setdefault(name, [[] for _ in members])[at].append(index)
    for name, needed in above.items():
        yield _edge(name, [sorted(indices) for indices in needed])


def _edge(upstream: str, needed: Sequence[Sequence[int]]) -> Edge:
    """Make the edge of these needs: a regular one, which can be kept exactly, where they are."""
    shapes = {tuple(index - indices[0] for index in indices) for indices in needed}
    if len(shapes) == 1 and (offsets := shapes.pop()):
        return Edge(upstream, array("q", [indices[0] for indices in needed]), offsets)
    starts = array("q", [0])
    for indices in needed:
        starts.append(starts[-1] + len(indices))
    return Edge(upstream, array("q", [one for indices in needed for one in indices]), starts=starts)
