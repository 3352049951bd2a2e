"""hpcpipe: workflow graphs compiled into the fewest possible scheduler submissions.

Names are imported on first use: workers import this package thousands of times and need none.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs half as long as starting Python
if TYPE_CHECKING:
    from typing import Any

    from hpcpipe.executor.executor import Executor
    from hpcpipe.frontends.foreign_graphs import from_networkx, from_wfformat
    from hpcpipe.graph.each import each
    from hpcpipe.graph.node import Node, Output, task
    from hpcpipe.graph.workflow import Workflow
    from hpcpipe.run import Run

__version__ = "0.1.0"
__all__ = [
    "Executor",
    "Node",
    "Output",
    "Run",
    "Workflow",
    "each",
    "from_networkx",
    "from_wfformat",
    "task",
]

_HOME = {
    "Executor": "hpcpipe.executor.executor",
    "Node": "hpcpipe.graph.node",
    "Output": "hpcpipe.graph.node",
    "Run": "hpcpipe.run",
    "Workflow": "hpcpipe.graph.workflow",
    "each": "hpcpipe.graph.each",
    "from_networkx": "hpcpipe.frontends.foreign_graphs",
    "from_wfformat": "hpcpipe.frontends.foreign_graphs",
    "task": "hpcpipe.graph.node",
}
_MODULES = ("spm",)  # used as ``hpcpipe.spm.normalize``


def __dir__() -> list[str]:
    return [*globals(), *__all__, *_MODULES]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"hpcpipe.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'hpcpipe' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
