"""How a function travels: which code is the user's own, and how it is pickled for the nodes.

Own code (the workflow's file and its neighbours, ``__main__``) travels by value, so that editing a
file after submission cannot change what a submitted task does. Installed code travels by name.
"""

from __future__ import annotations

import dis
import importlib.util
import io
import marshal
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle

from hpcpipe import worker
from hpcpipe.digest import global_names
from hpcpipe.errors import HpcpipeError, UsageError, WorkflowError

_PLACES = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib")]
_INSTALLED = tuple(f"{Path(p).resolve()}/" for p in (*_PLACES, str(Path(__file__).parent)))

_loading: list[str] = []  # modules whose files `load_file` is in the middle of


class Own:
    """Tells the user's own modules from installed ones; ``folder`` is the workflow file's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._known = {"__main__": True}

    def __call__(self, module: str) -> bool:
        """Tell whether a module's code is the user's own."""
        if module not in self._known:
            source = getattr(sys.modules.get(module), "__file__", None)
            path = Path(source).resolve() if source else Path("/")
            installed = str(path).startswith(_INSTALLED)
            self._known[module] = self._folder in path.parents and not installed
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
    """cloudpickle, with a plain function spelled so that reading it needs no cloudpickle.

    Importing cloudpickle costs a worker more than bare Python does. A top-level function of the
    user's own file needs none of it: its code by `marshal` (same interpreter on both sides, which
    the worker checks) and the globals it names.
    """

    def __init__(self, file: io.BytesIO, own: Own) -> None:
        super().__init__(file, protocol=5)
        self._own = own

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is types.FunctionType and self._own(obj.__module__ or "") and _is_plain(obj):
            names = global_names(obj.__code__)
            kept = {name: obj.__globals__[name] for name in names if name in obj.__globals__}
            state = (kept, obj.__defaults__, obj.__kwdefaults__)
            identity = (marshal.dumps(obj.__code__), obj.__module__, obj.__qualname__)
            # State apart from identity, so that a function may be among its own globals.
            return worker.make_function, identity, state, None, None, worker.fill_function
        return super().reducer_override(obj)


def _is_plain(function: types.FunctionType) -> bool:
    """Tell whether a function has no closure and rebinds no global, here or nested."""
    stack = [function.__code__]
    while stack:
        code = stack.pop()
        if any(step.opname == "STORE_GLOBAL" for step in dis.get_instructions(code)):
            return False
        stack += [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return function.__closure__ is None


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
        culprit = _culprit(function, own)
        raise WorkflowError(
            f"{name}: cannot be sent to a node{culprit}: {error}; "
            "open or make it inside the function, or pass it as an argument that can be pickled"
        ) from error


def _culprit(function: Callable[..., Any], own: Own) -> str:
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    named = [(f"its closure over {name!r}", cell.cell_contents) for name, cell in cells]
    globals_ = function.__globals__
    named += [
        (f"the global {n!r}", globals_[n]) for n in sorted(global_names(code)) if n in globals_
    ]
    for words, value in named:
        try:
            with own.by_value():
                pickle_value(value, own)
        except Exception:
            return f", because of {words} ({type(value).__qualname__})"
    return ""
