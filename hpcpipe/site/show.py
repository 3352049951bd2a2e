"""A site as text: its settings as a site file, and the JSON Schema of site files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from itertools import groupby
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from hpcpipe.schedulers import REGISTRY, find_adapter, outside
from hpcpipe.site import Site, keys
from hpcpipe.site.load import Loaded, Steps
from hpcpipe.values import Kind

_WIDEST = 60  # column of the layers' names; one long value must not push all of them right
_BUILT_IN = "built in"


def site_lines(loaded: Loaded) -> list[str]:
    """Return every setting with its layer, as a site file that reads back to the same site.

    Keys that a listed table leaves out have built-in values, and are left out here too.
    """
    rows = [
        (f"{_key(s.path)} = {toml(s.value)}", f"# {s.layer}")
        for s in loaded.settings
        if not s.table
    ]
    # Listed tables come last, because a table's header applies to all keys after it.
    listed = (s for s in loaded.settings if s.table and s.layer != _BUILT_IN)
    for table, members in groupby(listed, key=lambda setting: setting.table):
        rows += [("", ""), (f"[[{table[0]}]]", "")]
        rows += [(f"{_key(s.path[2:])} = {toml(s.value)}", f"# {s.layer}") for s in members]
    width = max(len(text) for text, _ in rows if len(text) <= _WIDEST)
    return [f"{text:{width}}  {layer}".rstrip() for text, layer in rows]


def _key(path: Steps) -> str:
    return ".".join(bare(str(step)) for step in path)


def bare(key: str) -> str:
    """Format a TOML key, quoted if necessary."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def toml(value: Any) -> str:
    """Format a TOML value."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        members = ", ".join(f"{bare(key)} = {toml(one)}" for key, one in value.items())
        return f"{{ {members} }}" if members else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def site_schema() -> dict[str, Any]:
    """Return the JSON Schema of a site file, for editors that complete and check TOML."""
    schema = _table(Site)
    schema["properties"] |= {name: _table(kind) for name, kind in option_tables().items()}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "hpcpipe site file",
        **schema,
    }


def option_tables() -> dict[str, type]:
    """Map each scheduler with options of its own to the class of its table."""
    found = {name: find_adapter(name).options for name in (*REGISTRY, *outside())}
    return {name: kind for name, kind in found.items() if kind is not None}


def table_of(field: Field[Any]) -> Any:
    """Return the dataclass of a field that holds a table or several tables; else None."""
    kinds = (_bare(field.type), *get_args(_bare(field.type)))
    return next((kind for kind in kinds if is_dataclass(kind)), None)


def _bare(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _table(cls: Any) -> dict[str, Any]:
    members = {key.name: _member(key) for key in keys(cls)}
    needed = [f.name for f in fields(cls) if f.default is f.default_factory is MISSING]
    return {
        "type": "object",
        "description": cls.__doc__,
        "properties": members,
        **({"required": needed} if needed else {}),
        "additionalProperties": False,
    }


def _member(field: Field[Any]) -> dict[str, Any]:
    schema = _schema(field.type)
    if is_dataclass(field.type):
        return schema
    schema = {"description": str(get_args(field.type)[-1]), **schema}
    if field.default not in (MISSING, None, "", ()):
        schema["default"] = field.default
    return schema


def _schema(kind: Any) -> dict[str, Any]:
    """Return the JSON Schema of a type of `hpcpipe.site`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _table(kind)
    if origin is Annotated:
        known = [one for one in arguments if isinstance(one, Kind)]
        return dict(known[0].schema) if known else _schema(arguments[0])
    if origin is tuple:
        return {"type": "array", "items": _schema(arguments[0])}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _schema(arguments[1])}
    return _schema(next(one for one in arguments if one is not NoneType))
