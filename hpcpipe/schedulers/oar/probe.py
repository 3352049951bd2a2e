"""A live OAR, looked at with oarnodes and oarstat. Tried on 2.5.9.

It shows its users only the queues that jobs have been in, and no time limits: those are the
administrators' own rules.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from hpcpipe.schedulers.base import Run
from hpcpipe.schedulers.probe import Finding, Found, among, ask, unkept

if TYPE_CHECKING:
    from hpcpipe.site import Site

_HOSTS = ("oarnodes", "-J")
_NOTHING = ("oarstat", "-J", "--sql", "job_id = 0")
_SEEN = (
    "oarstat", "-J", "--sql",
    "job_id IN (SELECT MAX(job_id) FROM jobs GROUP BY queue_name)"
    " AND queue_name IN (SELECT queue_name FROM queues WHERE state = 'Active')",
)  # fmt: skip
_CORES = ("core", "cpu", "resource_id")  # the finest that the site has
_KINDS = {"default": {"default": True}, "besteffort": {"preemptible": True}}
_REMARKS = {
    "limits.watch_memory": "OAR keeps no limit of it but where its hosts have cgroups",
    "oar.core": "what a cpu is counted in, of the properties in oarnodes",
}


class Probe:
    """Reads the hosts of an OAR, and in which queues jobs have been."""

    name: ClassVar[str] = "oar"
    # Its oarsub cannot be asked without submitting.
    from_node: ClassVar[tuple[str, ...]] = (
        "sh", "-c", "command -v oarsub >/dev/null && exec oarstat -J --sql 'job_id = 0'",
    )  # fmt: skip

    def look(self, run: Run) -> Found:
        ask(run, *_NOTHING)  # where the database is away, this one does not wait for it
        rows = [*json.loads(ask(run, *_HOSTS) or "{}").values()]
        rows = [row for row in rows if row.get("type") == "default" and row["state"] != "Dead"]
        known = {key for row in rows for key, value in row.items() if value not in (None, "")}
        core = next(one for one in _CORES if one in known or one == _CORES[-1])
        most = {"max_cpus": _most(rows, core), "max_gpus": _most(rows, "gpu")}
        limits = {key: count for key, count in most.items() if count}
        seen = {str(job["queue"]) for job in json.loads(ask(run, *_SEEN) or "{}").values()}
        names = ["default", *sorted(seen - {"default", "admin"})]  # the first is OAR's own choice
        queues = [{"name": name} | _KINDS.get(name, {}) | limits for name in names]
        facts = {
            "properties": " ".join(sorted(known)),
            "hosts": str(len({row["network_address"] for row in rows})),
            "alive": str(len({row["network_address"] for row in rows if row["state"] == "Alive"})),
        }
        version = re.search(r"[\d.]+", ask(run, "oarstat", "-V"))
        return Found(
            "oar", version[0] if version else "",
            {"limits": {"watch_memory": True}, "oar": {"core": core}, "queues": queues},
            _REMARKS, facts, sources=(" ".join(_HOSTS),), all_queues=False,
        )  # fmt: skip

    def check(self, found: Found, site: Site) -> Iterator[Finding]:
        facts = found.facts
        hosts = f"{facts['alive']} of {facts['hosts']} are alive"
        if facts["alive"] == "0":
            yield Finding("hosts", "warning", hosts, "ask the administrators until when")
        else:
            yield Finding("hosts", "ok", hosts)
        yield among("oar.core", site.own.core, facts["properties"].split(), "property")
        yield Finding("arrays", "ok", "have no limit of their own; each element is a job to OAR")
        yield Finding("accounting", "ok", "oarstat tells of all jobs that are in the database")
        said = "comes with the cores, and OAR keeps it only where hosts have cgroups"
        yield unkept(said, "let tasks that need more of it ask for more cpus", site)


def _most(rows: Sequence[Mapping[str, Any]], what: str) -> int:
    """Count the values of a property on the host which has the most; 0 and nothing do not count."""
    by_host: dict[str, set[Any]] = {}
    for row in rows:
        if (value := row.get(what)) not in (None, "", 0, "0"):
            by_host.setdefault(row["network_address"], set()).add(value)
    return max(map(len, by_host.values()), default=0)
