"""A nested mapping, as TOML gives it, read as a site: every mistake told at once, with its path."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from hpcpipe.errors import ConfigError, near
from hpcpipe.site import Site
from hpcpipe.site.values import shown

if TYPE_CHECKING:
    from cattrs import Converter


def site_to_dict(site: Site) -> dict[str, Any]:
    """Give the site as what JSON can hold."""
    return asdict(site) | {"templates": None if site.templates is None else str(site.templates)}


def site_from_dict(data: Mapping[str, Any]) -> Site:
    """Read what ``site_to_dict`` gave; keys of a later version are passed over."""
    return _converter(forbid=False).structure(data, Site)


def read_site(data: Mapping[str, Any]) -> Site:
    """Read a site as its file spells it, each value checked by itself.

    Raises ConfigError with one line for everything that is wrong, each with its path.
    """
    from cattrs import BaseValidationError

    try:
        return _converter(forbid=True).structure(data, Site)
    except BaseValidationError as errors:
        lines = [f"{path.removeprefix('.')}: {problem}" for path, problem in _walk(errors, "")]
        raise ConfigError("\n".join(lines)) from None


@cache
def _converter(*, forbid: bool) -> Converter:
    """Build the reader of sites: cattrs, made to refuse where it would rather guess."""
    from cattrs import Converter
    from cattrs.gen import make_dict_structure_fn

    converter = Converter(forbid_extra_keys=forbid)

    # Given a text cattrs would take its letters, given a table its keys: look first.
    def table(cls: Any) -> Callable[[object, Any], object]:
        read = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=forbid)
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
    """Walk the tree of errors that cattrs raises: each leaf's path, and what is wrong there."""
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
            known = [f.name for f in fields(error.cl)]
            for extra in sorted(error.extra_fields):
                yield f"{path}.{extra}", f"unknown key{near(extra, known)}"
        case KeyError():
            yield path, "is missing"
        case ConfigError():
            yield path, str(error)
        case _:
            raise error
