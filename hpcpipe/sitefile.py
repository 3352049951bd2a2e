"""Site files: where they are looked for, which one counts on this machine, what it extends."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hpcpipe.errors import ConfigError, near

# A command that tells of a scheduler, and its site. A qsub may be Grid Engine's, PBS's or Torque's.
_TELLS = {"sbatch": "slurm", "qconf": "sge", "oarsub": "oar"}


@dataclass(frozen=True)
class Machine:
    """All that the choice of a site depends on, besides what was asked for."""

    environ: Mapping[str, str]
    host: str
    which: Callable[[str], str | None]
    shipped: Path
    system: Path = Path("/etc/hpcpipe")

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
    for file in machine.sites():
        if pattern := _matching(file, machine):
            label = machine.label(file)
            return file, f"this host, {machine.host}, matches {pattern!r}: using {label}"
    for command, site in _TELLS.items():
        if machine.which(command):
            why = f"no site file; {command} found: using the shipped site {site!r}"
            return machine.shipped / f"{site}.toml", why
    return machine.shipped / "local.toml", "no scheduler found: running on this machine's processes"


def known_sites(machine: Machine) -> dict[str, Path]:
    """Map the names of sites to files; the user's hide the system's, and these the shipped."""
    return dict(sorted({file.stem: file for file in reversed([*machine.sites()])}.items()))


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
    if not named:
        hint = near(word, known_sites(machine))
        raise ConfigError(f"{where}: no site is called {word!r}{hint}")
    return next((file for file in named if file.resolve() not in seen), named[0])


def _matching(file: Path, machine: Machine) -> str | None:
    """Give the file's first host pattern that matches this machine's name."""
    hosts = _read(file, machine).get("hosts", [])
    # Not checked yet: a text in place of a list is refused only if it is the site that is meant.
    for pattern in map(str, hosts if isinstance(hosts, list) else [hosts]):
        if fnmatchcase(machine.host.lower(), pattern.lower()):
            return pattern
    return None
