"""Pickle functions for the nodes: the user's own code by value, installed code by name.

The user's own code is all that is neither in the standard library nor in a folder of installed
packages: the workflow's file, its neighbours, a package that is edited in place. Sending it by
value ensures that editing a file after submission cannot change what a submitted task does.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import io
import marshal
import os
import re
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle

from hpcpipe.errors import WorkflowError
from hpcpipe.keys.code import (
    LOOKUPS,
    STORES,
    global_names,
    is_installed,
    module_file,
    named_in,
    submodules,
)
from hpcpipe.worker import unpickle as byvalue

_CACHED = functools._lru_cache_wrapper
_OF_A_MODULE = ("__file__", "__path__", "__package__", "__doc__")
_SENTINELS = {
    type(dataclasses.MISSING): "MISSING",
    type(dataclasses.KW_ONLY): "KW_ONLY",
    dataclasses._FIELD_BASE: "",  # type: ignore[attr-defined]  # has a name
    type(dataclasses._HAS_DEFAULT_FACTORY): "_HAS_DEFAULT_FACTORY",  # type: ignore[attr-defined]
}
# Code with one of these names may look for anything in its module.
_LOOK_AROUND = {"globals", "eval", "exec", "vars", "dir", "modules", "get_type_hints"}
_LOOK_AROUND |= {"import_module", "__dict__"}


class Own:
    """A test for the user's own modules: all but the standard library and what is installed.

    ``script`` is the workflow's file, by default the program's. Where it is run by itself, its
    module is ``__main__``; where it is loaded, another one.
    """

    def __init__(self, script: str | os.PathLike[str] = "") -> None:
        file = script or getattr(sys.modules.get("__main__"), "__file__", None)
        self._script = os.path.realpath(file) if file else ""
        self._known = {"__main__": True, "": False}
        self.can_go: dict[int, tuple[Any, bool]] = {}  # by id: values, and if they can be pickled

    def __call__(self, module: str, /) -> bool:
        """Return whether a module's code is the user's own."""
        if module not in self._known:
            # Resolve links last: hundreds of installed modules are recognised without.
            paths = _sources(module)
            self._known[module] = bool(paths) and not any(
                is_installed(path) or is_installed(path.resolve()) for path in paths
            )
        return self._known[module]

    def name(self, module: str) -> str:
        """Return ``__main__`` for the script's module, whatever it is called here."""
        if self(module) and module != "__main__":
            path = module_file(module)
            return "__main__" if path and os.path.realpath(path) == self._script else module
        return module

    @contextmanager
    def by_value(self) -> Iterator[None]:
        """Make `pickle_value` pickle the classes of the user's modules by value, not by name."""
        names = [name for name in list(sys.modules) if name != "__main__" and self(name)]
        modules = [sys.modules[name] for name in names]
        for module in modules:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in modules:
                cloudpickle.unregister_pickle_by_value(module)


