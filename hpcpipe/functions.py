"""How a function travels: which code is the user's own, and how it is pickled for the nodes.

Own code (the workflow's file and its neighbours, ``__main__``) travels by value, so that editing a
file after submission cannot change what a submitted task does. Installed code travels by name.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import io
import marshal
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle

from hpcpipe import byvalue
from hpcpipe.digest import ATTRIBUTES, STORES, global_names, module_file
from hpcpipe.errors import HpcpipeError, UsageError, WorkflowError

_PLACES = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib")]
_INSTALLED = tuple(f"{Path(p).resolve()}/" for p in (*_PLACES, str(Path(__file__).parent)))
_PACKAGES = {"site-packages", "dist-packages"}  # also below the user's folder: ~/.local, an env
_CACHED = functools._lru_cache_wrapper

_loading: list[str] = []  # modules whose files `load_file` is in the middle of


class Reached(BaseException):
    """Raised where a file would run its workflow, while it is only read: it ends there."""


class Own:
    """Tells the user's own modules from installed ones; ``folder`` is the workflow file's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._known = {"__main__": True}

    def __call__(self, module: str) -> bool:
        """Tell whether a module's code is the user's own."""
        if module not in self._known:
            path = module_file(module)
            # Links are followed last, since hundreds of installed modules are told without.
            self._known[module] = (
                path is not None
                and not is_installed(path)
                and self._folder in path.resolve().parents
                and not is_installed(path.resolve())
            )
        return self._known[module]

    @contextmanager
    def by_value(self) -> Iterator[None]:
        """Have `pickle_value` pickle the classes of own modules by value, not by name."""
        names = [name for name in list(sys.modules) if name != "__main__" and self(name)]
        modules = [sys.modules[name] for name in names]
        for module in modules:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in modules:
                cloudpickle.unregister_pickle_by_value(module)


def is_installed(path: Path) -> bool:
    """Tell whether a file is of a library, not of the user."""
    return str(path).startswith(_INSTALLED) or not _PACKAGES.isdisjoint(path.parts)


def load_file(path: Path) -> types.ModuleType:
    """Execute a workflow file as a module named by its stem, its folder first on ``sys.path``.

    Raises UsageError where it is no file, WorkflowError naming the line where it fails.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; name a workflow file, for example normalize.py")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = path.stem if path.stem not in sys.modules else f"workflow_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: not a Python file; its name should end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _loading.append(name)
    try:
        spec.loader.exec_module(module)
    except Reached:
        pass
    except HpcpipeError as error:
        raise type(error)(f"{path}:{_line(error, path)}: {error}") from error
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise WorkflowError(f"{path}:{_line(error, path)}: {said}") from error
    finally:
        _loading.remove(name)
    return module


def is_loading() -> bool:
    """Tell whether a workflow file is being read, so that nothing in it may submit."""
    return bool(_loading)


def _line(error: BaseException, path: Path) -> int:
    """Find the line of the user's file that an error came through."""
    trace, line = error.__traceback__, getattr(error, "lineno", None) or 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path.absolute()):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle, with plain functions and modules spelled so that reading needs no cloudpickle.

    Importing cloudpickle costs a worker more than bare Python does. A top-level function of the
    user's own file needs none of it: its code by `marshal` (same interpreter on both sides, which
    the worker checks) and the globals it names.
    """

    def __init__(self, file: io.BytesIO, own: Own) -> None:
        super().__init__(file, protocol=5)
        self._own = own
        self._rebound: dict[int, set[str]] = {}

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is types.FunctionType and self._own(obj.__module__ or ""):
            names = global_names(obj.__code__) | global_names(obj.__code__, STORES)
            if self._is_plain(obj, names):
                kept = {name: obj.__globals__[name] for name in names if name in obj.__globals__}
                submodules = tuple(_submodules(obj.__code__, kept.values()))
                state = (kept, obj.__defaults__, obj.__kwdefaults__, submodules)
                identity = (marshal.dumps(obj.__code__), obj.__module__, obj.__qualname__)
                # State apart from identity, so that a function may be among its own globals.
                return byvalue.make_function, identity, state, None, None, byvalue.fill_function
        elif type(obj) is types.ModuleType and not self._own(obj.__name__):
            if sys.modules.get(obj.__name__) is obj:
                return byvalue.find_module, (obj.__name__,)
        elif type(obj) is _CACHED and self._own(obj.__module__):
            said = obj.cache_parameters()
            # By itself it is pickled by name, and the user's file would be imported on the node.
            return _CACHED, (obj.__wrapped__, said["maxsize"], said["typed"], functools._CacheInfo)
        return super().reducer_override(obj)

    def _is_plain(self, function: types.FunctionType, names: set[str]) -> bool:
        """Tell whether all that a function needs are its code, its defaults and these globals.

        Not if it has a closure or attributes, nor if a function of the same file rebinds one of
        the globals: the two must then share one namespace, which cloudpickle sees to.
        """
        here = function.__globals__
        if id(here) not in self._rebound:
            self._rebound[id(here)] = {
                n for code in _codes(here) for n in global_names(code, STORES)
            }
        rebound = self._rebound[id(here)] | global_names(function.__code__, STORES)
        bare = function.__closure__ is None and function.__dict__.keys() <= {"__hpcpipe__"}
        return bare and rebound.isdisjoint(names)


def _codes(globals_: dict[str, Any]) -> Iterator[types.CodeType]:
    """Find the code of a file's functions and methods, decorated ones too."""
    classes = [item for item in globals_.values() if isinstance(item, type)]
    methods = [getattr(item, "__func__", item) for cls in classes for item in vars(cls).values()]
    for item in (*globals_.values(), *methods):
        if isinstance(item, types.FunctionType | _CACHED):
            function = inspect.unwrap(item)
            if isinstance(function, types.FunctionType) and function.__globals__ is globals_:
                yield function.__code__


def _submodules(code: types.CodeType, values: Iterable[Any]) -> Iterator[types.ModuleType]:
    """Find what else must be imported: ``xml.dom`` where code has ``xml`` and says ``xml.dom``."""
    prefixes = [f"{module.__name__}." for module in values if isinstance(module, types.ModuleType)]
    attributes = global_names(code, ATTRIBUTES) if prefixes else set()
    for name, module in list(sys.modules.items()):
        for prefix in prefixes:
            below = name.removeprefix(prefix)
            if below != name and attributes.issuperset(below.split(".")):
                yield module


def pickle_value(value: Any, own: Own) -> bytes:
    """Pickle a value for a task, within `Own.by_value`; raises what pickling it raises."""
    buffer = io.BytesIO()
    _Pickler(buffer, own).dump(value)
    return buffer.getvalue()


def check_callable(function: Callable[..., Any], own: Own) -> None:
    """Raise WorkflowError saying which part of a function cannot travel, and what to write."""
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
    """Name what cannot be pickled of a function, or of a function that it calls."""
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
