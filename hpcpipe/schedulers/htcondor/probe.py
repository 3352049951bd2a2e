"""A live HTCondor, looked at with condor_status and condor_config_val. Tried on 23.9.6.

It has no queues. What its largest slots have is written as one, and each of a site file is held
against that. Only slots that share the submitter's filesystem count: no job starts on others. What
keeps a limit of memory is asked of one host; whether it may use its cgroups, it does not tell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hpcpipe.errors import SchedulerError
from hpcpipe.schedulers.base import Run
from hpcpipe.schedulers.probe import Finding, Found, ask, spelled_memory, unkept

if TYPE_CHECKING:
    from hpcpipe.site import Site

_SLOTS = (
    "condor_status", "-json", "-attributes",
    "Machine,MyAddress,FileSystemDomain,UidDomain,TotalSlotCpus,TotalSlotMemory,TotalSlotGPUs",
    "-constraint", "DynamicSlot =!= true",
)  # fmt: skip
_JOBS = ("MAX_JOBS_PER_OWNER", "MAX_JOBS_SUBMITTED")
_SETTINGS = ("condor_config_val", "-schedd")
_OF_SCHEDD = (
    *("FILESYSTEM_DOMAIN", "UID_DOMAIN", "DAGMAN_USE_STRICT", "PERIODIC_EXPR_INTERVAL"),
    *("HISTORY", "MAX_HISTORY_LOG", "MAX_HISTORY_ROTATIONS", *_JOBS),
    "START_LOCAL_UNIVERSE",
)
_OF_HOST = ("BASE_CGROUP", "CGROUP_MEMORY_LIMIT_POLICY", "MOUNT_UNDER_SCRATCH", "WANT_HOLD")
_UNLIMITED = 2**31 - 1
_JOB = 5000  # bytes of a job in the history, about
_FEW = 5000  # jobs that are soon forgotten, if others have as many
_OLDEST = 23  # of the versions that were tried
_WATCHED = "neither cgroups nor a policy of the hosts is known to keep a limit of it"
_Slot = Mapping[str, Any]


class Probe:
    """Reads the slots of an HTCondor, and the settings of its schedd and of a host."""

    name: ClassVar[str] = "htcondor"
    from_node: ClassVar[tuple[str, ...]] = ("condor_ping", "-type", "schedd", "WRITE")

    def look(self, run: Run) -> Found:
        every: Sequence[_Slot] = json.loads(ask(run, *_SLOTS) or "[]")
        facts = _values(run, _SETTINGS, _OF_SCHEDD)
        slots = _within(every, "FileSystemDomain", facts["FILESYSTEM_DOMAIN"])
        ours = _within(slots, "UidDomain", facts["UID_DOMAIN"])
        counts = {"slots": every, "with our files": slots, "and our users": ours}
        facts |= {what: str(len(of)) for what, of in counts.items()} | {"bindings": _bindings()}
        if slots:
            host = ("condor_config_val", "-address", slots[0]["MyAddress"], "-startd")
            facts |= _told(run, host, _OF_HOST) | {"host": slots[0]["Machine"]}
        most, whose = min((_number(facts[name], _UNLIMITED), name) for name in _JOBS)
        limits: dict[str, Any] = {"max_jobs": most} if most < _UNLIMITED else {}
        if not _keeper(facts):
            limits["watch_memory"] = True
        remarks = {"limits.max_jobs": whose, "limits.watch_memory": _WATCHED}
        settings = {"limits": limits, "queues": [_queue(slots)] if slots else []}
        groups = _told(run, ("condor_config_val", "-negotiator"), ("GROUP_NAMES",))
        version = re.search(r"\d+(\.\d+)+", ask(run, "condor_version"))
        return Found(
            "htcondor", version[0] if version else "", settings, remarks, facts,
            tuple(re.findall(r"[^\s,]+", groups.get("GROUP_NAMES", ""))),
            ("condor_status", " ".join(_SETTINGS)), queue_names=False,
        )  # fmt: skip

    def check(self, found: Found, site: Site) -> Iterator[Finding]:
        facts = found.facts
        yield _version(found.version)
        yield from _domains(facts)
        yield _below_tmp(facts)
        yield _accounting(facts)
        yield _read_by(facts["bindings"])
        yield _continuations(facts["START_LOCAL_UNIVERSE"])
        yield _time_limit(_number(facts["PERIODIC_EXPR_INTERVAL"], 60))
        if keeper := _keeper(facts):
            yield Finding("memory limit", "ok", f"{facts['host']} keeps it by {keeper}")
        else:
            do = "ask the administrators for cgroups or POLICY : HOLD_IF_MEMORY_EXCEEDED"
            yield unkept("no host is known to keep it", do, site)


def _values(run: Run, whose: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Ask a daemon for its settings, a line each; those that it has not are empty."""
    lines = ask(run, *whose, *names).splitlines()
    # An expression of several lines may be the last of them only.
    told = zip(names, lines, strict=False)
    return {name: "" if value.startswith("Not defined") else value for name, value in told}


