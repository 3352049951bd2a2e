"""How many sub-nodes a MapNode has: known at once, or once what is upstream has ended."""

from __future__ import annotations

import os
from copy import deepcopy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def items(node: Any, name: str) -> list[Any]:
    """Return the items of one of a MapNode's lists, one for each sub-node."""
    from nipype.interfaces.base import isdefined
    from nipype.utils.filemanip import ensure_list
    from nipype.utils.misc import flatten

    value = getattr(node.inputs, name)
    found = ensure_list(value) if isdefined(value) else []
    return list(flatten(found) if node.nested else found)


def cut(node: Any, number: int) -> None:
    """Reduce a MapNode, whose lists are there, to one of its items."""
    chosen = {name: [items(node, name)[number]] for name in node.iterfield}
    node._inputs.trait_set(**chosen)


def without_items(node: Any) -> Any:
    """Return a copy of a MapNode without its lists."""
    from nipype.interfaces.base import Undefined

    emptied = deepcopy(node)
    emptied._inputs.trait_setq(**dict.fromkeys(node.iterfield, Undefined))
    return emptied


def source(node: Any, above: list[Any]) -> tuple[Any, str] | None:
    """Return the node of those ``above`` that leaves a list of a MapNode, and the list's field."""
    results = {os.path.join(one.output_dir(), f"result_{one.name}.pklz"): one for one in above}
    for field in node.iterfield:
        result, _ = node.input_source.get(field, ("", None))
        if result in results:
            return results[result], field
    return None


def counter(node: Any, field: str) -> Any:
    """Return a copy of a MapNode that takes one list, which is upstream, and nothing else there."""
    one = without_items(node)
    one.input_source = {field: node.input_source[field]}
    return one


def count(one: Any) -> int:
    """Return how many sub-nodes there will be, by a `counter`, once what is upstream has ended.

    By nipype's own reading of the list: its type decides what an item is. Where there is none, the
    MapNode reports it when it runs.
    """
    (field,) = one.input_source
    try:
        one._get_inputs()
        return len(items(one, field))
    except Exception:
        return 0
