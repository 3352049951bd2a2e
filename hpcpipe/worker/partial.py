"""A task that goes on without some of those upstream: which ones, and what it takes instead.

Imported only where a gather allows it. The header of a task file then has ``partial``: ``gathers``
are, by the key of a task, its edges that need not have all, each as its number, how many tasks are
enough, and what those that are to run leave; ``above`` is the node of every task upstream that may
have gone on without some, by its key. What is made from such an outcome lacks the same tasks.
"""

from __future__ import annotations

import os
import time
from _pickle import load

from hpcpipe.worker.outcome import (
    UPSTREAM_FAILED,
    Damaged,
    look_up,
    open_result,
    partial_path,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hpcpipe.worker.task import Element


def look_upstream(element: Element) -> tuple[int, str] | None:
    """Find out what a task can take of those upstream; return why it must not run, or None.

    Of those that a gather may do without, each is waited for as any other is, since a common
    filesystem may show a file late; then the element goes on without it.
    """
    facts = element.header["partial"]
    until = time.monotonic() + element.header["settle"]
    element.missing = []
    for where, batch in element.needs:
        if not _take(element, where, batch, until):
            return UPSTREAM_FAILED, f"upstream failed: no result at {where}"
    for edge, enough, needs in facts["gathers"].get(element.key, ()):
        node, keys = element.above[edge]
        absent = {_key(one) for one, batch in needs if not _take(element, one, batch, until)}
        rest = [keys[at : at + 16] for at in range(0, len(keys), 16)]
        rest = [key for key in rest if key.hex() not in absent]
        if len(rest) < enough:
            words = (
                f"{len(rest)} of {len(keys) // 16} tasks of {node} succeeded, {enough} are needed"
            )
            return UPSTREAM_FAILED, f"too few upstream: {words}"
        element.missing += [(node, key) for key in sorted(absent)]
        element.above = [
            (node, b"".join(rest)) if at == edge else one for at, one in enumerate(element.above)
        ]
    path = partial_path(element.node, element.key, element.batch)
    element.partial = path if element.missing else ""
    return None


def _take(element: Element, where: str, batch: str, until: float) -> bool:
    """Wait for what a task upstream leaves; return whether there is a result."""
    key = _key(where)
    node = element.header["partial"]["above"].get(key)
    instead = partial_path(node, key, batch or element.batch) if node else ""
    where = f"{element.pack}{where}" if where.startswith("#") else where
    while not (state := look_up(where, batch)):
        if instead and os.path.exists(instead):
            try:
                with open_result(instead) as file:
                    lacks = load(file)["missing"]
            except Damaged:
                return False
            element.missing += [one for one in lacks if one not in element.missing]
            element.packed = {**element.packed, key: instead}
            return True
        if state is False or not batch or time.monotonic() > until:
            return False
        os.listdir(os.path.dirname(where))
        time.sleep(0.5)
    if where[-33:-32] == "#":
        element.packed = {**element.packed, key: where}
    return True


def _key(where: str) -> str:
    """Return the key of the task that leaves an outcome somewhere."""
    return where[-32:] if where[-33:-32] == "#" else os.path.basename(where).partition(".")[0]
