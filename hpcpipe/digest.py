"""What makes two values the same: canonical digests of Python values, files and code.

A task's key is built from these, so they must not vary between runs, hash seeds, or the order in
which a set was filled. Pickles do vary (with sharing, interning, sets), hence this walk. Where it
cannot be exact it errs towards running again: better a late result than a stale one.
"""

from __future__ import annotations

import dis
import enum
import functools
import os
import sys
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib.machinery import PathFinder
from operator import itemgetter
from pathlib import Path, PurePath
from typing import Any

from hpcpipe.errors import WorkflowError
from hpcpipe.files import Files, combine

LOOKUPS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
STORES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})
IMPORTS = frozenset({"IMPORT_NAME", "IMPORT_FROM"})

# What a class has that says nothing of what it does, or says it anew in every process.
_NO_CONTENT = {"__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__"}
_NO_CONTENT |= {"__static_attributes__", "__annotations_cache__", "_abc_impl"}
_WRAPPERS = (staticmethod, classmethod, functools._lru_cache_wrapper)


@dataclass(frozen=True)
class Keyed:
    """A value that says by its ``key`` what it is equal to; nothing else of it is digested."""

    key: str


class Digests:
    """Digests of values: equal values give equal digests, in every process of this Python.

    A `Path` stands for the file it names. ``is_own`` tells which modules are the user's own, so
    that their code counts and not just their name.
    """

    def __init__(self, files: Files, is_own: Callable[[str], bool]) -> None:
        self.files = files
        self._is_own = is_own
        self._inside: dict[int | str, int] = {}  # what the walk is within, for recursion
        self._seen: dict[int | str, tuple[int, Any]] = {}  # code met before, by id or module name

    def digest(self, value: Any) -> bytes:
        """Digest one value; raises WorkflowError where it can neither be walked nor pickled."""
        kind = type(value)
        if kind in (bool, int, float, complex, type(None), str, bytes):
            return combine(kind.__name__.encode(), _plain(value))
        if isinstance(value, Path):
            return combine(b"path", os.fsencode(value.name), self.files.digest(value))
        if not self._inside:
            self._seen = {}
        if isinstance(value, types.FunctionType):
            return self._once(id(value), value, self._function)
        if isinstance(value, type):
            return self._once(id(value), value, self._class)
        if isinstance(value, types.ModuleType):
            return self._once(value.__name__, value.__name__, self._module)
        if id(value) in self._inside:
            return combine(b"recursion", str(self._inside[id(value)]).encode())
        self._inside[id(value)] = len(self._inside)
        try:
            return self._compound(value, kind)
        finally:
            del self._inside[id(value)]

    def _once(self, key: int | str, code: Any, walk: Callable[[Any], bytes]) -> bytes:
        """Digest a function, class or module where it is met first; later, say which it was.

        Else functions that all call each other would take forever.
        """
        if key in self._seen:
            return combine(b"seen", str(self._seen[key][0]).encode())
        self._seen[key] = len(self._seen), code
        self._inside[key] = len(self._inside)
        try:
            return walk(code)
        finally:
            del self._inside[key]

    def _alone(self, value: Any) -> bytes:
        """Digest a value as if nothing were met before: for what has no order."""
        seen, self._seen = self._seen, {}
        try:
            return self.digest(value)
        finally:
            self._seen = seen

    def _compound(self, value: Any, kind: type) -> bytes:
        name = kind.__name__.encode()
        if kind in (list, tuple):
            return combine(name, *map(self.digest, value))
        if kind in (set, frozenset):
            return combine(name, *sorted(map(self._alone, value)))
        if kind is dict:
            pairs = sorted(
                ((self._alone(key), item) for key, item in value.items()), key=itemgetter(0)
            )
            return combine(name, *(key + self.digest(item) for key, item in pairs))
        if isinstance(value, enum.Enum):
            return combine(b"enum", _name(kind), str(value.name).encode(), self.digest(value.value))
        if isinstance(value, PurePath):
            return combine(b"purepath", os.fsencode(value))
        if isinstance(value, types.MethodType):
            return combine(b"method", self.digest(value.__func__), self.digest(value.__self__))
        if isinstance(value, types.CodeType):
            return self._code(value)
        if isinstance(value, _WRAPPERS):
            return combine(name, self.digest(value.__wrapped__))
        if isinstance(value, property):
            return combine(name, *map(self.digest, (value.fget, value.fset, value.fdel)))
        if isinstance(value, functools.cached_property):
            return combine(name, self.digest(value.func))
        if isinstance(value, Keyed):
            return combine(b"keyed", value.key.encode())
        if is_dataclass(value):
            state = {field.name: getattr(value, field.name) for field in fields(value)}
            return combine(b"dataclass", self.digest(kind), self.digest(state))
        return self._taken_apart(value)

    def _function(self, function: types.FunctionType) -> bytes:
        where = function.__module__ or ""
        if not self._is_own(where):
            return combine(b"installed", _name(function), _version(where))
        code = function.__code__
        globals_ = {
            name: function.__globals__[name]
            for name in global_names(code)
            if name in function.__globals__
        }
        cells = [_cell(cell) for cell in function.__closure__ or ()]
        parts = (function.__defaults__, function.__kwdefaults__, cells, globals_)
        imports = self._imports(code, where)
        return combine(b"function", self._code(code), *map(self.digest, parts), *imports)

    def _code(self, code: types.CodeType) -> bytes:
        # Neither file name nor line numbers: a comment added above must run nothing again.
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        walked = map(self.digest, (code.co_consts, *names, shape))
        return combine(b"code", code.co_code, code.co_exceptiontable, *walked)

    def _module(self, name: str) -> bytes:
        """Digest an own module by its source, and the own modules it imports likewise."""
        path = module_file(name)
        if not self._is_own(name) or path is None or path.suffix != ".py":
            return combine(b"installed", name.encode(), _version(name))
        source = path.read_bytes()
        try:
            code = compile(source, path, "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            raise WorkflowError(f"{path}: {error}") from error
        return combine(b"module", name.encode(), source, *self._imports(code, name))

    def _imports(self, code: types.CodeType, where: str) -> list[bytes]:
        """Digest the own modules that code imports when it runs, perhaps from its own package."""
        names = global_names(code, IMPORTS)
        packages = ("", f"{where.rpartition('.')[0]}.", f"{where}.")
        tops = {top for p in packages for n in names if self._is_own(top := (p + n).lstrip("."))}
        below = {one for top in tops for n in names if self._is_own(one := f"{top}.{n}")}
        return [self._once(name, name, self._module) for name in sorted(tops | below)]

    def _class(self, cls: type) -> bytes:
        if not self._is_own(cls.__module__):
            return combine(b"installed", _name(cls), _version(cls.__module__))
        members = (
            name.encode() + self._member(item)
            for name, item in sorted(vars(cls).items())
            if name not in _NO_CONTENT
        )
        return combine(b"class", _name(cls), *map(self.digest, cls.__bases__), *members)

    def _member(self, item: Any) -> bytes:
        try:
            return self.digest(item)
        except WorkflowError:  # made by C, or a lock: it says nothing of what the class does
            return b""

    def _taken_apart(self, value: Any) -> bytes:
        """Digest what pickle would make a value from again."""
        import cloudpickle

        kind = type(value)
        reduce = cloudpickle.Pickler.dispatch_table.get(kind)
        try:
            reduced = reduce(value) if reduce else value.__reduce_ex__(4)
        except Exception as error:
            raise WorkflowError(
                f"a {kind.__qualname__} cannot be pickled to reach a task: {error}"
            ) from error
        if isinstance(reduced, str):
            return combine(b"named", _name(kind), _name(value), reduced.encode())
        make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        parts = (make, arguments, state, list(items or ()), list(pairs or ()))
        return combine(b"made", *map(self.digest, parts))


def _plain(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return repr(value).encode()


def _name(thing: Any) -> bytes:
    module = getattr(thing, "__module__", None) or ""
    return f"{module}:{getattr(thing, '__qualname__', '')}".encode()


def module_file(name: str) -> Path | None:
    """Find the file of a module, imported or not; None where it has none."""
    if name in sys.modules:
        file = getattr(sys.modules[name], "__file__", None)
        return Path(file) if file else None
    parent = module_file(name.rpartition(".")[0]) if "." in name else None
    spec = PathFinder.find_spec(name, [str(parent.parent)] if parent else None)
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # still empty: a function that refers to itself before it is assigned
        return None


def global_names(code: types.CodeType, operations: Collection[str] = LOOKUPS) -> set[str]:
    """Names that code, and the functions nested in it, look up as globals (not as attributes).

    With ``STORES`` those that it rebinds, with ``ATTRIBUTES`` the attributes it looks up, with
    ``IMPORTS`` what it imports.
    """
    names = {step.argval for step in dis.get_instructions(code) if step.opname in operations}
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            names |= global_names(const, operations)
    return names


def _version(module: str) -> bytes:
    top: Mapping[str, Any] = vars(sys.modules.get(module.partition(".")[0], types))
    return str(top.get("__version__", "")).encode()
