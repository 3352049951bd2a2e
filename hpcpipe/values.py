"""The kinds of values in a site file: each with a description, a JSON Schema and a parser.

A parser converts a TOML value, or raises ConfigError with what is wrong and how to write it. For
mypy the kinds are plain types.
"""

# Annotations are not postponed here: cattrs would lose their metadata.

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from hpcpipe.errors import ConfigError, near
from hpcpipe.quantities import parse_memory, parse_time


@dataclass(frozen=True, eq=False)
class Kind:
    """One kind of value; calling it parses one."""

    words: str
    schema: Mapping[str, Any]
    read: Callable[[object], Any]

    def __call__(self, value: object) -> Any:
        return self.read(value)


def shown(value: object) -> str:
    """Format a value as a site file would, not as Python would."""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, str) else str(value)


def one_of(*words: str, kind: str = "") -> Kind:
    """Return the kind of a value that is one of these words; ``kind`` names what they are."""

    def read(value: object) -> str:
        if value not in words:
            said = f"unknown {kind} {value!r}" if kind else f"{value!r} is not known"
            raise ConfigError(f"{said}{near(text(value), words)}")
        return str(value)

    return Kind(" or ".join(f"``{word}``" for word in words), {"enum": list(words)}, read)


def text(value: object) -> str:
    """Read a text."""
    if not isinstance(value, str):
        raise ConfigError(f"{shown(value)} is not text; put it in quotes")
    return value


def _line(value: object) -> str:
    if not text(value).isprintable() or not value:
        raise ConfigError(f"{value!r} is not one line of text")
    return text(value)


def _lines(value: object) -> tuple[str, ...]:
    if isinstance(value, list | tuple):
        return tuple(text(line) for line in value)
    return tuple(text(value).splitlines())


def _name(value: object) -> str:
    if not re.fullmatch(r"[\w.@:+-]+", text(value)):
        raise ConfigError(f"{value!r} is not a name; use letters, digits and . @ : + - _")
    return text(value)


def _variable(value: object) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text(value)):
        raise ConfigError(f"{value!r} is not the name of a variable")
    return text(value)


def _setting(value: object) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*=.+", text(value)):
        raise ConfigError(f"{value!r} is not a variable and its value; write for example HOST=abel")
    return text(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{value!r} is neither true nor false")
    return value


def _count(value: object, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{shown(value)} is not a whole number of at least {least}")
    return value


def _natural(value: object) -> int:
    return _count(value, least=0)


def _amount(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e18:
        raise ConfigError(f"{shown(value)} is not a number of at least 0")
    return float(value)


def _memory(value: object) -> int:
    return parse_memory(value if type(value) is int else text(value))


def _time(value: object) -> int:
    return parse_time(value if type(value) is int else text(value))


def _date(value: object) -> str:
    try:
        return date.fromisoformat(str(value)).isoformat()
    except ValueError:
        raise ConfigError(f"{shown(value)} is not a date; write for example 2025-01-31") from None


def _folder(value: object) -> Path:
    return Path(text(value))


_STRING = {"type": "string"}
_WORD = {"type": "string", "minLength": 1}
_SPELLED = {"type": ["string", "integer"]}  # "2G", or a bare number of the smallest unit
_LINES = {"anyOf": [_STRING, {"type": "array", "items": _STRING}]}

Text = Annotated[str, Kind("text", _STRING, text)]
Line = Annotated[str, Kind("one line of text", _WORD, _line)]
Lines = Annotated[tuple[str, ...], Kind("text, or list: text", _LINES, _lines)]
Name = Annotated[str, Kind("name", _WORD | {"pattern": r"^[\w.@:+-]+$"}, _name)]
Variable = Annotated[str, Kind("name of a variable", _WORD, _variable)]
Setting = Annotated[str, Kind("``VARIABLE=value``", _WORD | {"pattern": "="}, _setting)]
Flag = Annotated[bool, Kind("true or false", {"type": "boolean"}, _flag)]
Count = Annotated[int, Kind("whole number, 1 or more", {"type": "integer", "minimum": 1}, _count)]
Natural = Annotated[int, Kind("whole number", {"type": "integer", "minimum": 0}, _natural)]
Amount = Annotated[float, Kind("number", {"type": "number", "minimum": 0}, _amount)]
Memory = Annotated[int, Kind("memory", _SPELLED, _memory)]
Time = Annotated[int, Kind("time", _SPELLED, _time)]
# TOML has a date type, which some editors pass to the schema as text and others do not.
Date = Annotated[str, Kind("date", {}, _date)]
Folder = Annotated[Path, Kind("folder", _WORD, _folder)]
