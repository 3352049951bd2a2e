"""A live Grid Engine, looked at with qconf, qhost, qselect and qacct.

Tried on Son of Grid Engine 8.1.9.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from getpass import getuser
from typing import Any, ClassVar

from hpcpipe.errors import SchedulerError
from hpcpipe.probes.base import Finding, Found, among, ask, spelled_memory, spelled_time, unreserved
from hpcpipe.probes.qconf import (
    Host,
    Part,
    Resource,
    kinds,
    largest,
    longest,
    mib,
    pairs,
    read_facts,
    read_hosts,
    read_queues,
    read_resources,
    seconds,
    words,
)
from hpcpipe.schedulers.base import Run
from hpcpipe.site import Site

_CONFIG = ("qconf", "-sconf")
_RESOURCES = ("qconf", "-sc")
_QUEUES = ("qconf", "-sq", "*")
_HOSTS = ("qhost", "-q")
_KEPT = ("h_vmem", "s_vmem", "h_rss")  # by killing who has more
_MEMORY = (*_KEPT, "mem_free", "virtual_free")
_GPUS = ("gpu", "gpus", "ngpus", "num_gpus")
_REMARKS = {
    "limits.array_size": "max_aj_tasks",
    "limits.max_jobs": "max_u_jobs",
    "limits.elements_count": "to max_u_jobs an array is one job",
    "limits.settle_seconds": "an end is in the accounting only after flush_time",
    "defaults.memory": "who asks for none gets none, and is killed at once",
    "defaults.time": "every job must ask for it",
    "sge.parallel_environment": "its allocation_rule is $pe_slots",
    "sge.memory_per_slot": "YES in its column consumable of qconf -sc is per slot",
}


class SgeProbe:
    """Reads what Grid Engine says of its queues, hosts, resources and its own settings."""

    name: ClassVar[str] = "sge"
    from_node: ClassVar[tuple[str, ...]] = ("qsub", "-w", "v", "-b", "y", "-shell", "n", "true")

    def look(self, run: Run) -> Found:
        facts = read_facts(ask(run, *_CONFIG))
        resources = read_resources(ask(run, *_RESOURCES))
        rows = read_queues(ask(run, *_QUEUES))
        hosts = read_hosts(ask(run, *_HOSTS))
        for alike in kinds(hosts):
            name = next(name for name, host in hosts.items() if host is alike[0])
            has = read_facts(ask(run, "qconf", "-se", name)).get("complex_values", "")
            for host in alike:
                host.values.update(pairs(has))
        suited = _environments(run, rows)
        own = _own(resources, suited)
        mine = {*ask(run, "qselect", "-U", getuser()).split()}
        queues = []
        for row in sorted(rows, key=_rank):
            if parts := _open(row["qname"], hosts, mine):
                queues.append(_queue(row, parts, own, resources))
        if not any("max_gpus" in queue for queue in queues):
            del own["gpu_resource"]
        settings: dict[str, Any] = {"limits": _limits(facts)}
        if defaults := _defaults(resources, own):
            settings["defaults"] = defaults
        settings |= {"sge": own, "queues": unreserved(queues)}
        facts |= {f"resource {name}": " ".join(one) for name, one in resources.items()}
        facts |= {"qacct": _unread(run), "suited": " ".join(suited)}
        version = ask(run, "qconf", "-help").partition("\n")[0].strip().removeprefix("SGE ")
        sources = [" ".join(command) for command in (_CONFIG, _RESOURCES, _QUEUES, _HOSTS)]
        return Found("sge", version, settings, _REMARKS, facts, sources=tuple(sources))

    def check(self, found: Found, site: Site) -> Iterator[Finding]:
        facts, sge = found.facts, site.sge
        yield from _accounting(facts, site)
        told = [name for name in facts if name.startswith("resource ")]
        resources = {name.split()[1]: Resource(*facts[name].split()) for name in told}
        yield from _memory(resources, site)
        if sge.time_resource:
            times = [one for one, has in resources.items() if has.type == "TIME" and has.asked_for]
            yield among("sge.time_resource", sge.time_resource, times, "limit of time")
        about = "sge.parallel_environment"
        if suited := facts["suited"].split():
            what = "parallel environment with $pe_slots"
            yield among(about, sge.parallel_environment, suited, what)
        else:
            yield Finding(
                about, "warning", "none keeps a job on one host: no task gets several cpus",
                "ask the administrators for one with allocation_rule $pe_slots",
            )  # fmt: skip
        if gpu := found.settings["sge"].get("gpu_resource"):
            yield among("sge.gpu_resource", sge.gpu_resource, (gpu,), "resource of the hosts")
            if resources[gpu].consumable == "YES":
                yield Finding(
                    "GPUs", "warning", f"{gpu} is counted per slot: 2 cpus and 1 GPU take 2 GPUs",
                    "ask the administrators to count it by job (consumable JOB)",
                )  # fmt: skip
        if facts.get("enforce_project") == "true" and site.defaults.account is None:
            said = "enforce_project: every job must have a project"
            yield Finding("defaults.account", "warning", said, "set defaults.account")


# --- the site file --------------------------------------------------------------------------------


def _unread(run: Run) -> str:
    """Say why the accounting cannot be read, which is a file of the master's host; or nothing."""
    try:
        ask(run, "qacct", "-o", getuser(), "-d", "1")
    except SchedulerError as error:
        return str(error)
    return ""


