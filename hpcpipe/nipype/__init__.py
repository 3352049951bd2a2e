"""nipype workflows, unchanged: ``wf.run(plugin=hpcpipe.nipype.Plugin(site=…))``.

Imports nipype only on use; on a compute node only `hpcpipe.nipype.element` is imported.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hpcpipe.nipype.plugin import Plugin, register

__all__ = ["Plugin", "register"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'hpcpipe.nipype' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("hpcpipe.nipype.plugin"), name)
