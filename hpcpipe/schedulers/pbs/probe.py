"""A live PBS Professional or OpenPBS, looked at with qstat and pbsnodes.

Written against what OpenPBS 23.06.06 printed; not tried on a real one.
"""

from __future__ import annotations

import grp
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from getpass import getuser
from typing import TYPE_CHECKING, Any, ClassVar

from hpcpipe.quantities import parse_time
from hpcpipe.schedulers.base import Run
from hpcpipe.schedulers.probe import Finding, Found, ask, spelled_memory, spelled_time, unreserved

if TYPE_CHECKING:
    from hpcpipe.site import Site

_SERVER = ("qstat", "-B", "-f", "-F", "json")
_QUEUES = ("qstat", "-Q", "-f", "-F", "json")
_NODES = ("pbsnodes", "-a", "-F", "json")
_MIB = {"b": 2**-20, "kb": 2**-10, "mb": 1, "gb": 2**10, "tb": 2**20}
_ARRAY = "max_array_size"
_REMARKS = {
    "limits.array_size": _ARRAY,
    "limits.max_jobs": "max_queued of the server",
}
_Row = Mapping[str, Any]


class Probe:
    """Reads the queues, vnodes and settings of a PBS."""

    name: ClassVar[str] = "pbs"
    # Its qsub cannot be asked without submitting.
    from_node: ClassVar[tuple[str, ...]] = (
        "sh", "-c", "command -v qsub >/dev/null && exec qstat -B -f -F json",
    )  # fmt: skip

    def look(self, run: Run) -> Found:
        answer = json.loads(ask(run, *_SERVER))
        server = next(iter(answer["Server"].values()))
        rows: Mapping[str, _Row] = json.loads(ask(run, *_QUEUES)).get("Queue", {})
        nodes = [*json.loads(ask(run, *_NODES)).get("nodes", {}).values()]
        queues = []
        for name, row in rows.items():
            if _open(row):
                default = {"default": True} if server.get("default_queue") == name else {}
                queues.append({"name": name} | default | _queue(name, rows, nodes))
        usual = rows.get(server.get("default_queue", ""), {})
        sizes = [int(one[_ARRAY]) for one in (server, usual) if _ARRAY in one]
        limits = {"array_size": min(sizes)} if sizes else {}
        limits |= {"max_jobs": most} if (most := _each_user(server, "max_queued")) else {}
        settings = {"limits": limits, "queues": unreserved(queues)}
        facts = {key: str(value) for key, value in server.items()}
        facts |= {f"{_ARRAY} of {one}": str(row[_ARRAY]) for one, row in rows.items()
                  if _ARRAY in row}  # fmt: skip
        sources = tuple(" ".join(words) for words in (_SERVER, _QUEUES, _NODES))
        return Found("pbs", answer["pbs_version"], settings, _REMARKS, facts, sources=sources)

    def check(self, found: Found, site: Site) -> Iterator[Finding]:
        facts = found.facts
        for key in facts:
            if key.startswith(f"{_ARRAY} of ") and int(facts[key]) < site.limits.array_size:
                said, queue = f"{facts[key]} elements, less than elsewhere", key.rpartition(" ")[2]
                do = f"set limits.array_size = {facts[key]} to use this queue"
                yield Finding(f"array size of {queue}", "warning", said, do)
        if facts.get("scheduling") != "True":
            said = "scheduling is off: jobs are taken, and none is started"
            yield Finding("server", "warning", said, "ask the administrators until when")
        if re.search(r"Avail_Global:0 Avail_Local:0\b", facts.get("license_count", "")):
            said = f"none is left: {facts['license_count'].strip()}"
            yield Finding("licences", "warning", said, "ask the administrators")
        yield _history(facts)
        yield Finding(
            "memory limit", "ok", "asked for per job; kept where the hosts have cgroups or"
            " $enforce mem, which cannot be seen from here",
        )  # fmt: skip


def _history(facts: Mapping[str, str]) -> Finding:
    """Check how long the scheduler remembers a job, and how it ended."""
    if facts.get("job_history_enable") != "True":
        return Finding(
            "job history", "warning", "none: a job is forgotten as it ends, and why it did with it",
            "look at a run while it is running; results do not depend on it",
        )  # fmt: skip
    kept = facts.get("job_history_duration", "336:00:00")
    if parse_time(kept) < 3600:
        do = "submit whole workflows, not one node after another"
        return Finding("job history", "warning", f"kept for {kept} only", do)
    hours = parse_time(kept) // 3600
    return Finding("job history", "ok", f"how a job ended can be asked for {hours} hours")