def _environments(run: Run, rows: Sequence[Mapping[str, str]]) -> list[str]:
    """List the parallel environments that keep a job on one host, that of most queues first."""
    used = [name for row in rows for name in {*words(row.get("pe_list", ""))}]
    fit = []
    for name in sorted({*used}):
        done = run(("qconf", "-sp", name), None)  # it may be the name of a host
        if not done.status and read_facts(done.stdout).get("allocation_rule") == "$pe_slots":
            fit.append(name)
    return sorted(fit, key=lambda name: -used.count(name))


def _own(resources: Mapping[str, Resource], suited: Sequence[str]) -> dict[str, Any]:
    """Say by what name jobs ask for cpus, memory, time and GPUs."""
    names = [name for name in _MEMORY if name in resources and resources[name].asked_for]
    consumable = [name for name in names if resources[name].consumable != "NO"]
    memory = next(iter(consumable or names), "")
    times = (one for one in ("h_rt", "s_rt") if one in resources and resources[one].asked_for)
    own: dict[str, Any] = {"parallel_environment": suited[0]} if suited else {}
    return own | {
        "memory_resource": memory,
        "memory_per_slot": bool(memory) and resources[memory].consumable == "YES",
        "time_resource": next(times, ""),
        "gpu_resource": next((name for name in _GPUS if name in resources), ""),
    }


def _limits(facts: Mapping[str, str]) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if tasks := int(facts.get("max_aj_tasks", "0")):
        limits["array_size"] = tasks
    if jobs := int(facts.get("max_u_jobs", "0")):
        limits |= {"max_jobs": jobs, "elements_count": False}
    if (late := 2 * _flush(facts)) > 30:
        limits["settle_seconds"] = late
    return limits


def _defaults(resources: Mapping[str, Resource], own: Mapping[str, Any]) -> dict[str, str]:
    defaults = {}
    if (name := own["memory_resource"]) and _must_ask(name, resources[name]):
        defaults["memory"] = "2G"
    if (name := own["time_resource"]) and resources[name].requestable == "FORCED":
        defaults["time"] = "1h"
    return defaults


def _must_ask(name: str, resource: Resource) -> bool:
    """Tell whether a job that asks for none of it comes to nothing."""
    none = resource.consumable != "NO" and name in _KEPT and mib(resource.default) == 0
    return none or resource.requestable == "FORCED"


def _rank(row: Mapping[str, str]) -> tuple[int, float]:
    """Rank queues as Grid Engine does; of equals, that which takes all is first."""
    number = re.match(r"\d+", row.get("seq_no", ""))
    return int(number[0]) if number else 0, -(longest(row.get("h_rt", "")) or float("inf"))


