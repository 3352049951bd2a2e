"""Reads files that define workflows of nipype; imports nipype only where a file speaks of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpcpipe.functions import Reached, load_file


def read(path: Path) -> tuple[dict[str, Any], list[Any]]:
    """Execute a workflow file, up to where it would run a workflow of nipype.

    Gives what it defines, and the workflow it would have run. Raises as `load_file`.
    """
    with _no_run(path) as ran:
        return vars(load_file(path)), ran


@contextmanager
def _no_run(path: Path) -> Iterator[list[Any]]:
    ran: list[Any] = []
    if not path.is_file() or b"nipype" not in path.read_bytes():
        yield ran
        return
    from nipype.pipeline.engine import Workflow

    def run(self: Any, *_: Any, **__: Any) -> None:
        ran.append(self)
        raise Reached

    before, Workflow.run = Workflow.run, run
    try:
        yield ran
    finally:
        Workflow.run = before


def is_nipype(value: object) -> bool:
    """Tell a workflow of nipype."""
    engine = sys.modules.get("nipype.pipeline.engine")
    return engine is not None and isinstance(value, engine.Workflow)


def inner(workflow: Any) -> Iterator[Any]:
    """Give all workflows within a workflow of nipype."""
    for node in workflow._graph:
        if is_nipype(node):
            yield node
            yield from inner(node)
