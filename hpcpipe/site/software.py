"""Software: match a task's requirements with programs of the site's catalogue."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import eq, ge, gt, le, lt

from hpcpipe.errors import near
from hpcpipe.site import Site, Software

Version = tuple[tuple[int, int, str], ...]

_OPERATORS: Mapping[str, Callable[[Version, Version], bool]] = {
    ">=": ge, "<=": le, "==": eq, ">": gt, "<": lt,
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A program of the catalogue, with its key."""

    key: str
    software: Software

    @property
    def said(self) -> str:
        """The name with its version."""
        name = self.software.name or self.key
        return f"{name} {self.software.version}" if self.software.version else name


def find_software(demand: str, site: Site, queue: str | None) -> Found | str:
    """Return the newest program that meets a requirement in a queue, or what is lacking.

    A requirement is a name with bounds: ``fsl``, ``fsl>=6``, ``fsl>=6,<6.1``; ``spm12`` also means
    version 12 of ``spm``. A version is compared with a bound up to the bound's number of parts:
    6.0.7 satisfies ``==6.0``, and does not satisfy ``>6``.
    """
    name, bounds = _parse(demand)
    programs = [Found(key, one) for key, one in site.software.items()]
    named = [one for one in programs if _called(one) == name]
    glued = re.fullmatch(r"(.*?\D)(\d[\w.]*)", name)
    if not named and glued:
        named = [one for one in programs if _called(one) == glued[1].rstrip("-@")]
        bounds = [("==", glued[2]), *bounds]
    if not named:
        known = dict.fromkeys(map(_called, programs))
        return f"no software {name!r} in the site file{near(name, known)}"
    fitting = [one for one in named if _within(one.software.version, bounds)]
    if not fitting:
        have = ", ".join(one.said for one in named)
        return f"{demand}, but there is {have}"
    here = [one for one in fitting if not one.software.queues or queue in one.software.queues]
    if not here:
        return f"no {fitting[0].said}"
    # Of equal versions max returns the first in the file.
    return max(here, key=lambda one: version_key(one.software.version or ""))


def version_key(version: str) -> Version:
    """Return a sort key for versions: numbers compare as numbers, words sort below them."""
    parts = re.findall(r"\d+|[a-z]+", version.lower())
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)


def _parse(demand: str) -> tuple[str, list[tuple[str, str]]]:
    name = re.split(r"[<>=]", demand, maxsplit=1)[0]
    return name.lower(), re.findall(r"([<>]=?|==)([^,]+)", demand[len(name) :])


def _called(found: Found) -> str:
    return (found.software.name or found.key).lower()


def _within(version: str | None, bounds: list[tuple[str, str]]) -> bool:
    if version is None:
        return not bounds
    key = version_key(version)
    return all(
        _OPERATORS[operator](key[: len(bound)], bound)
        for operator, bound in ((operator, version_key(text)) for operator, text in bounds)
    )
