"""What a function's annotations say of files: which arguments name some, and if it makes any."""

from __future__ import annotations

import os
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import fields as fields_of
from dataclasses import is_dataclass
from functools import partial
from operator import is_
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import Any, Union


def unwrapped(function: Any) -> Any:
    """Return the function that a partial calls."""
    while isinstance(function, partial):
        function = function.func
    return function


def hint_of(function: Any, name: str) -> Any:
    """Return the annotation of an argument, or of ``return``, evaluated; Any if there is none."""
    function = unwrapped(function)
    if isinstance(function, type):
        if name == "return":
            return function
        function = function.__init__  # type: ignore[misc]
    elif not hasattr(function, "__annotations__"):
        function = getattr(type(function), "__call__", function)  # noqa: B004  an instance's own
    return _evaluated(function, name, getattr(inner(function), "__globals__", {}))


def inner(function: Any) -> Any:
    """Return the function within a method or decorators: its globals are those of annotations."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return getattr(function, "__func__", function)


def _evaluated(owner: Any, name: str, globals_: Mapping[str, Any]) -> Any:
    said = getattr(owner, "__annotations__", {}).get(name, Any)
    try:
        one = SimpleNamespace(__annotations__={name: said})
        return typing.get_type_hints(one, dict(globals_), include_extras=False)[name]
    except Exception:  # a name that only type checkers see
        return Path if re.search(r"\bPath\b", str(said)) else Any


def names_file(hint: Any, seen: tuple[Any, ...] = ()) -> bool:
    """Return whether a hint has a path in it, as ``list[Path]`` has, or a dataclass may."""
    if any(hint is one for one in seen):
        return False
    seen = (*seen, hint)
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        if issubclass(hint, PurePath) or hint is os.PathLike:
            return True
        return any(names_file(one, seen) for one in _fields(hint).values())
    parts = [typing.get_origin(hint), *typing.get_args(hint)]
    parts += [getattr(hint, name, None) for name in ("__supertype__", "__value__", "__bound__")]
    return any(names_file(part, seen) for part in parts if part is not None)


def _fields(cls: type) -> dict[str, Any]:
    """Return the hints of a class that consists of fields: a dataclass, a (typed) tuple or dict."""
    if is_dataclass(cls) or typing.is_typeddict(cls) or hasattr(cls, "_fields"):
        module = vars(sys.modules.get(cls.__module__, types))
        return {name: _evaluated(cls, name, module) for name in getattr(cls, "__annotations__", {})}
    return {}


def as_files(value: Any, hint: Any) -> Any:
    """Make paths of the text that a hint says is one, also within containers and dataclasses.

    Where text may also be just text (``str | Path``), it stays as it is.
    """
    if isinstance(value, str):
        return Path(value) if _is_path(hint) else value
    for option in _options(hint):
        if _fits(value, typing.get_origin(option) or option):
            return _changed(value, partial(_part_as_files, value, option))
    return value


def _fits(value: Any, kind: Any) -> bool:
    if typing.is_typeddict(kind):
        return isinstance(value, dict)
    try:
        return isinstance(kind, type) and isinstance(value, kind)
    except TypeError:  # a protocol
        return False


def _part_as_files(whole: Any, hint: Any, name: Any, part: Any) -> Any:
    """Make paths of the text in an item of a container, or a field."""
    parts = typing.get_args(hint)
    if isinstance(whole, dict) and parts:
        return as_files(part, parts[-1])
    if isinstance(whole, tuple) and len(parts) == len(whole) and Ellipsis not in parts:
        return as_files(part, parts[name])
    of = _fields(hint).get(name, Any) if isinstance(hint, type) else Any
    return as_files(part, parts[0] if parts else of)


def may_be_text(hint: Any) -> bool:
    """Return whether text for this hint may be a path, or only text."""
    options = _options(hint)
    return str in options and any(names_file(one) for one in options)


def _is_path(hint: Any) -> bool:
    options = [typing.get_origin(one) or one for one in _options(hint)]
    return str not in options and any(
        isinstance(one, type) and (issubclass(one, PurePath) or one is os.PathLike)
        for one in options
    )


def _options(hint: Any) -> list[Any]:
    if typing.get_origin(hint) in (Union, types.UnionType):
        return [one for part in typing.get_args(hint) for one in _options(part)]
    below = getattr(hint, "__supertype__", None) or getattr(hint, "__value__", None)
    return _options(below) if below else [hint]


def each_path(value: Any, change: Callable[[Path], Path]) -> Any:
    """Change every path in a value, also within containers and dataclasses."""
    if isinstance(value, Path):
        return change(value)
    return _changed(value, lambda _, item: each_path(item, change))


def _changed(value: Any, change: Callable[[Any, Any], Any]) -> Any:
    """Return a container with its items changed, by place or name; itself if none is."""
    if isinstance(value, dict):
        made = {key: change(key, item) for key, item in value.items()}
        return value if all(made[key] is value[key] for key in made) else value | made
    if isinstance(value, list | tuple | set | frozenset):
        names = getattr(type(value), "_fields", None) or range(len(value))
        before = list(value)
        items = list(map(change, names, before))
        if all(map(is_, items, before)):
            return value
        return value._make(items) if hasattr(value, "_make") else type(value)(items)
    if is_dataclass(value) and not isinstance(value, type):
        copied = value
        for field in fields_of(value):
            item = getattr(value, field.name, None)
            if (new := change(field.name, item)) is not item:
                copied = copy(value) if copied is value else copied
                object.__setattr__(copied, field.name, new)
        return copied
    return value
