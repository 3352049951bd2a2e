"""The adapters, by scheduler: ours, and those from other installed packages.

An adapter is a package that owns everything special about its scheduler:

* the package itself has the manual, as its docstring, and the class of verbs (``base``);
* ``options``, if there is such a module, has the class ``Options``: the scheduler's table in a site
  file. The class of verbs gets those options that its ``__init__`` has parameters for. Of ours, it
  also has ``VARIABLES``, the pattern of those that a job must not inherit (``environment``);
* ``probe``, if there is one, has the class ``Probe``, which looks at a live scheduler (``probe``);
* ``NAME.sh.j2`` and ``*.toml``, its template and its site files, which tell how it is found on a
  machine. Those of ours lie in ``templates/`` and ``site-configs/``.

The class is named by an entry point of the group ``hpcpipe.schedulers``: ours in the file
``entry_points.cfg``, others in the package from outside that brings them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hpcpipe.errors import ConfigError, near

if TYPE_CHECKING:
    from hpcpipe.schedulers.base import Scheduler
    from hpcpipe.schedulers.probe import Probe

GROUP = "hpcpipe.schedulers"


class Adapter(NamedTuple):
    """Where an adapter is. Its parts are imported when they are asked for."""

    name: str
    package: str
    attribute: str

    @property
    def scheduler(self) -> type[Scheduler]:
        """The class of verbs."""
        found: type[Scheduler] = self._import(self.package, self.attribute)
        return found

    @property
    def options(self) -> type | None:
        """The dataclass of its options, if it has any."""
        found: type | None = self._part("options", "Options")
        return found

    @property
    def probe(self) -> type[Probe] | None:
        """The class of its probe, if it has one."""
        found: type[Probe] | None = self._part("probe", "Probe")
        return found

    @property
    def folder(self) -> Path | None:
        """Where a package from outside has its template and site files."""
        from importlib.util import find_spec  # not for each `hpcpipe status`

        spec = find_spec(self.package)
        return Path(spec.origin).parent if spec and spec.origin else None

    def taken(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of the options that are set, and that the class of verbs takes."""
        names = signature(self.scheduler).parameters
        return {key: value for key, value in options.items() if key in names and value is not None}

    def _part(self, module: str, attribute: str) -> Any:
        where = f"{self.package}.{module}"
        try:
            return self._import(where, attribute)
        except ConfigError as error:
            missing = error.__cause__
            if isinstance(missing, ModuleNotFoundError) and missing.name == where:
                return None
            raise

    def _import(self, module: str, attribute: str) -> Any:
        """Import one part; raises ConfigError where that fails, as it may in somebody's package."""
        try:
            return getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"scheduler {self.name!r}: {error}") from error


def _ours() -> Iterator[Adapter]:
    """Read what setup.cfg makes our entry points: finding those takes 30 ms."""
    text = Path(__file__).with_name("entry_points.cfg").read_text("utf-8")
    for line in text.partition(f"[{GROUP}]\n")[2].splitlines():
        name, _, where = line.partition(" = ")
        package, _, attribute = where.partition(":")
        yield Adapter(name, package, attribute)


REGISTRY = {adapter.name: adapter for adapter in _ours()}


def find_adapter(name: str) -> Adapter:
    """Find the adapter of a scheduler; raises ConfigError if there is no such adapter."""
    if name in REGISTRY:
        return REGISTRY[name]
    if name not in outside():
        raise ConfigError(f"unknown scheduler {name!r}{near(name, [*REGISTRY, *outside()])}")
    return outside()[name]


@cache
def outside() -> Mapping[str, Adapter]:
    """Map the schedulers that installed packages add to their adapters; ours take precedence."""
    from importlib.metadata import entry_points

    found = [(one.name, one.module, one.attr) for one in entry_points(group=GROUP)]
    return {one[0]: Adapter(*one) for one in sorted(found) if one[0] not in REGISTRY}


def make_scheduler(name: str, options: Mapping[str, Any] | None = None) -> Scheduler:
    """Make the adapter of a name; ``options`` are the site's for it. Raises ConfigError."""
    return find_adapter(name).scheduler(**(options or {}))
