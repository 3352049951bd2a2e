"""Nodes that grow: how many tasks they have is known only when a task upstream has returned a list.

A frozen plan keeps of them, as `Growth`, what their columns are made from. `grow` makes these once
the list has a length, without the user's code: a task takes the element of its number, which is its
label; its key is made of that number and of the key upstream, so that it is the same whoever makes
it. What follows such a node grows with it. Where a list is not there yet, the tasks that need it
are left out, and `NodeRecord.awaited` names the node they wait for.

Nodes are joined by the names of their axes; or, as those of nipype, by links between places: a
*place* without its positions on axes that had no length, numbered flat.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple

from hpcpipe.graph.axes import Axis, Edge, listed_edge, make_edge
from hpcpipe.graph.node import Node
from hpcpipe.keys.file_digest import Files, make_again, recipe
from hpcpipe.keys.make_keys import make_keys
from hpcpipe.store.plan import NO_EDGE, Frozen, Growth, GrowthAxis, NodeRecord

Place = tuple[int, ...]
# Of a node and the part of its value that is a list: its length, for each task that has one.
Lengths = Callable[[NodeRecord, tuple[Any, ...]], Mapping[int, int]]


def make_growth(node: Node, shared: bytes, columns: Sequence[Sequence[bytes]]) -> Growth:
    """Keep what the columns of a node are made from, of which some axes have no length yet."""
    axes = [
        GrowthAxis(
            axis.name,
            axis.labels,
            axis.folders,
            [bytes(one) for one in column],
            [recipe(one) for one in column],
            axis.source and (axis.source.node, axis.source.select),
            *((axis.source.at, axis.source.given) if axis.source else ()),
        )
        for axis, column in zip(node.axes, columns, strict=True)
    ]
    edges = [(one.node.name, one.gathered, one.least, one.along) for one in node.upstreams]
    done = sorted(node.done)
    return Growth(axes, edges, bytes(shared), recipe(shared), node.links, done)


def refresh_growth(growth: Growth, files: Files) -> Growth:
    """Make again what depends on input files."""
    shared = make_again(growth.recipe, files)
    axes = []
    for axis in growth.axes:
        column = [make_again(one, files) for one in axis.recipe]
        kept = [bytes(one) for one in column]
        axes.append(axis._replace(column=kept, recipe=[recipe(one) for one in column]))
    return growth._replace(axes=axes, shared=bytes(shared), recipe=recipe(shared))


def grow(plan: Frozen, lengths: Lengths) -> Frozen:
    """Make the columns of nodes that grow, as far as the lengths of lists are known."""
    if not any(node.growth for node in plan.nodes.values()):
        return plan
    grown = _Grown(plan.sweep, lengths)
    for node in plan.nodes.values():
        grown.add(node)
    return plan._replace(nodes=grown.nodes)


class _Shape:
    """The tasks of a node by their places; ``regular``: each combination of places on its axes.

    A hole is a place on some of the axes, below which no task is known yet.
    """

    def __init__(
        self,
        names: Sequence[str],
        sizes: Sequence[int],
        places: Sequence[Place] | None = None,
        holes: Mapping[tuple[str, ...], Collection[Place]] | None = None,
        awaited: Mapping[str, int] | None = None,
    ) -> None:
        self.names, self.sizes, self.regular = tuple(names), sizes, places is None
        self.holes, self.awaited = holes or {}, awaited or {}
        self._places = places

    @cached_property
    def places(self) -> Sequence[Place]:
        """Where each task is, in order."""
        return list(product(*map(range, self.sizes))) if self._places is None else self._places


class _Width(NamedTuple):
    """The lengths of an axis at the places on some axes, where they are known and where not, and
    how many tasks have left one."""

    names: Sequence[str]
    known: Mapping[Place, int]
    unknown: Collection[Place]
    told: int


class _Grown:
    """The nodes of a plan, as far as they have grown."""

    def __init__(self, sweep: int, lengths: Lengths) -> None:
        self.nodes: dict[str, NodeRecord] = {}
        self._sweep, self._lengths = sweep, lengths
        self._shapes: dict[str, _Shape] = {}
        self._known: dict[tuple[str, tuple[Any, ...]], Mapping[Place, int]] = {}

    def add(self, node: NodeRecord) -> None:
        """Add a node, after those upstream."""
        if node.growth is None:
            self.nodes[node.name] = node
            sizes = [len(axis) for axis in node.axes]
            self._shapes[node.name] = _Shape([axis.name for axis in node.axes], sizes)
            return
        shape = self._shapes[node.name] = self._shape(node.growth)
        edges = tuple(
            self._edge(node.growth, shape, upstream, gathered, least)
            for upstream, gathered, least, _ in node.growth.edges
        )
        edges += tuple(self._linked(node.growth, shape, link) for link in node.growth.links)
        axes = _axes(node.growth, shape)
        digests = [
            _digest(node.growth, place, alone=not all(edge.parents(index) for edge in edges))
            for index, place in enumerate(shape.places)
        ]
        keys = make_keys(node.growth.shared, digests, self._sweep, edges, self.nodes)
        self.nodes[node.name] = replace(
            node,
            axes=axes,
            keys=keys,
            edges=edges if keys else (),
            done=_done(node.growth, shape),
            rows=[(0, _row(node.growth, place)) for place in shape.places],
            recipe=self._recipe(node.growth, shape, axes),
            awaited=tuple(shape.awaited.items()),
            picks=list(_picks(node.growth, shape)),
        )

    def _shape(self, growth: Growth) -> _Shape:
        """Work out which tasks a node has."""
        holes: dict[tuple[str, ...], set[Place]] = {}
        awaited: dict[str, int] = {}
        for upstream, gathered, *_ in growth.edges:
            above = self._shapes[upstream]
            awaited |= above.awaited
            for on, places in above.holes.items():
                kept = tuple(name for name in on if name not in gathered)
                at = _positions(on, kept)
                holes.setdefault(kept, set()).update(_part(place, at) for place in places)
        fixed = tuple(axis.name for axis in _fixed(growth))
        for link in growth.links:
            if hidden := self._hidden(growth, link):
                holes.setdefault(fixed, set()).update(hidden)
                awaited |= self._shapes[link.upstream].awaited
        names, sizes, widths = [axis.name for axis in growth.axes], list[int](), list[_Width]()
        for axis in growth.axes:
            if axis.source is None:
                sizes.append(len(axis.labels))
                continue
            widths.append(width := self._width(growth, axis))
            sizes.append(width.known.get((), 0))
            if width.unknown:
                holes.setdefault(tuple(width.names), set()).update(width.unknown)
                awaited[axis.source[0]] = width.told
        if not holes and not any(width.names for width in widths):
            return _Shape(names, sizes)
        return _Shape(names, sizes, self._places(growth, widths, holes), holes, awaited)

    def _width(self, growth: Growth, axis: GrowthAxis) -> _Width:
        """Find the lengths of an axis."""
        assert axis.source is not None
        if not axis.at:
            source, known = self._shapes[axis.source[0]], self._lengths_of(*axis.source)
            return _Width(source.names, known, set(source.places) - known.keys(), len(known))
        node = self.nodes[axis.source[0]]
        found = self._lengths(node, axis.source[1]).items()
        told = {**{_place(node, index): many for index, many in found}, **dict(axis.given)}
        at = dict(zip(_fixed_places(growth), axis.at, strict=True))
        lengths = {place: told[there] for place, there in at.items() if there in told}
        names = [one.name for one in _fixed(growth)]
        return _Width(names, lengths, at.keys() - lengths.keys(), len(told))

    def _hidden(self, growth: Growth, link: Edge) -> list[Place]:
        """List the places that a link joins with one whose tasks are not known yet."""
        above, holes = self.nodes[link.upstream].growth, self._shapes[link.upstream].holes
        if above is None or not holes:
            return []
        names, hidden = [axis.name for axis in _fixed(above)], set[int]()
        for on, some in holes.items():
            at = _positions(names, on)
            hidden |= {
                n for n, place in enumerate(_fixed_places(above)) if _part(place, at) in some
            }
        places = enumerate(_fixed_places(growth))
        return [place for n, place in places if not hidden.isdisjoint(link.parents(n))]

    def _places(
        self,
        growth: Growth,
        widths: Iterable[_Width],
        holes: Mapping[tuple[str, ...], Collection[Place]],
    ) -> list[Place]:
        """List the places of a node's tasks, without those below a hole."""
        names = [axis.name for axis in growth.axes]
        places, lengths = list[Place]([()]), iter(widths)
        for axis in growth.axes:
            if axis.source is None:
                places = [(*place, at) for place in places for at in range(len(axis.labels))]
                continue
            width = next(lengths)
            at = _positions(names, width.names)
            places = [(*p, n) for p in places for n in range(width.known.get(_part(p, at), 0))]
        for on, some in holes.items():
            at = _positions(names, on)
            places = [place for place in places if _part(place, at) not in some]
        return places

    def _lengths_of(self, node: str, select: tuple[Any, ...]) -> Mapping[Place, int]:
        if (node, select) not in self._known:
            places = self._shapes[node].places
            found = self._lengths(self.nodes[node], select)
            self._known[node, select] = {places[index]: many for index, many in found.items()}
        return self._known[node, select]

    def _edge(
        self,
        growth: Growth,
        shape: _Shape,
        upstream: str,
        gathered: Sequence[str],
        least: float | None,
    ) -> Edge:
        """Join a node's tasks with those upstream that agree on all axes that are not gathered."""
        above = self._shapes[upstream]
        if shape.regular and above.regular:
            axes = self.nodes[upstream].axes
            return make_edge(_axes(growth, shape), upstream, axes, gathered, least)
        common = tuple(name for name in above.names if name not in gathered)
        there, here = _positions(above.names, common), _positions(shape.names, common)
        groups: dict[Place, array[int]] = {}
        for index, place in enumerate(above.places):
            groups.setdefault(_part(place, there), array("q")).append(index)
        base, starts = array("q"), array("q", [0])
        for place in shape.places:
            base.extend(groups.get(_part(place, here), ()))
            starts.append(len(base))
        return Edge(upstream, base, (0,), starts, least)

    def _linked(self, growth: Growth, shape: _Shape, link: Edge) -> Edge:
        """Join a node's tasks with all those upstream that the linked places have become."""
        above = self.nodes[link.upstream]
        become: dict[int, list[int]] = {}
        for index in range(len(above)):
            become.setdefault(_place(above, index), []).append(index)
        needed = [
            [index for there in link.parents(n) for index in become.get(there, ())]
            for n in range(len(_fixed_places(growth)))
        ]
        rows = (_row(growth, place) for place in shape.places)
        return listed_edge(link.upstream, [needed[row - 1] for row in rows])

    def _recipe(
        self, growth: Growth, shape: _Shape, axes: Sequence[Axis]
    ) -> tuple[Any, list[list[Any]]] | None:
        """Return how keys are made, as `NodeRecord.recipe` has it, if they depend on files."""
        traced = [growth.recipe, *(one for axis in growth.axes for one in axis.recipe)]
        upstream = [one for one, *_ in growth.edges] + [link.upstream for link in growth.links]
        above = any(self.nodes[one].recipe is not None for one in upstream)
        if not above and all(isinstance(one, bytes) for one in traced):
            return None
        if shape.regular:
            columns = [
                list(axis.recipe) or [b""] * len(made)
                for axis, made in zip(growth.axes, axes, strict=True)
            ]
            return growth.recipe, columns
        return growth.recipe, [[("join", _recipes(growth, place)) for place in shape.places]]


