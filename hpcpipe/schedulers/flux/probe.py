"""A live Flux, looked at with flux config and flux resource.

Written from the documentation of 0.88; not tried on a real one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from hpcpipe.indices import parse_indices
from hpcpipe.schedulers.base import Run
from hpcpipe.schedulers.probe import Finding, Found, ask, spelled_time, unkept, unreserved

if TYPE_CHECKING:
    from hpcpipe.site import Site

_CONFIG = ("flux", "config", "get")
_RESOURCES = ("flux", "resource", "R")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "": 1}
_WATCHED = "Flux enforces no memory limit"


class _Host(NamedTuple):
    cpus: int
    gpus: int


class Probe:
    """Reads the queues, limits and resources of a Flux instance."""

    name: ClassVar[str] = "flux"
    from_node: ClassVar[tuple[str, ...]] = ("flux", "jobs", "-c", "1")

    def look(self, run: Run) -> Found:
        version = re.search(r"\d+(\.\d+)+", ask(run, "flux", "version"))
        config = json.loads(ask(run, *_CONFIG).strip() or "{}")
        resources = json.loads(ask(run, *_RESOURCES))["execution"]
        default = _at(config, "policy.jobspec.defaults.system.queue")
        queues = [
            {"name": name, **({"default": True} if name == default else {})}
            | _limits(config, table, [*_hosts(resources, table.get("requires", ()))])
            for name, table in _at(config, "queues", {}).items()
        ]
        settings = {"limits": {"watch_memory": True}, "queues": unreserved(queues)}
        sources = tuple(" ".join(words) for words in (_CONFIG, _RESOURCES))
        remarks = {"limits.watch_memory": _WATCHED}
        return Found("flux", version[0] if version else "", settings, remarks, sources=sources)

    def check(self, found: Found, site: Site) -> Iterator[Finding]:
        del found
        yield unkept(_WATCHED, "ask for no more than a task's share of a host", site)


def _at(table: Mapping[str, Any], path: str, default: Any = None) -> Any:
    """Return what a nested table has at a dotted path."""
    for key in path.split("."):
        table = table.get(key, {})
    return table or default


def _hosts(resources: Mapping[str, Any], requires: Sequence[str]) -> Iterator[_Host]:
    """Yield the hosts that have all the properties that a queue requires."""
    properties = resources.get("properties", {})
    having = [{*_ids(properties.get(one, ""))} for one in requires]
    for group in resources["R_lite"]:
        children = group["children"]
        host = _Host(*(len(_ids(children.get(what, ""))) for what in ("core", "gpu")))
        for rank in _ids(group["rank"]):
            if all(rank in ranks for ranks in having):
                yield host


def _ids(text: str) -> Sequence[int]:
    """Read a set of ids, ``0-3,7``, which may be empty."""
    return parse_indices(text) if text else ()


def _limits(
    config: Mapping[str, Any], table: Mapping[str, Any], hosts: Sequence[_Host]
) -> dict[str, Any]:
    """Return a queue's limits as a site file has them; it has those of the instance, or its own."""
    found: dict[str, Any] = {}
    for key, path in (
        ("max_time", "policy.limits.duration"),
        ("default_time", "policy.jobspec.defaults.system.duration"),
    ):
        seconds = _seconds(_at(table, path) or _at(config, path))
        if seconds:
            found[key] = spelled_time(seconds)
    if hosts:
        found["max_cpus"] = max(host.cpus for host in hosts)
        if gpus := [host.gpus for host in hosts if host.gpus]:
            found["max_gpus"] = max(gpus)
            if len(gpus) == len(hosts):
                found["min_gpus"] = 1  # leave its hosts to those who need GPUs
    return found


def _seconds(text: object) -> int:
    """Read a duration of Flux: ``1.5h``, or a number of seconds; 0 if there is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|[smhd]?)", str(text or ""))
    return int(float(match[1]) * _SECONDS[match[2]]) if match else 0
