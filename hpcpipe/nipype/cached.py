"""Which nodes of nipype are done: its own hashes say so, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import networkx


def find_done(graph: networkx.DiGraph, order: Iterable[Any]) -> set[Any]:
    """Find the nodes that nipype would find cached; ``order`` has upstream ones first.

    A node below one that must run is none of them: its inputs are not known yet.
    """
    done: set[Any] = set()
    for node in order:
        if done.issuperset(graph.pred[node]) and not always_runs(node) and _is_cached(node):
            done.add(node)
    return done


def always_runs(node: Any) -> bool:
    """Tell whether nipype runs a node whatever its hash says."""
    return bool(node.overwrite or (node.overwrite is None and node.interface.always_run))


def _is_cached(node: Any) -> bool:
    try:
        # A copy, since looking loads the inputs into the node.
        return bool(deepcopy(node).is_cached() == (True, True))
    except Exception:  # whatever is the matter with it, the node will meet it when it runs
        return False


def width(node: Any) -> int | None:
    """Count the sub-nodes of a MapNode that may run apart; None if it is to be run as a whole.

    So where its lists come from another node, where nipype wants one sub-node after the other, and
    where collating them would run them all again.
    """
    from nipype.pipeline.engine import MapNode

    if not isinstance(node, MapNode) or node._serial or always_runs(node):
        return None
    if any(field in node.input_source for field in node.iterfield):
        return None
    alone = deepcopy(node)
    alone.input_source = {}  # nothing is to be loaded, and may not be there yet
    try:
        count = int(alone.num_subnodes())
    except Exception:  # the node will say what is wrong when it runs
        return None
    return count if count > 1 else None


def identity(node: Any) -> str:
    """Digest what defines a node before anything has run: nipype's hash of what is set by then."""
    try:
        inputs = node.inputs.get_hashval(hash_method=node.config["execution"]["hash_method"])[1]
    except Exception:  # a file that is not there yet
        inputs = repr(node.inputs.get_traitsfree())
    kind = type(node.interface)
    sources = sorted((field, repr(source)) for field, source in node.input_source.items())
    said = (node.itername, kind.__module__, kind.__qualname__, inputs, sources, node.needed_outputs)
    return blake2b(repr(said).encode(), digest_size=16).hexdigest()
