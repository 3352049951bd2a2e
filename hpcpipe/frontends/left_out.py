"""Find what a file runs after its first workflow: reading stops there, so it is left out."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpcpipe.frontends.file import line_of
from hpcpipe.graph.loading import Reached

_RUNS = ("run", "submit")
_LOOPS = (ast.For, ast.While)


def left_out(
    path: Path, ran: Reached, defined: Mapping[str, Any], workflows: Mapping[str, Any]
) -> Iterator[str]:
    """Yield a note for each further workflow that a file would run.

    ``defined`` is what the file had defined when its reading stopped; ``workflows`` are those of it
    that are workflows. A name that was not defined by then is taken for one.
    """
    stopped = line_of(ran, path)
    tree = ast.parse(path.read_bytes())
    loops = [node for node in ast.walk(tree) if isinstance(node, _LOOPS)]
    if any(loop.lineno < stopped <= (loop.end_lineno or 0) for loop in loops):
        yield (
            f"{path}:{stopped}: of the workflows of this loop only the first is taken; give each a "
            f"variable of its own before it, and type: hpcpipe submit {path}:VARIABLE"
        )
    for node in ast.walk(tree):
        name = _runs(node)
        if name is None or node.lineno <= stopped or (name in defined) > (name in workflows):  # type: ignore[attr-defined]
            continue
        if workflows.get(name) is ran.workflow:
            continue
        todo = "" if name in workflows else "define it before that line, and "
        yield (
            f"{path}:{node.lineno}: {name} is left out: the file is read up to the first workflow "  # type: ignore[attr-defined]
            f"that it runs, in line {stopped}; to run {name} too, {todo}type: "
            f"hpcpipe submit {path}:{name}"
        )


def _runs(node: ast.AST) -> str | None:
    """Return the name of what a node runs, as in ``name.run()``."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return None
    of = node.func.value
    return of.id if node.func.attr in _RUNS and isinstance(of, ast.Name) else None
