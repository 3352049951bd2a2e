"""Functions that travel by value, on the node's side: made anew without any library's help.

`hpcpipe.functions` pickles a function as calls of `make_function` and `fill_function`.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Applied:
    """A function that takes all of one call as one argument, and the constants beside it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, hpcpipe_call: Any, **constants: Any) -> Any:
        positional, named = hpcpipe_call
        return self.function(*positional, **{**constants, **named})


def make_function(code: bytes, module: str, qualname: str) -> Callable[..., Any]:
    """Make an empty-handed function; `fill_function` gives it its globals and defaults."""
    from marshal import loads as load_code
    from types import FunctionType

    globals_ = {"__builtins__": __builtins__, "__name__": module}
    function = FunctionType(load_code(code), globals_)
    function.__qualname__ = qualname
    function.__module__ = module
    return function


def find_module(name: str) -> Any:
    """Import a module that a function refers to."""
    __import__(name)
    return sys.modules[name]


def fill_function(function: Any, state: tuple[dict[str, Any], Any, Any, Any]) -> None:
    """Give a function of `make_function` what it refers to; the last are modules, now imported."""
    globals_, function.__defaults__, function.__kwdefaults__, _ = state
    function.__globals__.update(globals_)
