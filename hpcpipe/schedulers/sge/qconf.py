"""What ``qconf`` and ``qhost`` of Grid Engine print, as values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "k": 1e3, "m": 1e6, "g": 1e9}


class Resource(NamedTuple):
    """One resource that jobs ask for, as ``qconf -sc`` has it: "YES", "NO", "FORCED", "JOB"."""

    type: str
    requestable: str
    consumable: str
    default: str

    @property
    def asked_for(self) -> bool:
        return self.requestable in ("YES", "FORCED")


class Part(NamedTuple):
    """A queue's part of one host: which kinds of jobs it takes, slots, and letters of its state."""

    kinds: str
    slots: int
    state: str


class Host(NamedTuple):
    """A host: MiB of memory, its parts of queues, and what it has of consumables."""

    memory: int
    parts: dict[str, Part]
    values: dict[str, str]


def read_facts(text: str) -> dict[str, str]:
    """Read lines of a name and a value, of which long ones are wrapped."""
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    return {pair[0]: pair[1].strip() for line in lines if len(pair := line.split(None, 1)) == 2}


def read_queues(text: str) -> list[dict[str, str]]:
    """Read several queues, as ``qconf -sq '*'`` prints them."""
    return [read_facts(block) for block in re.split(r"^(?=qname\s)", text, flags=re.M) if block]


def read_resources(text: str) -> dict[str, Resource]:
    """Read the resources by name."""
    rows = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return {row[0]: Resource(row[2], row[4], row[5], row[6]) for row in rows if len(row) > 6}


def read_hosts(text: str) -> dict[str, Host]:
    """Read ``qhost -q``: the hosts that have a part of any queue."""
    head, *lines = text.splitlines() or [""]
    column = head.split().index("MEMTOT") if "MEMTOT" in head else 0
    hosts: dict[str, Host] = {}
    parts: dict[str, Part] = {}
    for line in lines:
        words = line.split()
        if not line.startswith(" ") and len(words) > column:
            parts = {}
            hosts[words[0]] = Host(mib(words[column]), parts, {})
        elif len(words) > 2:
            slots = words[2].rpartition("/")[2]  # reserved/used/total
            parts[words[0]] = Part(words[1], int(slots), "".join(words[3:]))
    return {name: host for name, host in hosts.items() if host.parts}


def kinds(hosts: Mapping[str, Host]) -> Iterable[list[Host]]:
    """Sort hosts into those that are alike: there may be thousands, of a few kinds."""
    alike: dict[object, list[Host]] = {}
    for host in hosts.values():
        slots = tuple((name, part.slots) for name, part in sorted(host.parts.items()))
        alike.setdefault((round(host.memory / 4096), slots), []).append(host)
    return alike.values()


def pairs(text: str) -> Iterator[tuple[str, str]]:
    """Walk ``name=value``, of all hosts; of ``gpu=2(0 1)`` the 2 is the value."""
    for match in re.finditer(r"([\w.]+)=([^\s,=\](]+)", text):
        yield match[1], match[2]


def words(text: str) -> list[str]:
    """List names, those that hold for some hosts only, too; "NONE" is none."""
    return [word for word in re.findall(r"[^\s,=\[\]]+", text) if word.upper() != "NONE"]


def mib(text: str) -> int:
    """Read memory as MiB; 0 if malformed."""
    match = re.fullmatch(r"([\d.]+)([KMGTkmg]?)", text)
    return round(float(match[1]) * _UNITS[match[2]] / 2**20) if match else 0


def longest(text: str) -> int | None:
    """Read a limit of time in seconds: of several, by host, the highest; None if there is none."""
    values = re.findall(r"(?:^|=)([\d:]+|INFINITY)", text)
    return None if "INFINITY" in values or not values else max(map(seconds, values))


def largest(text: str) -> int | None:
    """Read a memory limit in MiB: of several, by host, the highest; None if there is none."""
    values = re.findall(r"(?:^|=)([\d.]+[KMGTkmg]?|INFINITY)", text)
    return None if "INFINITY" in values or not values else max(map(mib, values))


def seconds(clock: str) -> int:
    """Read a length of time: 3600, or 1:0:0."""
    total = 0
    for part in clock.split(":"):
        total = total * 60 + int(part or 0)
    return total
