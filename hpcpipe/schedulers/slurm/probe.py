"""A live Slurm, looked at with sinfo, scontrol and sacctmgr. Tried on 22.05.8."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from getpass import getuser
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar

from hpcpipe.errors import SchedulerError
from hpcpipe.quantities import parse_time
from hpcpipe.schedulers.base import Run
from hpcpipe.schedulers.probe import Finding, Found, ask, unkept, unreserved

if TYPE_CHECKING:
    from hpcpipe.site import Site

_CONFIG = ("scontrol", "show", "config")
_PARTITIONS = ("scontrol", "-o", "show", "partition")
_NODES = ("sinfo", "-h", "-N", "-o", "%P|%c|%m|%G|%f")
_GPU = r"gpu(?::([A-Za-z][\w.-]*))?:(\d+)"


class Probe:
    """Reads the partitions, nodes and settings of a Slurm."""

    name: ClassVar[str] = "slurm"
    from_node: ClassVar[tuple[str, ...]] = ("sbatch", "--test-only", "--time=1", "--wrap=true")

    def look(self, run: Run) -> Found:
        facts = _facts(ask(run, *_CONFIG))
        accounts, most = _associations(run)
        nodes = _nodes(ask(run, *_NODES))
        partitions = [_facts_of(line) for line in ask(run, *_PARTITIONS).splitlines() if line]
        queues = [
            _queue(one, nodes.get(one["PartitionName"], []))
            for one in partitions
            if one.get("State") == "UP" and _open(one, accounts)
        ]
        limits: dict[str, Any] = {"array_size": int(facts.get("MaxArraySize", "1001"))}
        if most is not None:
            limits["max_jobs"] = most
        settings: dict[str, Any] = {"limits": limits, "queues": unreserved(queues)}
        if accounts:
            settings["defaults"] = {"account": accounts[0]}
        remarks = {
            "limits.array_size": "MaxArraySize; the last index stays below it",
            "limits.max_jobs": "MaxSubmitJobs of your association",
            "defaults.account": f"your default; you may use {', '.join(accounts)}",
        }
        version = facts.get("SLURM_VERSION", "")
        commands = [" ".join(words) for words in (_CONFIG, _PARTITIONS, _NODES)]
        return Found("slurm", version, settings, remarks, facts, tuple(accounts), tuple(commands))

    def check(self, found: Found, site: Site) -> Iterator[Finding]:
        yield _version(found.version)
        yield from _dependencies(found.facts)
        yield _order(found.facts, site.own.nice)
        yield from _accounting(found.facts)
        yield from _memory(found.facts, site)
        if found.facts.get("EnforcePartLimits") == "NO":
            yield Finding(
                "EnforcePartLimits", "warning", "NO: a job over its queue's limits waits for ever",
                "keep the queues' limits in the site file true: hpcpipe refuses such tasks itself",
            )  # fmt: skip


def _facts(text: str) -> dict[str, str]:
    """Read ``Name = value`` lines."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _facts_of(line: str) -> dict[str, str]:
    """Read ``Name=value`` words."""
    return dict(re.findall(r"(\S+?)=(\S*)", line))


def _associations(run: Run) -> tuple[list[str], int | None]:
    """List the accounts this user may charge, the default one first, and their most jobs."""
    user = f"user={getuser()}"
    show = ("sacctmgr", "-nP", "show")
    try:
        default = ask(run, *show, "user", user, "format=DefaultAccount").split()
        rows = ask(run, *show, "assoc", user, "format=Account,MaxSubmitJobs").splitlines()
    except SchedulerError:
        return [], None  # without accounting there is no one to ask
    fields = [row.split("|") for row in rows if "|" in row]
    most = [int(count) for _, count in fields if count.isdigit()]
    return [*dict.fromkeys([*default, *(account for account, _ in fields)])], min(
        most, default=None
    )


def _nodes(text: str) -> dict[str, list[tuple[int, int, str, set[str]]]]:
    """Read, by partition, the nodes: cpus, memory, generic resources, features."""
    nodes: dict[str, list[tuple[int, int, str, set[str]]]] = {}
    for line in text.splitlines():
        partition, cpus, memory, gres, features = line.split("|", 4)
        words = set() if features == "(null)" else set(features.split(","))
        row = (int(cpus.rstrip("+")), int(memory.rstrip("+")), gres, words)
        nodes.setdefault(partition.rstrip("*"), []).append(row)
    return nodes


def _open(partition: Mapping[str, str], accounts: Sequence[str]) -> bool:
    allowed = partition.get("AllowAccounts", "ALL")
    return allowed == "ALL" or bool({*allowed.split(",")} & {*accounts})


