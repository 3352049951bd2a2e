"""Which nipype nodes are done: nipype's own hashes alone decide."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import networkx


def find_done(graph: networkx.DiGraph, order: Iterable[Any]) -> set[Any]:
    """Return the nodes that nipype would find cached; ``order`` has upstream ones first.

    A node below one that must run is never cached: its inputs are not known yet.
    """
    done: set[Any] = set()
    for node in order:
        if done.issuperset(graph.pred[node]) and not always_runs(node) and _is_cached(node):
            done.add(node)
    return done


def always_runs(node: Any) -> bool:
    """Return whether nipype runs a node regardless of its hash."""
    return bool(node.overwrite or (node.overwrite is None and node.interface.always_run))


def _is_cached(node: Any) -> bool:
    try:
        # A copy, because the check loads the inputs into the node.
        return bool(deepcopy(node).is_cached() == (True, True))
    except Exception:  # whatever is wrong, the node will report it when it runs
        return False


def is_spread(node: Any) -> bool:
    """Return whether the sub-nodes of a MapNode may run separately.

    It must run whole if nipype runs its sub-nodes serially, or if collating them would run them all
    again.
    """
    from nipype.pipeline.engine import MapNode

    return isinstance(node, MapNode) and not node._serial and not always_runs(node)


def width(node: Any) -> int | None:
    """Return how many sub-nodes of a MapNode may run separately; None if it must run whole, or if
    its lists come from another node.
    """
    if not is_spread(node) or any(field in node.input_source for field in node.iterfield):
        return None
    alone = deepcopy(node)
    alone.input_source = {}  # load nothing: it may not exist yet
    try:
        count = int(alone.num_subnodes())
    except Exception:  # the node will report it when it runs
        return None
    return count if count > 1 else None


def identity(node: Any) -> str:
    """Return a digest of a node before anything has run: nipype's hash of the inputs set so far."""
    try:
        inputs = node.inputs.get_hashval(hash_method=node.config["execution"]["hash_method"])[1]
    except Exception:  # a file that does not exist yet
        inputs = repr(node.inputs.get_traitsfree())
    kind = type(node.interface)
    sources = sorted((field, repr(source)) for field, source in node.input_source.items())
    # Not the iteration's number, which changes when an iterable gets one more value before.
    name = (node.fullname, node.parameterization) if node.parameterization else node.itername
    said = (name, kind.__module__, kind.__qualname__, inputs, sources, node.needed_outputs)
    return blake2b(repr(said).encode(), digest_size=16).hexdigest()
