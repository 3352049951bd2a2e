"""A live Grid Engine, looked at with qconf, qhost, qselect and qacct.

Tried on Son of Grid Engine 8.1.9.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from getpass import getuser
from typing import TYPE_CHECKING, Any, ClassVar

from hpcpipe.errors import SchedulerError
from hpcpipe.schedulers.base import Run
from hpcpipe.schedulers.probe import Finding, Found, among, ask, unkept, unreserved
from hpcpipe.schedulers.sge.qconf import (
    Resource,
    kinds,
    pairs,
    read_facts,
    read_hosts,
    read_queues,
    read_resources,
)
from hpcpipe.schedulers.sge.site_file import (
    KEPT,
    MEMORY,
    defaults,
    environments,
    flush,
    limits,
    must_ask,
    open_parts,
    own_table,
    queue_table,
    rank,
)

if TYPE_CHECKING:
    from hpcpipe.site import Site

_CONFIG = ("qconf", "-sconf")
_RESOURCES = ("qconf", "-sc")
_QUEUES = ("qconf", "-sq", "*")
_HOSTS = ("qhost", "-q")
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


class Probe:
    """Reads the queues, hosts, resources and settings of a Grid Engine."""

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
        suited = environments(run, rows)
        own = own_table(resources, suited)
        mine = {*ask(run, "qselect", "-U", getuser()).split()}
        queues = []
        for row in sorted(rows, key=rank):
            if parts := open_parts(row["qname"], hosts, mine):
                queues.append(queue_table(row, parts, own, resources))
        if not any("max_gpus" in queue for queue in queues):
            del own["gpu_resource"]
        settings: dict[str, Any] = {"limits": limits(facts)}
        if asked := defaults(resources, own):
            settings["defaults"] = asked
        settings |= {"sge": own, "queues": unreserved(queues)}
        facts |= {f"resource {name}": " ".join(one) for name, one in resources.items()}
        facts |= {"qacct": _unread(run), "suited": " ".join(suited)}
        version = ask(run, "qconf", "-help").partition("\n")[0].strip().removeprefix("SGE ")
        sources = [" ".join(command) for command in (_CONFIG, _RESOURCES, _QUEUES, _HOSTS)]
        return Found("sge", version, settings, _REMARKS, facts, sources=tuple(sources))

    def check(self, found: Found, site: Site) -> Iterator[Finding]:
        facts, sge = found.facts, site.own
        yield from _accounting(facts, site)
        if most := int(facts.get("max_aj_instances", "0")):
            yield Finding("max_aj_instances", "ok", f"{most} elements of an array at a time")
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


def _unread(run: Run) -> str:
    """Return why the accounting, a file of the master's host, cannot be read; or nothing."""
    try:
        ask(run, "qacct", "-o", getuser(), "-d", "1")
    except SchedulerError as error:
        return str(error)
    return ""


def _accounting(facts: Mapping[str, str], site: Site) -> Iterator[Finding]:
    late, settle = flush(facts), site.limits.settle_seconds
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
    name = site.own.memory_resource
    if not name:
        known = " or ".join(one for one in MEMORY if one in resources)
        said = "is not asked for: a greedy task fells its neighbours"
        yield Finding("memory", "warning", said, f"set sge.memory_resource, to {known} maybe")
        return
    yield among("sge.memory_resource", name, resources, "resource")
    if name not in resources:
        return
    resource = resources[name]
    per_slot = resource.consumable == "YES"
    if per_slot is not site.own.memory_per_slot:
        said = f"{name} is counted per {'slot' if per_slot else 'job'}"
        do = f"set sge.memory_per_slot = {str(per_slot).lower()}"
        yield Finding("sge.memory_per_slot", "wrong", said, do)
    if name not in KEPT:
        said = f"{name} is {'set' if resource.consumable != 'NO' else 'not even set'} aside"
        do = "ask the administrators for h_vmem as a consumable"
        yield unkept(f"{said}, and Grid Engine does not keep it", do, site)
    else:
        yield Finding("memory limit", "ok", f"kept by {name}, per {'slot' if per_slot else 'job'}")
    if must_ask(name, resource) and site.defaults.memory is None:
        said = f"a job that asks for no {name} gets none"
        yield Finding("memory by default", "warning", said, 'set defaults.memory = "2G"')
