"""Canonical digests of Python values, files and code.

A task's key is built from these, so they must not vary between runs, with hash seeds, or with the
order in which a set was filled. Pickles do vary (with sharing, interning, sets), hence this walk.
Where it cannot be exact, it errs on the side of rerunning: better a late result than a stale one.
"""

from __future__ import annotations

import enum
import functools
import os
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from operator import itemgetter
from pathlib import Path, PurePath
from typing import Any, Protocol

from hpcpipe.errors import WorkflowError
from hpcpipe.graph.command import Command
from hpcpipe.graph.hints import as_files, hint_of, may_be_text, names_file
from hpcpipe.graph.node import Node
from hpcpipe.keys.code import (
    compiled,
    global_names,
    imports,
    is_installed,
    module_file,
    operations,
    submodules,
)
from hpcpipe.keys.file_digest import Files, combine
from hpcpipe.keys.words import file_in

# Attributes of a class that do not affect what it does, or that differ in every process.
_NO_CONTENT = {"__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__"}
_NO_CONTENT |= {"__static_attributes__", "__annotations_cache__", "_abc_impl", "__slotnames__"}
_NO_ATTRIBUTE = {"__hpcpipe__", "__wrapped__"}  # of a function
PLAIN = frozenset((bool, int, float, complex, type(None), str, bytes))  # which hold nothing else
_WRAPPERS = (staticmethod, classmethod, functools._lru_cache_wrapper)


@dataclass(frozen=True)
class Keyed:
    """A value that is digested by its ``key`` alone."""

    key: str


class Owner(Protocol):
    """Knows which modules are the user's own: `hpcpipe.keys.pickling.Own`."""

    def __call__(self, module: str, /) -> bool:
        """Return whether a module's code is the user's own."""

    def name(self, module: str) -> str:
        """Return the one name of a module that may have two: the script and ``__main__``."""


