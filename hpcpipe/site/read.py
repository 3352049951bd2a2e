"""Parse a nested mapping from TOML as a site; report every mistake at once, with its path."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, is_dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from hpcpipe.errors import ConfigError, near
from hpcpipe.schedulers import REGISTRY, find_adapter, outside
from hpcpipe.site import Site, keys
from hpcpipe.values import shown

if TYPE_CHECKING:
    from cattrs import Converter

_KEYS = frozenset(key.name for key in keys(Site))


def site_to_dict(site: Site) -> dict[str, Any]:
    """Return the site as plain JSON values."""
    data = asdict(site) | {"templates": None if site.templates is None else str(site.templates)}
    tables: dict[str, Any] = data.pop("tables")
    return data | tables


def read_site(data: Mapping[str, Any]) -> Site:
    """Parse a site from the data of its file, checking each value by itself.

    Raises ConfigError with one line for each mistake, with its path.
    """
    from cattrs import BaseValidationError

    converter = _converter()
    problems: list[str] = []

    def structure(value: object, kind: Any, path: str = "") -> Any:
        try:
            return converter.structure(value, kind)
        except (BaseValidationError, ConfigError) as error:
            for at, problem in _walk(error, path):
                problems.append(f"{at.removeprefix('.')}: {problem}")

    kinds = {name: kind for name in data if (kind := _table_kind(name))}
    rest = {key: value for key, value in data.items() if key not in kinds}
    site: Site | None = structure(rest, Site)
    tables = {name: structure(data[name], kind, name) for name, kind in kinds.items()}
    if site is None or problems:
        raise ConfigError("\n".join(problems))
    return replace(site, tables=tables)


def _table_kind(key: str) -> type | None:
    """Find the class of a table that only one scheduler's adapter reads."""
    if key in _KEYS or (key not in REGISTRY and key not in outside()):
        return None
    return find_adapter(key).options


@cache
def _converter() -> Converter:
    """Return a cattrs converter for sites that refuses values instead of guessing."""
    from cattrs import Converter
    from cattrs.gen import make_dict_structure_fn, override

    converter = Converter(forbid_extra_keys=True)

    # cattrs would iterate over the letters of a text or the keys of a table: check first.
    def table(cls: Any) -> Callable[[object, Any], object]:
        left_out: Any = {"tables": override(omit=True)} if cls is Site else {}
        read = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True, **left_out)
        return lambda value, cls: read(_table(value), cls)

    def mapping(value: object, cls: Any) -> object:
        members: Any = dict[get_args(cls)]  # type: ignore[misc]
        return converter.structure(_table(value), members)

    def sequence(value: object, cls: Any) -> object:
        if isinstance(value, Mapping):
            raise ConfigError("is one table; write [[ ]], in double brackets, before each")
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{shown(value)} is not a list; put it in [ ]")
        members: Any = list[get_args(cls)[0]]  # type: ignore[misc]
        return tuple(converter.structure(value, members))

    def annotated(value: object, cls: Any) -> object:
        read = cls.__metadata__[0]
        return read(value) if callable(read) else converter.structure(value, cls.__origin__)

    def has_origin(origin: object) -> Callable[[Any], bool]:
        return lambda cls: get_origin(cls) is origin

    converter.register_structure_hook_factory(is_dataclass, table)
    converter.register_structure_hook_func(has_origin(Mapping), mapping)
    converter.register_structure_hook_func(has_origin(tuple), sequence)
    converter.register_structure_hook_func(has_origin(Annotated), annotated)
    return converter


def _table(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{shown(value)} is not a table")
    return value


def _walk(error: BaseException, path: str) -> Iterator[tuple[str, str]]:
    """Yield the path and message of each leaf of an error tree raised by cattrs."""
    from cattrs import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError

    match error:
        case ClassValidationError():
            of_fields, of_table = error.group_exceptions()
            for inner, note in of_fields:
                yield from _walk(inner, f"{path}.{note.name}")
            for inner in of_table:
                yield from _walk(inner, path)
        case IterableValidationError():
            for inner, member in error.group_exceptions()[0]:
                step = f"[{member.index}]" if isinstance(member.index, int) else f".{member.index}"
                yield from _walk(inner, path + step)
        case ForbiddenExtraKeysError():
            adapters = [*REGISTRY, *outside()] if error.cl is Site else []
            known = [*(key.name for key in keys(error.cl)), *adapters]
            for extra in sorted(error.extra_fields):
                yield f"{path}.{extra}", f"unknown key{near(extra, known)}"
        case KeyError():
            yield path, "is missing"
        case ConfigError():
            yield path, str(error)
        case _:
            raise error
