"""Load a site: merge and check its layers, and record which layer set each value.

Layers, each overriding the one before: built-in values, the files that are extended, the site file,
and the caller's overrides. Tables are merged key by key; a list is replaced as a whole. What a file
says about itself (its name, hosts, sources) is never inherited.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from itertools import takewhile
from pathlib import Path
from typing import Any

from hpcpipe.errors import ConfigError
from hpcpipe.site import Queue, Site
from hpcpipe.site.check import clashes
from hpcpipe.site.file import Layer, Machine, chain, choose
from hpcpipe.site.read import read_site, site_to_dict

_OF_ITSELF = frozenset(
    (
        "name",
        "description",
        "hosts",
        "detect",
        "detect_command",
        "detect_version",
        "extends",
        "as_of",
        "sources",
        "tried",
        "retires",
    )
)

Steps = tuple[str | int, ...]


@dataclass(frozen=True)
class Setting:
    """One value as written in its layer ("4h", not 14400), its path, and that layer."""

    path: Steps
    value: Any
    layer: str

    @property
    def key(self) -> str:
        """The path as shown in messages: ``limits.array_size``, ``queues[0].name``."""
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)
        return "".join(steps).removeprefix(".")

    @property
    def table(self) -> Steps:
        """The listed table that contains it, such as ``("queues", 0)``; else empty."""
        return self.path[:2] if any(isinstance(step, int) for step in self.path) else ()


@dataclass(frozen=True)
class Loaded:
    """A site and its file, all its settings with their layers, and why this site was chosen."""

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
    """Load the site whose name or path is ``asked``, by default the one in use here.

    ``overrides`` maps the name of a layer to its settings, such as
    ``{"command line": {"limits": {"array_size": 10}}}``. Raises ConfigError with one line for each
    mistake in any layer.
    """
    machine = machine or Machine.here()
    file, why = choose(asked, machine)
    *extended, own = chain(file, machine)
    over = [Layer(name, data) for name, data in (overrides or {}).items()]
    _refuse(problem for layer in (*extended, own, *over) for problem in _problems(layer))
    layers = [*map(_inherited, extended), own, *over]
    said = reduce(_lay, (layer.data for layer in layers))
    layers.insert(0, Layer("built in", _built_in(read_site(said))))
    merged = _lay(layers[0].data, said)
    unsaid = asdict(Queue(name=""))
    merged = {**merged, "queues": [_lay(unsaid, queue) for queue in merged["queues"]]}
    settings = (Setting(path, value, _setter(path, layers)) for path, value in _leaves(merged))
    loaded = Loaded(_charging(read_site(merged), machine), file, tuple(settings), why)
    origin = loaded.origin
    _refuse(f"{origin[key]}: {key}: {problem}" for key, problem in clashes(loaded.site))
    return loaded


def _built_in(site: Site) -> dict[str, Any]:
    """Return the defaults, with the tables of the schedulers that this site uses or mentions."""
    names = dict.fromkeys((*site.tables, site.scheduler, site.written_for))
    tables = {name: table for name in names if (table := Site().table(name)) is not None}
    return site_to_dict(replace(Site(), tables=tables))


def _charging(site: Site, machine: Machine) -> Site:
    """Return the site with its default account from the variable that names it, if set."""
    account = machine.environ.get(site.defaults.account_from or "")
    return replace(site, defaults=replace(site.defaults, account=account)) if account else site


def _problems(layer: Layer) -> list[str]:
    """Return the mistakes in one layer."""
    try:
        read_site(layer.data)
    except ConfigError as error:
        return [f"{layer.name}: {line}" for line in str(error).splitlines()]
    return []


def _refuse(problems: Iterable[str]) -> None:
    if lines := list(problems):
        raise ConfigError("\n".join(lines))


def _inherited(layer: Layer) -> Layer:
    """Return a layer without what its file says about itself."""
    data = {key: value for key, value in layer.data.items() if key not in _OF_ITSELF}
    return Layer(layer.name, data)


def _lay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge one nested mapping over another."""
    merged = {**below, **above}
    for key, value in above.items():
        if isinstance(value, Mapping) and key in below:
            merged[key] = _lay(below[key], value)
    return merged


def _leaves(value: Any, path: Steps = ()) -> Iterator[tuple[Steps, Any]]:
    """Yield the values that are set, with their paths; a list in a listed table is one value."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list) and len(path) == 1 and value and isinstance(value[0], Mapping):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path, index))
    elif value is not None:
        yield path, value


def _setter(path: Steps, layers: Sequence[Layer]) -> str:
    """Return the name of the last layer that sets a value.

    A list belongs to one layer: what a table in it leaves out has its built-in value.
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