class Digests:
    """Digests of values: equal values have equal digests, in every process of this Python.

    A `Path` stands for the file it names. The code of modules that are the user's ``own`` is
    digested, of all others the name and version.
    """

    def __init__(self, files: Files, own: Owner) -> None:
        self.files = files
        self._is_own = own
        self.code: dict[str, set[bytes]] = {}  # of the code met: digests by file
        self._inside: dict[int | str, int] = {}  # values being walked, to detect recursion
        self._seen: dict[int | str, tuple[int, Any]] = {}  # code met before, by id or module name

    def digest(self, value: Any) -> bytes:
        """Return the digest of a value; raise WorkflowError if it cannot be walked or pickled."""
        kind = type(value)
        if kind in PLAIN:
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
        """Digest a function, class or module when first met, and later only refer to it.

        Without this, functions that all call each other would take exponential time.
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
        """Digest a value independently of what was met before, as unordered values need."""
        seen, self._seen = self._seen, {}
        try:
            return self.digest(value)
        finally:
            self._seen = seen

    def _compound(self, value: Any, kind: type) -> bytes:
        name = kind.__name__.encode()
        if kind in (list, tuple):
            return combine(name, *map(self.digest, value))
        if isinstance(value, set | frozenset):
            return combine(name, *sorted(map(self._alone, value)))
        if kind in (dict, types.MappingProxyType):
            pairs = sorted(
                ((self._alone(key), item) for key, item in value.items()), key=itemgetter(0)
            )
            return combine(name, *(key + self.digest(item) for key, item in pairs))
        if isinstance(value, enum.Enum):
            said = str(value.name).encode()
            return combine(b"enum", self.digest(kind), said, self.digest(value.value))
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
            state = _uncached(value, getattr(value, "__dict__", {}))
            state |= {field.name: getattr(value, field.name) for field in fields(value)}
            return combine(b"dataclass", self.digest(kind), self.digest(state))
        return self._taken_apart(value)

    def _function(self, function: types.FunctionType) -> bytes:
        where = function.__module__ or ""
        cells = [_cell(cell) for cell in function.__closure__ or ()]
        if not self._is_own(where):
            within = map(self._member, cells)  # what an installed decorator has wrapped
            return combine(b"installed", self._name(function), self._version(where), *within)
        code = function.__code__
        globals_ = {
            name: function.__globals__[name]
            for name in global_names(code)
            if name in function.__globals__
        }
        parts = (function.__defaults__, function.__kwdefaults__, cells, globals_)
        attributes = (
            name.encode() + self._member(item)
            for name, item in sorted(vars(function).items())
            if name not in _NO_ATTRIBUTE
        )
        modules = {one.__name__ for one in submodules(code, globals_.values())}
        plain = {name: item for name, item in globals_.items() if _is_plain(item)}
        self._met(code.co_filename, self._code(code), self.digest(plain))
        package = function.__globals__.get("__package__") or ""
        imported = imports(code, where, package, self._is_own) | set(filter(self._is_own, modules))
        return combine(
            b"function",
            self._code(code),
            *map(self.digest, parts),
            *attributes,
            *map(self._imported, sorted(imported)),
        )

    def _code(self, code: types.CodeType) -> bytes:
        # No file name or line numbers: adding a comment above must not rerun anything.
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        told, constants = operations(code)
        walked = map(self.digest, (constants, *names, shape))
        return combine(b"code", told, code.co_exceptiontable, *walked)

    def _module(self, name: str) -> bytes:
        """Digest one of the user's modules, and those that it imports, by their source."""
        path = module_file(name)
        said = self._is_own.name(name).encode()
        if not self._is_own(name) or path is None:
            return combine(b"installed", said, self._version(name))
        code = compiled(path)
        self._met(str(path), self._code(code))
        above = {name.rpartition(".")[0]} if self._is_own(name.rpartition(".")[0]) else set()
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        imported = imports(code, name, package, self._is_own) | above
        return combine(
            b"module", said, self._code(code), *map(self._imported, sorted(imported - {name}))
        )

    def _met(self, file: str, *digests: bytes) -> None:
        self.code.setdefault(os.path.basename(file), set()).add(combine(*map(bytes, digests)))

    def _imported(self, name: str) -> bytes:
        return self._once(name, name, self._module)

    def _name(self, thing: Any) -> bytes:
        module = self._is_own.name(getattr(thing, "__module__", None) or "")
        return f"{module}:{getattr(thing, '__qualname__', '')}".encode()

    def _version(self, module: str) -> bytes:
        """Return the version of a package, or what is in an extension module of the user's."""
        path = module_file(module)
        if path is not None and path.suffix != ".py" and not is_installed(path):
            return self.files.digest(path)
        top: Mapping[str, Any] = vars(sys.modules.get(module.partition(".")[0], types))
        return str(top.get("__version__", "")).encode()

    def _class(self, cls: type) -> bytes:
        if not self._is_own(cls.__module__):
            return combine(b"installed", self._name(cls), self._version(cls.__module__))
        members = (
            name.encode() + self._member(item)
            for name, item in sorted(vars(cls).items())
            if name not in _NO_CONTENT
        )
        return combine(b"class", self._name(cls), *map(self.digest, cls.__bases__), *members)

    def _member(self, item: Any) -> bytes:
        try:
            return self.digest(item)
        except WorkflowError:  # made by C, or a lock: it does not affect what the class does
            return b""

    def _taken_apart(self, value: Any) -> bytes:
        """Digest the parts from which pickle would rebuild a value."""
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
            version = self._version(getattr(value, "__module__", None) or "")
            names = self._name(kind), self._name(value), reduced.encode()
            return combine(b"named", *names, version)
        make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        if type(state) is dict:
            state = _uncached(value, state) or None
        parts = (make, arguments, state, list(items or ()), list(pairs or ()))
        return combine(b"made", *map(self.digest, parts))


def _itself(word: str) -> str | None:
    return word if word and os.path.exists(word) else None


def files_of(node: Node, name: str) -> Callable[[Any], Any]:
    """Return a function that reads text in an input as the file it names.

    So for a command's words that name a file, which count as they are written, too; and where the
    hint of a function's parameter has a `Path` in it.
    """
    if isinstance(node.call, Command):
        return lambda value: _words_and_files(value, file_in)
    hint = hint_of(node.call, name)
    if not names_file(hint):
        return lambda value: value
    if may_be_text(hint):
        return lambda value: _words_and_files(value) if isinstance(value, str) else value
    return lambda value: as_files(value, hint)


def _words_and_files(value: Any, find: Callable[[str], str | None] = _itself) -> Any:
    if isinstance(value, list | tuple):
        return [_words_and_files(item, find) for item in value]
    if isinstance(value, str) and (path := find(value)):
        return value, Path(path)
    return value


def _is_plain(value: Any, depth: int = 9) -> bool:
    """Return whether a value has no code in it; a deeper one may have."""
    if type(value) is dict:
        return _is_plain([*value, *value.values()], depth)
    if type(value) in (list, tuple, set, frozenset):
        return depth > 0 and all(_is_plain(item, depth - 1) for item in value)
    return type(value) in (bool, int, float, complex, type(None), str, bytes)


def _uncached(value: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return an instance's state without what its cached properties remember."""
    cached = functools.cached_property
    return {
        name: item
        for name, item in state.items()
        if not isinstance(getattr(type(value), str(name), None), cached)
    }


def _plain(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return repr(value).encode()


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # still empty: the function refers to itself and is not yet assigned
        return None
