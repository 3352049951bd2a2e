"""hpcpipe: workflow graphs compiled into the fewest possible scheduler submissions.

Names are imported when first used: a worker imports this package a thousand times and needs none.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own costs a worker half as much as bare Python
if TYPE_CHECKING:
    from typing import Any

    from hpcpipe.executor import Executor
    from hpcpipe.graphs import from_networkx, from_wfformat
    from hpcpipe.mapped import each
    from hpcpipe.node import Node, Output, task
    from hpcpipe.run import Run
    from hpcpipe.workflow import Workflow

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
    "Executor": "hpcpipe.executor",
    "Node": "hpcpipe.node",
    "Output": "hpcpipe.node",
    "Run": "hpcpipe.run",
    "Workflow": "hpcpipe.workflow",
    "each": "hpcpipe.mapped",
    "from_networkx": "hpcpipe.graphs",
    "from_wfformat": "hpcpipe.graphs",
    "task": "hpcpipe.node",
}
_MODULES = ("spm",)  # that are used as ``hpcpipe.spm.normalize``


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"hpcpipe.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'hpcpipe' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