def _open(queue: str, hosts: Mapping[str, Host], mine: set[str]) -> list[tuple[Host, Part]]:
    """List where the queue takes batch jobs of this user: not disabled, in error or orphaned."""
    return [
        (host, part)
        for name, host in hosts.items()
        if (part := host.parts.get(queue)) is not None
        and f"{queue}@{name}" in mine
        and not {*part.state} & {*"dEoc"}
        and {*part.kinds} & {*"BP"}
    ]


def _queue(
    row: Mapping[str, str],
    parts: Sequence[tuple[Host, Part]],
    own: Mapping[str, Any],
    resources: Mapping[str, Resource],
) -> dict[str, Any]:
    """Say of a queue what a site file would."""
    queue: dict[str, Any] = {"name": row["qname"]}
    times = [longest(row.get(limit, "")) for limit in ("h_rt", "s_rt")]
    if finite := [time for time in times if time]:
        queue["max_time"] = spelled_time(min(finite))
    memory, parallel = own["memory_resource"], words(row.get("pe_list", ""))
    slots = [min(part.slots, int(host.values.get("slots", part.slots))) for host, part in parts]
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


# --- the settings ---------------------------------------------------------------------------------


def _flush(facts: Mapping[str, str]) -> int:
    """Say how many seconds after an end the accounting has it."""
    told = dict(pairs(facts.get("reporting_params", "")))
    late = seconds(told.get("accounting_flush_time", "0"))
    return late if "accounting_flush_time" in told else seconds(told.get("flush_time", "15"))


def _accounting(facts: Mapping[str, str], site: Site) -> Iterator[Finding]:
    late, settle = _flush(facts), site.limits.settle_seconds
    if "accounting=false" in facts.get("reporting_params", ""):
        yield Finding(
            "accounting", "warning", "accounting=false: how a job ended is told by its files only",
            "ask the administrators for reporting_params accounting=true",
        )  # fmt: skip
    elif words_of := facts["qacct"]:
        yield Finding(
            "accounting", "warning", f"qacct cannot read it: {words_of.splitlines()[0]}",
            "if jobs have ended here, ask the administrators to share the accounting file",
        )  # fmt: skip
    elif 2 * late > settle:
        said = f"an end is in it after {late} s, and is waited for {settle} s"
        yield Finding("accounting", "warning", said, f"set limits.settle_seconds = {2 * late}")
    else:
        yield Finding("accounting", "ok", f"remembers all since its last rotation, {late} s late")


def _memory(resources: Mapping[str, Resource], site: Site) -> Iterator[Finding]:
    name, known = site.sge.memory_resource, [one for one in _MEMORY if one in resources]
    if not name:
        said = "is not asked for: a greedy task fells its neighbours"
        yield Finding("memory", "warning", said, f'set sge.memory_resource = "{known[0]}"')
        return
    yield among("sge.memory_resource", name, [*known, *resources], "resource")
    if name not in resources:
        return
    resource = resources[name]
    per_slot = resource.consumable == "YES"
    if per_slot is not site.sge.memory_per_slot:
        said = f"{name} is counted per {'slot' if per_slot else 'job'}"
        do = f"set sge.memory_per_slot = {str(per_slot).lower()}"
        yield Finding("sge.memory_per_slot", "wrong", said, do)
    if name not in _KEPT:
        said = f"{name} is {'set' if resource.consumable != 'NO' else 'not even set'} aside"
        yield Finding(
            "memory limit", "warning", f"{said}, and nobody keeps it",
            "ask the administrators for h_vmem as a consumable",
        )  # fmt: skip
    else:
        yield Finding("memory limit", "ok", f"kept by {name}, per {'slot' if per_slot else 'job'}")
    if _must_ask(name, resource) and site.defaults.memory is None:
        said = f"a job that asks for no {name} gets none"
        yield Finding("memory by default", "warning", said, 'set defaults.memory = "2G"')
