"""A live LSF, looked at with bqueues, bhosts, lshosts, bmgroup, bparams and badmin.

Written from the documentation of 10.1 and what others report of its output; not tried on a real
one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from getpass import getuser
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from hpcpipe.errors import SchedulerError
from hpcpipe.schedulers.base import Run
from hpcpipe.schedulers.probe import (
    Finding,
    Found,
    ask,
    spelled_memory,
    spelled_time,
    unkept,
    unreserved,
)

if TYPE_CHECKING:
    from hpcpipe.site import Site

_PARAMS = ("bparams", "-a")
_QUEUES = ("bqueues", "-l", "-u")
_HOSTS = ("bhosts", "-o", "host_name max ngpus", "-json")
_OLD_HOSTS = ("bhosts", "-o", "host_name max", "-json")  # which knows nothing of GPUs
_MACHINES = ("lshosts", "-w")
_ARRAY = 1000  # the greatest index, where nobody set one
_CLEAN = 3600  # seconds that an ended job is remembered by default
_MIB = {"K": 2**-10, "M": 1, "G": 2**10, "T": 2**20}
_REMARKS = {
    "limits.array_size": "MAX_JOB_ARRAY_SIZE",
    "lsf.memory_per_slot": "RESOURCE_RESERVE_PER_TASK",
}


class _Host(NamedTuple):
    cpus: int
    memory: int  # MiB
    gpus: int


class Probe:
    """Reads the queues, hosts and settings of an LSF."""

    name: ClassVar[str] = "lsf"
    # Its bsub cannot be asked without submitting.
    from_node: ClassVar[tuple[str, ...]] = (
        "sh", "-c", "command -v bsub >/dev/null && exec bparams -a",
    )  # fmt: skip

    def look(self, run: Run) -> Found:
        version = re.search(r"\d+(\.\d+)+", ask(run, "lsid"))
        facts = _facts(ask(run, *_PARAMS)) | _facts(_maybe(run, "badmin", "showconf", "mbd"))
        hosts = _hosts(_maybe(run, *_HOSTS) or ask(run, *_OLD_HOSTS), ask(run, *_MACHINES))
        groups = dict(_groups(_maybe(run, "bmgroup", "-r", "-w")))
        first = facts.get("DEFAULT_QUEUE", "").split()[:1]
        blocks = re.split(r"^QUEUE:\s*", ask(run, *_QUEUES, getuser()), flags=re.M)[1:]
        queues = [
            _queue(block, first, [hosts[name] for name in _serving(block, groups, hosts)])
            for block in blocks
            if re.search(r"\sOpen:", block) and "ONLY_INTERACTIVE" not in block
        ]
        settings: dict[str, Any] = {
            "limits": {"array_size": int(_number(facts, "MAX_JOB_ARRAY_SIZE", _ARRAY))},
            "lsf": {"memory_per_slot": _per_slot(facts)},
            "queues": unreserved(queues),
        }
        sources = tuple(" ".join(words) for words in (_PARAMS, _QUEUES[:2], _HOSTS, _MACHINES))
        return Found(
            "lsf", version[0] if version else "", settings, _REMARKS, facts, sources=sources
        )

    def check(self, found: Found, site: Site) -> Iterator[Finding]:
        facts, live = found.facts, found.settings["lsf"]["memory_per_slot"]
        numbers = [int(part) for part in found.version.split(".") if part]
        if numbers < [10, 1, 0, 2]:
            said = f"{found.version}: bjobs -json is there from 10.1.0.2 on"
            yield Finding("LSF", "wrong", said, "ask the administrators for a later one")
        kept = int(_number(facts, "CLEAN_PERIOD", _CLEAN))
        said = f"{kept} s: so long is known how a job ended"
        if kept < 600:
            do = "look at a run while it is running, and submit whole workflows"
            yield Finding("CLEAN_PERIOD", "warning", said, do)
        else:
            yield Finding("CLEAN_PERIOD", "ok", said)
        counted = f"memory is reserved per {'slot' if live else 'job'}"
        if live is not site.own.memory_per_slot:
            do = f"set lsf.memory_per_slot = {str(live).lower()}"
            yield Finding("lsf.memory_per_slot", "wrong", counted, do)
        else:
            yield Finding("lsf.memory_per_slot", "ok", counted)
        yield _memory(facts, site)


def _memory(facts: Mapping[str, str], site: Site) -> Finding:
    """Check who enforces the memory limit, by lsf.conf."""
    keys = ("LSB_MEMLIMIT_ENFORCE", "LSB_JOB_MEMLIMIT")
    by = next((key for key in keys if facts.get(key, "n").lower().startswith("y")), None)
    if by or "memory" in facts.get("LSB_RESOURCE_ENFORCE", ""):
        return Finding("memory limit", "ok", f"kept by {by or 'LSB_RESOURCE_ENFORCE'}")
    if not any(key.startswith("LSB_") for key in facts):
        said = "who keeps it cannot be seen: badmin showconf is not for everybody here"
        return Finding("memory limit", "ok", said)
    said = "kept for each process at best, not for the job"
    return unkept(said, 'ask the administrators for LSB_RESOURCE_ENFORCE="memory"', site)


def _maybe(run: Run, *words: str) -> str:
    """Ask what not every LSF shows to everybody."""
    try:
        return ask(run, *words)
    except SchedulerError:
        return ""


def _facts(text: str) -> dict[str, str]:
    """Read ``NAME = value`` lines."""
    return dict(re.findall(r"^\s*([A-Z]\w*)\s*=\s*(.*?)\s*$", text, re.M))


def _number(facts: Mapping[str, str], key: str, default: float) -> float:
    match = re.match(r"[\d.]+", facts.get(key, ""))
    return float(match[0]) if match else default


def _per_slot(facts: Mapping[str, str]) -> bool:
    keys = ("RESOURCE_RESERVE_PER_TASK", "RESOURCE_RESERVE_PER_SLOT")  # the latter before 9.1.3
    return any(facts.get(key, "n").lower().startswith("y") for key in keys)


def _hosts(slots: str, machines: str) -> dict[str, _Host]:
    """Read the hosts that take jobs: slots and GPUs of one answer, memory of the other."""
    has: dict[str, tuple[int, int]] = {}
    for line in machines.splitlines()[1:]:
        if len(words := line.split()) > 5:
            has[words[0]] = (int(words[4]) if words[4].isdigit() else 0, _mib(words[5]))
    hosts = {}
    for row in json.loads(slots)["RECORDS"]:
        cpus, memory = has.get(row["HOST_NAME"], (0, 0))
        most = int(row["MAX"]) if str(row["MAX"]).isdigit() else cpus  # "-" is no limit
        gpus = str(row.get("NGPUS") or "")
        if most:
            hosts[row["HOST_NAME"]] = _Host(most, memory, int(gpus) if gpus.isdigit() else 0)
    return hosts


def _groups(text: str) -> Iterator[tuple[str, list[str]]]:
    for line in text.splitlines()[1:]:
        if words := line.split():
            yield words[0], words[1:]


def _serving(block: str, groups: Mapping[str, list[str]], hosts: Mapping[str, _Host]) -> list[str]:
    """List the hosts of a queue: it names them, groups of them (``gpus/``), or all."""
    match = re.search(r"^HOSTS:\s*(.*)$", block, re.M)
    names: list[str] = []
    for word in match[1].split() if match else ["all"]:
        name = re.sub(r"(/.*)?(\+\d+)?$", "", word)
        if name in ("all", "others"):
            names += hosts
        names += groups.get(name, [name])
    return [name for name in dict.fromkeys(names) if name in hosts]


def _queue(block: str, first: list[str], hosts: list[_Host]) -> dict[str, Any]:
    """Return a queue as the table of a site file."""
    queue: dict[str, Any] = {"name": block.split(None, 1)[0]}
    if [queue["name"]] == first:
        queue["default"] = True
    # Where there are no defaults, the limits have no heading.
    head, _, rest = block.partition("MAXIMUM LIMITS:")
    most, default = _limits(rest or head), _limits(head) if rest else {}
    for key, limits in (("max_time", most), ("default_time", default)):
        if minutes := re.match(r"([\d.]+) min", limits.get("RUNLIMIT", "")):
            queue[key] = spelled_time(round(float(minutes[1]) * 60))
    memory = [_mib(most.get("MEMLIMIT", "")), max((host.memory for host in hosts), default=0)]
    if any(memory):
        queue["max_memory"] = spelled_memory(min(size for size in memory if size))
    tasks = [int(word) for word in most.get("TASKLIMIT", most.get("PROCLIMIT", "")).split()]
    cpus = [tasks[-1] if tasks else 0, max((host.cpus for host in hosts), default=0)]
    if any(cpus):
        queue["max_cpus"] = min(count for count in cpus if count)
    if len(tasks) > 1 and tasks[0] > 1:
        queue["min_cpus"] = tasks[0]
    if gpus := max((host.gpus for host in hosts), default=0):
        queue["max_gpus"] = gpus
        if all(host.gpus for host in hosts):
            queue["min_gpus"] = 1  # leave its hosts to those who need GPUs
    return queue


def _limits(text: str) -> dict[str, str]:
    """Read limits by name: a line of one name or several, and below it a line of values."""
    limits: dict[str, str] = {}
    lines = text.splitlines()
    for head, values in pairwise(lines):
        names = head.split()
        if not names or not all(re.fullmatch(r"[A-Z]+LIMIT", name) for name in names):
            continue
        told = re.findall(r"[\d.]+\s*[KMGT]\b", values) if len(names) > 1 else [values.strip()]
        limits |= dict(zip(names, told, strict=False))
    return limits


def _mib(text: str) -> int:
    """Read memory (``20 G``, ``62.3G``, ``5000 K``) as MiB; 0 if malformed."""
    match = re.fullmatch(r"([\d.]+)\s*([KMGT])", text.strip())
    return int(float(match[1]) * _MIB[match[2]]) if match else 0