def _told(run: Run, whose: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Ask a daemon that need not tell us; then there are no settings."""
    try:
        return _values(run, whose, names)
    except SchedulerError:
        return {}


def _number(value: str, unset: int) -> int:
    """Read a number, which an administrator may have written as ``5 * 60``."""
    plain = re.fullmatch(r"\d+(\s*\*\s*\d+)*", value)
    return prod(map(int, value.split("*"))) if plain else unset


def _within(slots: Sequence[_Slot], what: str, domain: str) -> list[_Slot]:
    """List the slots that are in a domain of the submit host's."""
    return [slot for slot in slots if str(slot.get(what)).lower() == domain.lower()]


def _queue(slots: Sequence[_Slot]) -> dict[str, Any]:
    """Return all slots as a queue of a site file."""
    cpus, memory, gpus = (
        max(int(slot.get(f"TotalSlot{what}", 0)) for slot in slots)
        for what in ("Cpus", "Memory", "GPUs")
    )
    queue = {"name": "pool", "max_memory": spelled_memory(memory), "max_cpus": cpus}
    return queue | ({"max_gpus": gpus} if gpus else {})


def _bindings() -> str:
    """Name those of HTCondor's bindings that are installed; or nothing."""
    return next((name for name in ("htcondor2", "htcondor") if find_spec(name)), "")


def _keeper(facts: Mapping[str, str]) -> str:
    """Return what enforces a memory limit on a host, as far as it can be seen; or nothing."""
    policy = facts.get("CGROUP_MEMORY_LIMIT_POLICY", "none").lower()
    if facts.get("BASE_CGROUP") and policy != "none":
        return f"cgroups, if it may use them (CGROUP_MEMORY_LIMIT_POLICY = {policy})"
    if "memoryusage" in facts.get("WANT_HOLD", "").lower():
        return "its policy (WANT_HOLD), which looks now and then"
    return ""


def _version(version: str) -> Finding:
    if int(version.partition(".")[0] or 0) < _OLDEST:
        said = f"{version} is older than any that was tried"
        return Finding("HTCondor", "warning", said, "try it")
    return Finding("HTCondor", "ok", version)


def _domains(facts: Mapping[str, str]) -> Iterator[Finding]:
    """Check whether slots share the submit host's files, and if so, whether its users."""
    slots, files, users = facts["slots"], facts["with our files"], facts["and our users"]
    elsewhere = "no job starts on others"
    yield _common("FILESYSTEM_DOMAIN", facts, files, slots, elsewhere)
    if files != "0":
        elsewhere = "on others a job is nobody's, and cannot write to the run's folder"
        yield _common("UID_DOMAIN", facts, users, files, elsewhere)


def _common(name: str, facts: Mapping[str, str], some: str, every: str, elsewhere: str) -> Finding:
    said = f"{some} of {every} slots are in {facts[name]}"
    if some == every != "0":
        return Finding(name, "ok", said)
    do = "if they should be, ask the administrators for it"
    return Finding(name, "wrong" if some == "0" else "warning", f"{said}; {elsewhere}", do)


def _below_tmp(facts: Mapping[str, str]) -> Finding:
    """Check whether runs may be below /tmp, as those of a trial may be."""
    about = "runs below /tmp"
    if facts["DAGMAN_USE_STRICT"] != "0":
        said = f"DAGMan does nothing for them (DAGMAN_USE_STRICT = {facts['DAGMAN_USE_STRICT']})"
    elif "/tmp" in re.findall(r"[^\s,]+", facts.get("MOUNT_UNDER_SCRATCH", "")):
        said = "each job has a /tmp of its own (MOUNT_UNDER_SCRATCH), and does not see them"
    else:
        return Finding(about, "ok", "DAGMan takes them (DAGMAN_USE_STRICT = 0)")
    here = Path.cwd().is_relative_to("/tmp")
    return Finding(about, "warning" if here else "ok", said, "go elsewhere" if here else "")


def _accounting(facts: Mapping[str, str]) -> Finding:
    """Check for how many jobs the scheduler remembers how they ended."""
    # Where they are not set, HTCondor has 20 MiB and 2.
    size = _number(facts["MAX_HISTORY_LOG"], 20 * 2**20)
    jobs = size * (1 + _number(facts["MAX_HISTORY_ROTATIONS"], 2)) // _JOB
    jobs = jobs if facts["HISTORY"] else 0
    said = f"the history remembers about {jobs} jobs of all users (HISTORY, MAX_HISTORY_LOG)"
    if jobs < _FEW:
        do = "look at a run while it is running; results do not depend on it"
        return Finding("accounting", "warning", said, do)
    return Finding("accounting", "ok", said)


def _read_by(bindings: str) -> Finding:
    """Check from what it is read how jobs ended, while their DAG is in the queue."""
    about = "HTCondor's bindings"
    if bindings:
        return Finding(about, "ok", f"{bindings} reads how jobs ended in the log of their DAG")
    said = "not installed: how jobs ended is asked of the history"
    return Finding(about, "warning", said, "pip install 'hpcpipe[htcondor]'")


def _continuations(start: str) -> Finding:
    """Check whether schedd starts jobs of the local universe, as continuations are."""
    if start.strip().lower() == "false":
        said = "no continuation ever begins: schedd's host starts none (START_LOCAL_UNIVERSE)"
        do = "have jobs of the local universe allowed, or use no retries"
        return Finding("continuations", "wrong", said, do)
    return Finding("continuations", "ok", f"on schedd's host, if {start or 'true'}")


def _time_limit(seconds: int) -> Finding:
    """Check how late a job is ended that has exceeded its time."""
    said = f"a job over its time may run for {seconds} s more (PERIODIC_EXPR_INTERVAL)"
    if seconds > 300:
        return Finding("time limit", "warning", said, "ask the administrators for a shorter one")
    return Finding("time limit", "ok", said)