def _open(row: _Row) -> bool:
    """Return whether this user's jobs are accepted and started."""
    if not all(str(row.get(key)) == "True" for key in ("enabled", "started")):
        return False
    groups = {one.gr_name for one in grp.getgrall() if one.gr_gid in os.getgroups()}
    for kind, mine in (("user", {getuser()}), ("group", groups)):
        listed = re.findall(r"(?:^|,)\s*\+?([^-+@,\s][^@,\s]*)", str(row.get(f"acl_{kind}s", "")))
        if row.get(f"acl_{kind}_enable") == "True" and not mine & {*listed}:
            return False
    return row.get("from_route_only") != "True"


def _queue(name: str, rows: Mapping[str, _Row], nodes: Sequence[_Row]) -> dict[str, Any]:
    """Return a queue as the table of a site file; a routing one accepts what its widest does."""
    row = rows[name]
    words = re.split(r"[,\s]+", str(row.get("route_destinations", "")))
    ends = [word for word in words if word in rows] or [name]
    each = [_limits(end, rows[end], nodes) for end in ends]
    limits = {
        key: max(one[key] for one in each) for key in each[0] if all(key in one for one in each)
    }
    if ends != [name]:
        limits |= _limits(name, row, [])
    spell = {"time": spelled_time, "memory": spelled_memory}
    queue: dict[str, Any] = {
        key: spell[what](value) if (what := key.partition("_")[2]) in spell else value
        for key, value in limits.items()
    }
    for key, limit in (("max_jobs", "max_queued"), ("max_running", "max_run")):
        if most := _each_user(row, limit):
            queue[key] = most
    hosts = [host for end in ends for host in _hosts(end, rows[end], nodes)]
    gpus = [_count(host, "ngpus") for host in hosts]
    if any(gpus):
        queue["max_gpus"] = max(gpus)
        if all(gpus):
            queue["min_gpus"] = 1  # leave its hosts to those who need GPUs
    if hosts and all("excl" in str(host.get("sharing")) for host in hosts):
        queue["exclusive"] = True
    return queue


def _limits(name: str, row: _Row, nodes: Sequence[_Row]) -> dict[str, int]:
    """Read a queue's limits, in seconds and MiB: its own, and what its largest host has."""
    most, least = row.get("resources_max", {}), row.get("resources_min", {})
    limits = {}
    for key, told in (
        ("max_time", most),
        ("min_time", least),
        ("default_time", row.get("resources_default", {})),
    ):
        if "walltime" in told:
            limits[key] = parse_time(str(told["walltime"]))
    hosts = _hosts(name, row, nodes)
    memory = [_mib(most.get("mem")), max((_mib(_has(host, "mem")) for host in hosts), default=0)]
    cpus = [int(most.get("ncpus", 0)), max((_count(host, "ncpus") for host in hosts), default=0)]
    for key, values in (("max_memory", memory), ("max_cpus", cpus)):
        if any(values):
            limits[key] = min(value for value in values if value)
    for key, value in (("min_memory", _mib(least.get("mem"))), ("min_cpus", least.get("ncpus"))):
        if value:
            limits[key] = int(value)
    return limits


def _hosts(name: str, row: _Row, nodes: Sequence[_Row]) -> list[_Row]:
    """List the vnodes that serve a queue: its own if it has any, of these what its jobs ask for."""
    own = [node for node in nodes if node.get("queue") == name]
    chunk = row.get("default_chunk", {}).items()
    tied = [(key, value) for key, value in chunk if not re.match(r"\d", str(value))]
    return [
        node
        for node in own or [node for node in nodes if "queue" not in node]
        if "offline" not in str(node.get("state"))
        and all(value in str(_has(node, key)).split(",") for key, value in tied)
    ]


def _has(node: _Row, resource: str) -> Any:
    return node.get("resources_available", {}).get(resource)


def _count(node: _Row, resource: str) -> int:
    return int(_has(node, resource) or 0)


def _mib(text: object) -> int:
    """Read memory as MiB; 0 if malformed."""
    match = re.fullmatch(r"(\d+)([kmgt]?b)?", str(text).lower())
    return int(int(match[1]) * _MIB[match[2] or "b"]) if match else 0


def _each_user(row: _Row, key: str) -> int | None:
    """Read a limit that each user has: ``[u:PBS_GENERIC=100]``."""
    match = re.search(r"u:PBS_GENERIC=(\d+)", str(row.get(key, "")))
    return int(match[1]) if match else None