def _fixed(growth: Growth) -> list[GrowthAxis]:
    """Return the axes whose length was always known."""
    return [axis for axis in growth.axes if axis.source is None]


def _fixed_places(growth: Growth) -> list[Place]:
    """List the places on the axes whose length was always known, as links number them."""
    return [*product(*(range(len(axis.labels)) for axis in _fixed(growth)))]


def _place(node: NodeRecord, index: int) -> int:
    """Return the number of a task's place: there is a payload row for each."""
    return node.row(index)[1] - 1


def _done(growth: Growth, shape: _Shape) -> frozenset[int]:
    """Find the tasks known to be done."""
    done = {*growth.done}
    rows = enumerate(_row(growth, place) for place in shape.places) if done else ()
    return frozenset(index for index, row in rows if row - 1 in done)


def _positions(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    return [names.index(name) for name in wanted]


def _part(place: Place, at: Sequence[int]) -> Place:
    return tuple([place[one] for one in at])


def _axes(growth: Growth, shape: _Shape) -> tuple[Axis, ...]:
    """Return a node's axes: its own, or if not every combination is a task, one of all tasks."""
    if shape.regular:
        sized = zip(growth.axes, shape.sizes, strict=True)
        numbers = [axis.labels if axis.source is None else map(str, range(n)) for axis, n in sized]
        named = zip(growth.axes, numbers, strict=True)
        return tuple(Axis(axis.name, tuple(some), tuple(axis.folders)) for axis, some in named)
    if not growth.axes:
        return ()
    texts, folders = [], []
    for place in shape.places:
        ats = [*zip(growth.axes, place, strict=True)]
        texts.append("/".join(str(at) if axis.source else axis.labels[at] for axis, at in ats))
        names = [str(at) if axis.source else (axis.folders or axis.labels)[at] for axis, at in ats]
        rest = [f"{name}-{one}" for name, one in zip(shape.names[1:], names[1:], strict=True)]
        folders.append("_".join([names[0], *rest]))
    return (Axis(shape.names[0], tuple(texts), tuple(folders)),)


def _digest(growth: Growth, place: Place, *, alone: bool) -> bytes:
    """Return what a task's place adds to its key.

    If it gathers nothing, and so is ``alone``, no key upstream may tell it from its siblings: then
    its labels do.
    """
    ats = [*zip(growth.axes, place, strict=True)]
    found = [b"element %d\0" % at if axis.source else axis.column[at] for axis, at in ats]
    names = [axis.labels[at].encode() for axis, at in ats if alone and not axis.source]
    return b"\0".join([b"".join(found), *names])


def _recipes(growth: Growth, place: Place) -> list[Any]:
    found = (a.recipe[at] for a, at in zip(growth.axes, place, strict=True) if not a.source)
    return list(found)


def _row(growth: Growth, place: Place) -> int:
    """Return the payload row of a task: one for all places on axes that had no length."""
    row = 0
    for axis, at in zip(growth.axes, place, strict=True):
        row = row if axis.source else row * len(axis.labels) + at
    return row + 1


def _picks(growth: Growth, shape: _Shape) -> Iterator[tuple[int, array[int]]]:
    """Yield each edge along which tasks take one element of a list, with the number of each; also
    the numbers on an axis that no edge brings."""
    for edge, (*_, along) in enumerate(growth.edges):
        if along is not None:
            at = shape.names.index(along)
            yield edge, array("q", [place[at] for place in shape.places])
    for at, axis in enumerate(growth.axes):
        if axis.at:
            yield NO_EDGE, array("q", [place[at] for place in shape.places])