def _sources(module: str) -> list[Path]:
    """Return the Python file of a module, or the folders of a package without ``__init__.py``."""
    path = module_file(module)
    if path is None:
        return [Path(folder) for folder in getattr(sys.modules.get(module), "__path__", ())]
    return [path] if path.suffix == ".py" else []


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle, except that functions and modules can be loaded without it.

    Importing cloudpickle costs a worker more than starting Python. A function of the user's does
    not need it: its code is sent by `marshal` (the worker checks that it is the same interpreter),
    with the globals that it names. On the node, all that comes of one module shares its namespace.
    """

    def __init__(self, file: io.BytesIO, own: Own) -> None:
        super().__init__(file, protocol=5)
        self._own = own

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is types.FunctionType and self._is_at_home(obj):
            return self._function(obj)
        if type(obj) is types.ModuleType and not self._own(obj.__name__):
            if sys.modules.get(obj.__name__) is obj:
                return byvalue.find_module, (obj.__name__,)
        elif type(obj) is types.ModuleType and sys.modules.get(obj.__name__) is obj:
            here = vars(obj)
            state = {name: here[name] for name in here if self._can_go(here, name)}
            return byvalue.own_module, self._module(here), state, None, None, byvalue.fill_module
        elif type(obj) is _CACHED and self._own(obj.__module__):
            said = obj.cache_parameters()
            # By default it is pickled by name, and the node would import the user's file.
            return _CACHED, (obj.__wrapped__, said["maxsize"], said["typed"], functools._CacheInfo)
        elif type(obj) is functools.cached_property:  # before Python 3.12 it has a lock
            return byvalue.make_cached_property, (obj.func, obj.attrname)
        elif type(obj) in _SENTINELS:  # dataclasses compare them by identity
            return getattr, (dataclasses, _SENTINELS[type(obj)] or obj.name)
        reduced = super().reducer_override(obj)
        if isinstance(obj, type) and reduced is not NotImplemented and self._own(obj.__module__):
            return self._class(obj, reduced)
        return reduced

    def _is_at_home(self, function: types.FunctionType) -> bool:
        """Return whether a function's globals are those of one of the user's modules."""
        home = function.__globals__.get("__name__", "")
        module = sys.modules.get(home)
        return self._own(home) and module is not None and vars(module) is function.__globals__

    def _function(self, function: types.FunctionType) -> Any:
        here, code = function.__globals__, function.__code__
        names = {name for kind in (LOOKUPS, STORES) for name in global_names(code, kind)}
        if named_in(code) & _LOOK_AROUND:
            names |= {name for name in here if self._can_go(here, name)}
        kept = {name: here[name] for name in sorted(names) if name in here}
        cells = [byvalue.content(cell) for cell in function.__closure__ or ()]
        hints = {
            name: hint for name, hint in function.__annotations__.items() if isinstance(hint, str)
        }
        attributes = {n: item for n, item in vars(function).items() if n != "__hpcpipe__"}
        below = tuple(submodules(code, kept.values()))
        defaults = function.__defaults__, function.__kwdefaults__
        state = (kept, *defaults, below, cells, hints, attributes)
        said = function.__module__, function.__qualname__, len(cells)
        identity = (marshal.dumps(code), *self._module(here), *said)
        # State is separate from identity, so that a function may be among its own globals.
        return byvalue.make_function, identity, state, None, None, byvalue.fill_function

    def _class(self, cls: type, reduced: Any) -> Any:
        """Have a class put where others of its module find it, with what its hints name."""
        make, arguments, state, *_, fill = reduced
        here = vars(sys.modules[cls.__module__])
        hints = " ".join(str(hint) for hint in vars(cls).get("__annotations__", {}).values())
        names = set(re.findall(r"\w+", hints)) & here.keys()
        beside = {name: here[name] for name in sorted(names) if self._can_go(here, name)}
        module = self._module(here)
        bound = cls.__name__ if here.get(cls.__name__) is cls else ""
        whole = (state, fill, module, bound, beside)
        return make, arguments, whole, None, None, byvalue.fill_class

    def _module(self, here: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return a module's name, and what the import system and pickle look for in it."""
        name = here["__name__"]
        facts = {one: here[one] for one in _OF_A_MODULE if one in here}
        if "__path__" in facts:
            facts["__path__"] = list(facts["__path__"])
        package, _, last = name.rpartition(".")
        around = vars(sys.modules[package]) if package in sys.modules else {}
        if self._own(package) and around.get(last) is sys.modules.get(name):
            facts["__hpcpipe_package__"] = [self._module(around)]
        return name, facts | {"__hpcpipe_script__": self._own.name(name) == "__main__"}

    def _can_go(self, here: dict[str, Any], name: str) -> bool:
        """Return whether what a module calls so can be sent; workflows, for one, stay behind."""
        value = here[name]
        if name.startswith("__") or type(value).__module__.startswith("hpcpipe."):
            return False
        known = self._own.can_go
        if id(value) not in known:
            known[id(value)] = value, True  # while it is being looked at, for what refers to it
            try:
                _Pickler(io.BytesIO(), self._own).dump(value)
            except Exception:
                known[id(value)] = value, False
        return known[id(value)][1]


def pickle_value(value: Any, own: Own) -> bytes:
    """Pickle a value for a task, within `Own.by_value`; raise what pickling it raises."""
    buffer = io.BytesIO()
    _Pickler(buffer, own).dump(value)
    return buffer.getvalue()


def check_callable(function: Callable[..., Any], own: Own) -> None:
    """Raise WorkflowError if a function cannot be pickled, naming the part that cannot be."""
    try:
        with own.by_value():
            pickle_value(function, own)
    except Exception as error:
        name = getattr(function, "__qualname__", repr(function))
        with own.by_value():
            culprit = _culprit(function, own, [])
        raise WorkflowError(
            f"{name}: cannot be sent to a node{culprit}: {error}; "
            "open or make it inside the function, or pass it as an argument that can be pickled"
        ) from error


def _culprit(function: Any, own: Own, above: list[Any]) -> str:
    """Return which part of a function, or of a function that it calls, cannot be pickled."""
    if not isinstance(function, types.FunctionType) or function in above:
        return ""
    code, globals_ = function.__code__, function.__globals__
    named = [
        (f"the default of {name!r}", parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
    ]
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        named.append((f"its closure over {name!r}", cell.cell_contents))
    for name in sorted(global_names(code) & globals_.keys()):
        named.append((f"the global {name!r}", globals_[name]))
    for words, value in named:
        try:
            pickle_value(value, own)
        except Exception:
            deeper = _culprit(value, own, [*above, function])
            return f", because of {words} ({type(value).__qualname__}){deeper}"
    return ""
