"""Loading a site: its layers laid over one another, checked, and which layer set each value.

Layers, the later over the earlier: what is built in, the files that are extended, the site file,
and what the caller overrides. Tables are laid over one another key by key; a list is replaced
whole. What a file says of itself (its name, hosts, sources) is never inherited.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cache, reduce
from itertools import groupby, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from hpcpipe.errors import ConfigError, near
from hpcpipe.site import Queue, Site, shown
from hpcpipe.sitefile import Layer, Machine, chain, choose

if TYPE_CHECKING:
    from cattrs import Converter

_OF_ITSELF = frozenset({"name", "description", "hosts", "extends", "as_of", "sources"})
_WIDEST = 60  # columns before a layer's name: one long value must not push all of them away

Steps = tuple[str | int, ...]


@dataclass(frozen=True)
class Setting:
    """One value as its layer spells it ("4h", not 14400), where it stands, and that layer."""

    path: Steps
    value: Any
    layer: str

    @property
    def key(self) -> str:
        """The path as messages have it: ``limits.array_size``, ``queues[0].name``."""
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)
        return "".join(steps).removeprefix(".")

    @property
    def table(self) -> Steps:
        """The listed table it stands in, such as ``("queues", 0)``; else nothing."""
        return self.path[:-1] if any(isinstance(step, int) for step in self.path) else ()


@dataclass(frozen=True)
class Loaded:
    """A site and its file, all its settings with their layers, and why it is this site."""

    site: Site
    file: Path
    settings: tuple[Setting, ...]
    why: str

    @property
    def origin(self) -> dict[str, str]:
        """The layer that set each value, by dotted key."""
        return {setting.key: setting.layer for setting in self.settings}


def load_site(
    asked: str | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    machine: Machine | None = None,
) -> Loaded:
    """Find the site (``asked`` is its name or path), read it, and lay ``overrides`` over it.

    ``overrides`` goes from the name of a layer to what it says, such as
    ``{"command line": {"limits": {"array_size": 10}}}``. Raises ConfigError with one line for
    everything that is wrong in any layer.
    """
    machine = machine or Machine.here()
    file, why = choose(asked, machine)
    *extended, own = chain(file, machine)
    over = [Layer(name, data) for name, data in (overrides or {}).items()]
    _refuse(problem for layer in (*extended, own, *over) for problem in _problems(layer))
    layers = [Layer("built in", asdict(Site())), *map(_inherited, extended), own, *over]
    merged = reduce(_lay, (layer.data for layer in layers))
    unsaid = asdict(Queue(name=""))
    merged = {**merged, "queues": [unsaid | queue for queue in merged["queues"]]}
    settings = (Setting(path, value, _setter(path, layers)) for path, value in _leaves(merged))
    loaded = Loaded(read_site(merged), file, tuple(settings), why)
    origin = loaded.origin
    _refuse(f"{origin[key]}: {key}: {problem}" for key, problem in _clashes(loaded.site))
    return loaded


def site_lines(loaded: Loaded) -> list[str]:
    """Write every setting with its layer, as a site file that reads back to the same site."""
    rows = [(f"{s.key} = {_toml(s.value)}", f"# {s.layer}") for s in loaded.settings if not s.table]
    # Listed tables come last, since the header of one takes in all keys after it.
    listed = (setting for setting in loaded.settings if setting.table)
    for table, members in groupby(listed, key=lambda setting: setting.table):
        rows += [("", ""), (f"[[{table[0]}]]", "")]
        rows += [(f"{s.path[-1]} = {_toml(s.value)}", f"# {s.layer}") for s in members]
    width = max(len(text) for text, _ in rows if len(text) <= _WIDEST)
    return [f"{text:{width}}  {layer}".rstrip() for text, layer in rows]


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


def _problems(layer: Layer) -> list[str]:
    """List what is wrong in one layer, by itself."""
    try:
        read_site(layer.data)
    except ConfigError as error:
        return [f"{layer.name}: {line}" for line in str(error).splitlines()]
    return []


def _clashes(site: Site) -> Iterator[tuple[str, str]]:
    """Walk what is wrong only between values: the key of one of them, and why."""
    names = [queue.name for queue in site.queues]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield f"queues[{index}].name", f"a second queue called {name!r}"
    for index in [index for index, queue in enumerate(site.queues) if queue.default][1:]:
        yield f"queues[{index}].default", "another queue is the default already"
    if names and site.defaults.queue not in (None, *names):
        queue = str(site.defaults.queue)
        yield "defaults.queue", f"no queue is called {queue!r}{near(queue, names)}"


def _refuse(problems: Iterable[str]) -> None:
    if lines := list(problems):
        raise ConfigError("\n".join(lines))


def _inherited(layer: Layer) -> Layer:
    """Leave out what a file says of itself alone."""
    data = {key: value for key, value in layer.data.items() if key not in _OF_ITSELF}
    return Layer(layer.name, data)


def _lay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one nested mapping over another."""
    merged = {**below, **above}
    for key, value in above.items():
        if isinstance(value, Mapping) and key in below:
            merged[key] = _lay(below[key], value)
    return merged


def _leaves(value: Any, path: Steps = ()) -> Iterator[tuple[Steps, Any]]:
    """Walk the values that are set, each with its path."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path, index))
    elif value is not None:
        yield path, value


def _setter(path: Steps, layers: Sequence[Layer]) -> str:
    """Name the layer with the last word on a value.

    One layer has the last word on a whole list: what a table in it leaves out is built in.
    """
    head = tuple(takewhile(lambda step: isinstance(step, str), path))
    last = next(layer for layer in reversed(layers) if _says(layer.data, head))
    return last.name if _says(last.data, path) else layers[0].name


def _says(data: Any, path: Steps) -> bool:
    for step in path:
        if isinstance(data, Mapping) and step not in data:
            return False
        data = data[step]
    return True


def _toml(value: Any) -> str:
    """Spell one value in TOML."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


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
