"""The tables of a site file for a Grid Engine, from the values of its own settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hpcpipe.schedulers.base import Run
from hpcpipe.schedulers.probe import spelled_memory, spelled_time
from hpcpipe.schedulers.sge.qconf import (
    Host,
    Part,
    Resource,
    largest,
    longest,
    mib,
    pairs,
    read_facts,
    seconds,
    words,
)

KEPT = ("h_vmem", "s_vmem", "h_rss")  # by killing who has more
MEMORY = (*KEPT, "mem_free", "virtual_free")
_GPUS = ("gpu", "gpus", "ngpus", "num_gpus")


def environments(run: Run, rows: Sequence[Mapping[str, str]]) -> list[str]:
    """List the parallel environments that keep a job on one host, that of most queues first."""
    used = [name for row in rows for name in {*words(row.get("pe_list", ""))}]
    fit = []
    for name in sorted({*used}):
        done = run(("qconf", "-sp", name), None)  # it may be the name of a host
        if not done.status and read_facts(done.stdout).get("allocation_rule") == "$pe_slots":
            fit.append(name)
    return sorted(fit, key=lambda name: -used.count(name))


def own_table(resources: Mapping[str, Resource], suited: Sequence[str]) -> dict[str, Any]:
    """Return by which names jobs request cpus, memory, time and GPUs."""
    names = [name for name in MEMORY if name in resources and resources[name].asked_for]
    consumable = [name for name in names if resources[name].consumable != "NO"]
    memory = next(iter(consumable or names), "")
    gpus = (one for one in _GPUS if one in resources and resources[one].type in ("INT", "RSMAP"))
    times = (one for one in ("h_rt", "s_rt") if one in resources and resources[one].asked_for)
    own: dict[str, Any] = {"parallel_environment": suited[0]} if suited else {}
    return own | {
        "memory_resource": memory,
        "memory_per_slot": bool(memory) and resources[memory].consumable == "YES",
        "time_resource": next(times, ""),
        "gpu_resource": next(gpus, ""),
    }


def limits(facts: Mapping[str, str]) -> dict[str, Any]:
    """Return the limits of jobs; Grid Engine's 0 is no limit."""
    told: dict[str, Any] = {}
    if tasks := int(facts.get("max_aj_tasks", "0")):
        told["array_size"] = tasks
    if jobs := int(facts.get("max_u_jobs", "0")):
        told |= {"max_jobs": jobs, "elements_count": False}
    if (late := 2 * flush(facts)) > 30:
        told["settle_seconds"] = late
    return told


def defaults(resources: Mapping[str, Resource], own: Mapping[str, Any]) -> dict[str, str]:
    """Return the defaults of tasks that do not request what they must."""
    told = {}
    if (name := own["memory_resource"]) and must_ask(name, resources[name]):
        told["memory"] = "2G"
    if (name := own["time_resource"]) and resources[name].requestable == "FORCED":
        told["time"] = "1h"
    return told


def must_ask(name: str, resource: Resource) -> bool:
    """Return whether a job that does not request this complex can never run."""
    none = resource.consumable != "NO" and name in KEPT and mib(resource.default) == 0
    return none or resource.requestable == "FORCED"


def rank(row: Mapping[str, str]) -> tuple[int, float]:
    """Rank queues as Grid Engine does; of equals, that which takes all is first."""
    number = re.match(r"\d+", row.get("seq_no", ""))
    return int(number[0]) if number else 0, -(longest(row.get("h_rt", "")) or float("inf"))


def open_parts(queue: str, hosts: Mapping[str, Host], mine: set[str]) -> list[tuple[Host, Part]]:
    """List where the queue takes batch jobs of this user: not disabled, in error or orphaned."""
    return [
        (host, part)
        for name, host in hosts.items()
        if (part := host.parts.get(queue)) is not None
        and f"{queue}@{name}" in mine
        and not {*part.state} & {*"dEoc"}
        and {*part.kinds} & {*"BP"}
    ]


def queue_table(
    row: Mapping[str, str],
    parts: Sequence[tuple[Host, Part]],
    own: Mapping[str, Any],
    resources: Mapping[str, Resource],
) -> dict[str, Any]:
    """Return a queue as the table of a site file."""
    queue: dict[str, Any] = {"name": row["qname"]}
    times = [longest(row.get(limit, "")) for limit in ("h_rt", "s_rt")]
    if finite := [time for time in times if time]:
        queue["max_time"] = spelled_time(min(finite))
    memory, parallel = own["memory_resource"], words(row.get("pe_list", ""))
    slots = [
        min(part.slots, int(float(host.values.get("slots", part.slots)))) for host, part in parts
    ]
    cpus = max(slots) if own.get("parallel_environment") in parallel else 1
    most = max(mib(host.values.get(memory, "")) or host.memory for host, _ in parts)
    if limit := largest(row.get(memory, "")):
        most = min(most, limit * (cpus if own["memory_per_slot"] else 1))
    if most:
        queue["max_memory"] = spelled_memory(most)
    queue["max_cpus"] = max(cpus, 1)
    if all("B" not in part.kinds for _, part in parts):
        queue["min_cpus"] = 2  # it takes parallel jobs only
    gpus = [int(float(host.values.get(own["gpu_resource"], "0"))) for host, _ in parts]
    if any(gpus):
        queue["max_gpus"] = max(gpus)
        if all(gpus):
            queue["min_gpus"] = 1  # leave its hosts to those who need GPUs
    if projects := words(row.get("projects", "")):
        queue["accounts"] = projects
    has = dict(pairs(row.get("complex_values", ""))).items()
    forced = [(name, value) for name, value in has if name in resources]
    forced = [(name, value) for name, value in forced if resources[name].requestable == "FORCED"]
    if forced:
        queue["options"] = [f"-l {name}={value}" for name, value in forced]
    return queue


def flush(facts: Mapping[str, str]) -> int:
    """Return how many seconds after its end a job is in the accounting."""
    told = dict(pairs(facts.get("reporting_params", "")))
    late = seconds(told.get("accounting_flush_time", "0"))
    return late if "accounting_flush_time" in told else seconds(told.get("flush_time", "15"))
