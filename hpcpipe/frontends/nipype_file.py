"""Read workflow files, with nothing run: neither workflows of ours nor of nipype.

nipype is not imported for this, but kept from running workflows if the file, or whatever it
imports, imports it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from hpcpipe.frontends.file import load_file
from hpcpipe.graph.loading import Reached, reached, stop_reading
from hpcpipe.nipype.lazy_imports import intercepted

_ENGINE = "nipype.pipeline.engine.workflows"


def read(path: Path) -> tuple[dict[str, Any], Reached | None]:
    """Execute a workflow file up to the point where it would run a workflow.

    Returns what it defines, and where it would have run which workflow. Raises like `load_file`.
    """
    with _no_run():
        defined = vars(load_file(path))
        return defined, reached[0] if reached else None


@contextmanager
def _no_run() -> Iterator[None]:
    """Let nipype's workflows stop the reading of a file where they would run."""
    patched: list[tuple[Any, Any]] = []

    def patch(module: ModuleType) -> None:
        kind = module.Workflow
        patched.append((kind, kind.run))
        kind.run = lambda self, *_, **__: stop_reading(self)

    def patch_once_loaded(spec: ModuleSpec) -> ModuleSpec:
        assert spec.loader
        execute = spec.loader.exec_module

        def execute_and_patch(module: ModuleType) -> None:
            execute(module)
            patch(module)

        spec.loader.exec_module = execute_and_patch  # type: ignore[method-assign]
        return spec

    if _ENGINE in sys.modules:
        patch(sys.modules[_ENGINE])
    try:
        with intercepted({_ENGINE: patch_once_loaded}):
            yield
    finally:
        for kind, run in patched:
            kind.run = run


def is_nipype(value: object) -> bool:
    """Return whether a value is a nipype workflow."""
    engine = sys.modules.get("nipype.pipeline.engine")
    return engine is not None and isinstance(value, engine.Workflow)


def inner(workflow: Any) -> Iterator[Any]:
    """Yield all workflows nested in a nipype workflow."""
    for node in workflow._graph:
        if is_nipype(node):
            yield node
            yield from inner(node)
