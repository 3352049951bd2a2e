"""The user's code, on the node's side: made anew without any library's help.

`hpcpipe.keys.pickling` pickles a function as calls of `make_function` and `fill_function`. All that
is of one module shares its namespace, and is found there by pickle, by typing, by pools.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Applied:
    """A function that takes all of one call as one argument, and the constants beside it.

    A call is the positional arguments, those by name, and the call's label.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, hpcpipe_call: Any, **constants: Any) -> Any:
        positional, named, _ = hpcpipe_call
        return self.function(*positional, **{**constants, **named})


Module: Any = type(sys)
shipped: dict[str, Any] = {}  # the user's modules, by name
_replaced: list[Any] = []  # kept alive


class Shipped(Module):  # type: ignore[misc]
    """One of the user's modules, of what came along; the rest is read from its file if need be."""

    def __getattr__(self, name: str) -> Any:
        facts = self.__dict__
        if name.startswith("__") or facts["__hpcpipe_script__"] or not facts.get("__file__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        from importlib.util import module_from_spec, spec_from_file_location

        spec: Any = spec_from_file_location(self.__name__, facts["__file__"])
        module = module_from_spec(spec)
        facts["__hpcpipe_script__"] = True  # once is enough
        spec.loader.exec_module(module)
        for key, value in vars(module).items():
            facts.setdefault(key, value)
        return getattr(self, name)


def own_module(name: str, facts: dict[str, Any]) -> Any:
    """Return a module of the user's, made when first asked for: there is one of each name.

    It becomes an attribute of its package, as importing it would make it.
    """
    if name not in shipped:
        shipped[name] = module = Shipped(name)
        module.__dict__.update(facts, __builtins__=__builtins__)  # which pickle's import asks for
        for package in module.__dict__.pop("__hpcpipe_package__", ()):
            vars(own_module(*package)).setdefault(name.rpartition(".")[2], module)
        if name in sys.modules:
            _replaced.append(sys.modules[name])
        sys.modules[name] = module
    return shipped[name]


def fill_module(module: Any, content: dict[str, Any]) -> None:
    """Add to a module what it does not have yet."""
    for name, value in content.items():
        vars(module).setdefault(name, value)


def make_function(
    code: bytes, home: str, facts: dict[str, Any], module: str, qualname: str, cells: int
) -> Callable[..., Any]:
    """Make a bare function of a module; `fill_function` sets what it refers to."""
    from marshal import loads as load_code
    from types import CellType, FunctionType

    globals_ = vars(own_module(home, facts))
    made = FunctionType(
        load_code(code), globals_, closure=tuple(CellType() for _ in range(cells)) or None
    )
    known = globals_.get(qualname)
    if not cells and type(known) is FunctionType and known.__code__ == made.__code__:
        return known
    made.__qualname__ = qualname
    made.__module__ = module
    if "." not in qualname and module == home:
        globals_.setdefault(qualname, made)
    return made


def fill_function(function: Any, state: tuple[Any, ...]) -> None:
    """Set what a function of `make_function` refers to; the fourth are modules, now imported."""
    kept, function.__defaults__, function.__kwdefaults__, _, cells, hints, attributes = state
    for name, value in kept.items():
        function.__globals__.setdefault(name, value)
    for cell, content in zip(function.__closure__ or (), cells):  # noqa: B905  Python 3.9
        if content:
            (cell.cell_contents,) = content
    function.__annotations__.update(hints)
    vars(function).update(attributes)


def content(cell: Any) -> tuple[Any, ...]:
    """Return what is in a cell, or nothing where it is still empty."""
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def fill_class(cls: Any, state: tuple[Any, ...]) -> None:
    """Set what a class has, and bind it and what its hints name in its module."""
    inner, fill, (name, facts), bound, beside = state
    module = own_module(name, facts)
    if bound:
        vars(module).setdefault(bound, cls)
    fill(cls, inner)
    fill_module(module, beside)


def make_cached_property(function: Any, name: str) -> Any:
    """Make a cached property that knows its name, as a class tells it when it is defined."""
    from functools import cached_property

    made = cached_property(function)
    made.attrname = name
    return made


def find_module(name: str) -> Any:
    """Import a module that a function refers to."""
    __import__(name)
    return sys.modules[name]
