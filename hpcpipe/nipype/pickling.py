"""Pickle nipype nodes for tasks: each gets its own nodes, and its item of a MapNode's lists."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from hpcpipe.graph.workflow import Workflow
from hpcpipe.keys.digest import Keyed
from hpcpipe.keys.pickling import Own
from hpcpipe.nipype.cache import identity
from hpcpipe.nipype.mapnodes import items, without_items
from hpcpipe.nipype.tasks import Unit


@dataclass(frozen=True)
class Sealed(Keyed):
    """A value that is pickled twice, so that it is loaded only when the task needs it."""

    make: Callable[[], Any] = field(compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        import cloudpickle

        return bytes, (cloudpickle.dumps(self.make(), 5),)


class Sealer:
    """Pickles units; what several of them need is computed once."""

    def __init__(self) -> None:
        self._known: dict[Any, str] = {}
        self._emptied: dict[Any, Any] = {}

    def seal(self, unit: Unit) -> Sealed:
        """Return a unit's nodes as `hpcpipe.nipype.element.run` takes them."""
        key = ".".join([*map(self._identity, unit.nodes), str(unit.sub)])
        if unit.sub is None:
            return Sealed(key, lambda: [(node, None) for node in unit.nodes])
        return Sealed(key, lambda: [(self._cut(unit.host, unit.sub), unit.sub)])

    def _identity(self, node: Any) -> str:
        if node not in self._known:
            self._known[node] = identity(node)
        return self._known[node]

    def _cut(self, node: Any, number: Any) -> Any:
        """Return a MapNode reduced to one of its items."""
        if node not in self._emptied:
            self._emptied[node] = without_items(node)
        one = deepcopy(self._emptied[node])
        one._inputs.trait_set(**{name: [items(node, name)[number]] for name in node.iterfield})
        return one


def seal_counters(mapped: Mapping[str, Unit | None]) -> Sealed:
    """Return what counts the items of lists that a unit leaves, by the name of each list.

    ``mapped`` has the unit that is mapped over it, if there is one.
    """
    return Sealed(
        ".".join(mapped),
        lambda: {name: one and one.counter() for name, one in mapped.items()},
    )


def own_classes(nodes: Iterable[Any], workflow: Workflow) -> list[type]:
    """Return the user's own classes among interfaces and their input and output specs."""
    own = Own(workflow.source)
    found: dict[type, None] = {}
    for kind in {type(node.interface) for node in nodes}:
        for one in (kind, kind.input_spec, kind.output_spec):
            found |= dict.fromkeys(one.__mro__ if one else ())
    return [cls for cls in found if own(cls.__module__)]


def script_module(workflow: Workflow) -> str:
    """Return the name of the module as which the workflow's file was executed."""
    for name, module in list(sys.modules.items()):
        if workflow.source and getattr(module, "__file__", None) == workflow.source:
            return name
    return "__main__"
