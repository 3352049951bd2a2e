"""Objects of other packages that can be nodes, and the functions that convert them to calls.

The graph depends on no other package: an attribute marks an object that is not a plain function and
selects its converter, which is imported when the first such object is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

MAKERS = {"input_spec": "hpcpipe.nipype.interfaces:make_call"}  # an interface of nipype


def maker(attribute: str) -> Callable[..., Any]:
    """Import the function that converts objects with this attribute to calls."""
    module, _, name = MAKERS[attribute].partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function