def _queue(
    partition: Mapping[str, str], nodes: Sequence[tuple[int, int, str, set[str]]]
) -> dict[str, Any]:
    """Return a partition as the table of a site file."""
    queue: dict[str, Any] = {"name": partition["PartitionName"]}
    if partition.get("Default") == "YES":
        queue["default"] = True
    for key, fact in (("max_time", "MaxTime"), ("default_time", "DefaultTime")):
        if re.fullmatch(r"[\d:-]+", value := partition.get(fact, "")):
            queue[key] = value
    if nodes:
        queue["max_memory"] = f"{max(memory for _, memory, _, _ in nodes)}M"
        queue["max_cpus"] = max(cpus for cpus, _, _, _ in nodes)
        queue |= _gpus([gres for _, _, gres, _ in nodes])
        every = set.intersection(*(words for *_, words in nodes))
        some = set.union(*(words for *_, words in nodes)) - every
        if every:
            queue["features"] = sorted(every)
        if some:
            queue["constraints"] = {word: word for word in sorted(some)}
    if partition.get("OverSubscribe") == "EXCLUSIVE":
        queue["exclusive"] = True
    if (least := partition.get("MinNodes", "0")).isdigit() and int(least) > 1:
        queue["min_nodes"] = int(least)
    if partition.get("PreemptMode", "OFF") not in ("OFF", "GANG"):
        queue["preemptible"] = True
    return queue


def _gpus(listed: Sequence[str]) -> dict[str, Any]:
    counts = [sum(int(count) for _, count in re.findall(_GPU, gres)) for gres in listed]
    if not any(counts):
        return {}
    models = sorted({model for gres in listed for model, _ in re.findall(_GPU, gres) if model})
    found: dict[str, Any] = {"max_gpus": max(counts)}
    if all(counts):
        found["min_gpus"] = 1  # leave its machines to those who need GPUs
    if models:
        found["gpu_models"] = {model: model for model in models}
    return found


def _version(version: str) -> Finding:
    numbers = [int(part) for part in re.findall(r"\d+", version)[:2]]
    if numbers < [20, 2]:
        return Finding("Slurm", "warning", f"{version} is older than any that was tried", "try it")
    said = f"{version}"
    if numbers < [23, 2]:
        said += "; takes a forgotten predecessor as good, which the scripts check for themselves"
    return Finding("Slurm", "ok", said)


def _dependencies(facts: Mapping[str, str]) -> Iterator[Finding]:
    parameters = facts.get("SchedulerParameters", "")
    match = re.search(r"correspond_after_task_cnt=(\d+)", parameters)
    count = int(match[1]) if match else 10
    about, said = "correspond_after_task_cnt", f"{count} elements of an aligned array are looked at"
    if count < 100:
        yield Finding(
            about, "warning", f"{said}: a slow one among them holds the others up",
            "ask the administrators for SchedulerParameters=correspond_after_task_cnt=1000",
        )  # fmt: skip
    else:
        yield Finding(about, "ok", said)
    age = int((re.findall(r"\d+", facts.get("MinJobAge", "")) or ["300"])[0])
    if age < 60:
        yield Finding(
            "MinJobAge", "warning", f"{age} s: jobs are forgotten soon after their end",
            "submit whole workflows, not one node after another",
        )  # fmt: skip
    else:
        yield Finding("MinJobAge", "ok", f"{age} s")
    ends = "kill_invalid_depend" in facts.get("DependencyParameters", "") + parameters
    how = "set" if ends else "not set; hpcpipe says --kill-on-invalid-dep=yes with each job"
    yield Finding("kill_invalid_depend", "ok", how)


def _order(facts: Mapping[str, str], nice: int | None) -> Finding:
    """Check whether batches are started in the order of their submission, which the plan chose.

    Where age counts it does so from when a job may start, so that one which waits for nothing
    overtakes one which waits for others. Seen on 22.05.8, where `--nice` was the remedy.
    """
    plugin = facts.get("PriorityType", "priority/basic")
    weight = int((re.findall(r"\d+", facts.get("PriorityWeightAge", "")) or ["0"])[0])
    if "multifactor" not in plugin or not weight:
        return Finding("order of jobs", "ok", f"{plugin}: yours start as they were submitted")
    hour = ceil(weight * 3600 / parse_time(facts.get("PriorityMaxAge", "7-00:00:00")))
    kept = (
        f"each batch is nicer by {nice}" if nice else f"slurm.nice = {hour} keeps the planned order"
    )
    return Finding(
        "order of jobs", "ok",
        f"{plugin}: an hour's wait is worth {hour} (PriorityWeightAge={weight}); {kept}",
    )  # fmt: skip


def _accounting(facts: Mapping[str, str]) -> Iterator[Finding]:
    kind = facts.get("AccountingStorageType", "")
    if "slurmdbd" in kind or "mysql" in kind:
        yield Finding("accounting", "ok", f"{kind}: how a job ended can be asked for later")
    else:
        yield Finding(
            "accounting", "warning",
            f"{kind or 'none'}: how a job ended is known only as long as MinJobAge",
            "look at a run while it is running; results do not depend on it",
        )  # fmt: skip


def _memory(facts: Mapping[str, str], site: Site) -> Iterator[Finding]:
    gather, task = facts.get("JobAcctGatherParams", ""), facts.get("TaskPlugin", "")
    if "cgroup" in task:
        yield Finding("memory limit", "ok", f"kept by {task}")
    elif "OverMemoryKill" in gather:
        yield Finding("memory limit", "ok", "kept by OverMemoryKill, which looks now and then")
    else:
        said = "Slurm does not keep it: a greedy task fells its neighbours"
        do = "ask the administrators for task/cgroup with ConstrainRAMSpace"
        yield unkept(said, do, site)
    if facts.get("DefMemPerCPU", "0").isdigit():
        yield Finding("memory by default", "ok", f"{facts['DefMemPerCPU']} MB a cpu")
