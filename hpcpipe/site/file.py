"""Site files: where they are looked for, which one counts on this machine, what it extends."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from hpcpipe.errors import ConfigError, near
from hpcpipe.schedulers import REGISTRY, outside


def _version(command: str) -> str:
    """Ask a command for its version."""
    import subprocess

    try:
        done = subprocess.run(
            [command, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


@dataclass(frozen=True)
class Machine:
    """All that the choice of a site depends on, besides what was asked for."""

    environ: Mapping[str, str]
    host: str
    which: Callable[[str], str | None]
    shipped: Path
    system: Path = Path("/etc/hpcpipe")
    says: Callable[[str], str] = _version

    @classmethod
    def here(cls) -> Machine:
        """Look at this machine."""
        from importlib.resources import files

        shipped = Path(str(files("hpcpipe.site_configs")))
        return cls(os.environ, os.uname().nodename, shutil.which, shipped)

    @property
    def user(self) -> Path:
        """The user's own folder of settings."""
        config = self.environ.get("XDG_CONFIG_HOME") or f"{self.environ.get('HOME', '')}/.config"
        return Path(config, "hpcpipe")

    def sites(self) -> Iterator[Path]:
        """Walk the files that a site can be named by: the user's, the system's, the shipped."""
        for folder in (self.user / "sites", self.system / "sites", self.shipped):
            yield from sorted(folder.glob("*.toml"))

    def brought(self) -> Iterator[Path]:
        """Walk the files that packages bring with adapters of their own."""
        for adapter in outside().values():
            if adapter.folder is not None:
                yield from sorted(adapter.folder.glob("*.toml"))

    def label(self, file: Path) -> str:
        """Name a file in messages: a shipped one by its name, any other by its path."""
        return file.name if file.parent == self.shipped else str(file)


@dataclass(frozen=True)
class Layer:
    """What one file, or the caller, says: the nested mapping that TOML gives."""

    name: str
    data: Mapping[str, Any]


def choose(asked: str | None, machine: Machine) -> tuple[Path, str]:
    """Choose the site file, and say in a sentence how."""
    for where, word in (("--site", asked), ("$HPCPIPE_SITE", machine.environ.get("HPCPIPE_SITE"))):
        if word:
            file = _resolve(word, Path(), machine, where)
            return file, f"{where} is {word!r}: using {machine.label(file)}"
    for folder, whose in ((machine.user, "your own"), (machine.system, "this machine's")):
        if (file := folder / "site.toml").is_file():
            return file, f"using {file}, {whose}"
    sites = {file: _read(file, machine) for file in machine.sites()}
    for known in (_by_variable, _by_host):
        for file, data in sites.items():
            if why := known(data, machine):
                return file, f"{why}: using {machine.label(file)}"
    if found := scheduler_here(machine, sites):
        file, what = found
        return file, f"no site file; {what} found: using {machine.label(file)}"
    return machine.shipped / "local.toml", "no scheduler found: running on this machine's processes"


def scheduler_here(
    machine: Machine, sites: Mapping[Path, Mapping[str, Any]] | None = None
) -> tuple[Path, str] | None:
    """Find a scheduler by its command: the site file that names the command, and what was found.

    Of several schedulers of ours the first in the registry counts. Packages come last, since
    looking them up takes a while.
    """
    place = {f"{name}.toml": at for at, name in enumerate(REGISTRY)}
    says = cache(machine.says)
    sites = sites or {file: _read(file, machine) for file in machine.sites()}
    ours = sorted(sites.items(), key=lambda site: place.get(machine.label(site[0]), -1))
    brought = ((file, _read(file, machine)) for file in machine.brought())
    for file, data in itertools.chain(ours, brought):
        if what := _by_command(data, machine, says):
            return file, what
    return None


def _by_command(data: Mapping[str, Any], machine: Machine, says: Callable[[str], str]) -> str:
    """Return the command that identifies the scheduler of a site, if found, else an empty text."""
    command, version = str(data.get("detect_command", "")), str(data.get("detect_version", ""))
    if not command or not machine.which(command):
        return ""
    if not version:
        return command
    return f"{command} of {data['name']}" if says(command).startswith(version) else ""


def known_sites(machine: Machine) -> dict[str, Path]:
    """Map the names of sites to files; the user's hide the system's, these the shipped."""
    files = [*machine.sites(), *machine.brought()]
    return dict(sorted({file.stem: file for file in reversed(files)}.items()))


def chain(file: Path, machine: Machine, seen: tuple[Path, ...] = ()) -> list[Layer]:
    """Read a site file, after all that it extends.

    A file may extend a site of its own name: the next one of that name is meant.
    """
    layer = Layer(machine.label(file), _read(file, machine))
    word = layer.data.get("extends")
    if not isinstance(word, str):
        return [layer]
    seen = (*seen, file.resolve())
    below = _resolve(word, file.parent, machine, f"{layer.name}: extends", seen)
    if below.resolve() in seen:
        raise ConfigError(f"{layer.name}: extends: {word!r} is, or extends, this very file")
    return [*chain(below, machine, seen), layer]


def _read(file: Path, machine: Machine) -> dict[str, Any]:
    """Read one file, and fill in what depends on where it lies."""
    import tomllib

    try:
        data = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{machine.label(file)}: {error.strerror}") from None
    except ValueError as error:  # not TOML, or not even UTF-8
        raise ConfigError(f"{machine.label(file)}: {error}") from None
    if isinstance(templates := data.get("templates"), str):
        data["templates"] = str((file.parent / templates).absolute())
    return {"name": file.stem, **data}


def _resolve(
    word: str, folder: Path, machine: Machine, where: str, seen: tuple[Path, ...] = ()
) -> Path:
    """Find the file that a path from ``folder``, or a site's name, means: one not seen, if any."""
    if "/" in word or word.endswith(".toml"):
        return folder / word
    named = [file for file in machine.sites() if file.stem == word]
    named = named or [file for file in machine.brought() if file.stem == word]
    if not named:
        hint = near(word, known_sites(machine))
        raise ConfigError(f"{where}: no site is called {word!r}{hint}")
    return next((file for file in named if file.resolve() not in seen), named[0])


def _by_variable(data: Mapping[str, Any], machine: Machine) -> str:
    """Return which variable's value identifies this machine as the site's; else nothing."""
    for setting in _texts(data.get("detect", [])):
        name, _, value = setting.partition("=")
        if value and fnmatchcase(here := machine.environ.get(name, ""), value):
            return f"${name} is {here!r} here"
    return ""


def _by_host(data: Mapping[str, Any], machine: Machine) -> str:
    """Return which pattern of the site's hosts matches this machine's name; else nothing."""
    for pattern in _texts(data.get("hosts", [])):
        if fnmatchcase(machine.host.lower(), pattern.lower()):
            return f"this host, {machine.host}, matches {pattern!r}"
    return ""


def _texts(value: object) -> Iterator[str]:
    # Not checked yet: a text in place of a list is refused only if it is the site that is meant.
    return map(str, value if isinstance(value, list) else [value])
