"""A site file held against the live cluster, line by line; and one tiny array that proves it."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

from hpcpipe.errors import HpcpipeError, SchedulerError, SchedulerUnavailable, near
from hpcpipe.graph.each import each
from hpcpipe.graph.workflow import Workflow
from hpcpipe.probes import look
from hpcpipe.probes.node_check import look_around
from hpcpipe.resources import Resources
from hpcpipe.run import Run, submit
from hpcpipe.schedulers import find_adapter
from hpcpipe.schedulers.base import Run as RunCommand
from hpcpipe.schedulers.base import run_command
from hpcpipe.schedulers.probe import Finding, Found
from hpcpipe.site import Queue, Site
from hpcpipe.site.fit import compare
from hpcpipe.site.load import Loaded
from hpcpipe.site.read import read_site

_OLD = 365  # days after which settings are worth another look
_PATIENCE = 180.0  # seconds that the tiny array gets


def diagnose(
    loaded: Loaded, *, trial: bool = True, run: RunCommand = run_command
) -> Iterator[Finding]:
    """Hold a site file against its cluster; with ``trial``, run a tiny array there too.

    Raises SchedulerUnavailable where the cluster cannot be asked at all.
    """
    site = loaded.site
    yield from _of_itself(loaded, date.today())
    ask: tuple[str, ...] = ()
    if kind := find_adapter(site.written_for).probe:
        probe = kind()
        ask = probe.from_node
        found = look(probe, run)
        yield Finding("scheduler", "ok", f"{found.scheduler} {found.version}".strip())
        yield from probe.check(found, site)
        yield from _limits(site, found)
        yield from _account(site, found)
        yield from _queues(site, found)
    else:
        yield Finding(
            "scheduler", "warning", f"no probe for {site.scheduler}: its limits stay unseen"
        )
    if trial:
        yield from _trial(loaded, ask)


def _of_itself(loaded: Loaded, today: date) -> Iterator[Finding]:
    site = loaded.site
    yield Finding("site file", "ok", str(loaded.file))
    if site.as_of is not None:
        days = (today - date.fromisoformat(site.as_of)).days
        if days > _OLD:
            yield Finding(
                "as_of", "warning", f"last checked {days} days ago",
                f"check it{f' with {site.check}' if site.check else ''}, and set as_of",
            )  # fmt: skip
        else:
            yield Finding("as_of", "ok", site.as_of)
    if site.retires is not None and date.fromisoformat(site.retires) <= today:
        yield Finding("retires", "wrong", f"the cluster is no more since {site.retires}", "move on")


def _limits(site: Site, found: Found) -> Iterator[Finding]:
    live = found.settings.get("limits", {})
    for key in ("array_size", "max_jobs"):
        mine, theirs = getattr(site.limits, key), live.get(key)
        if theirs is None:
            continue
        about, remark = f"limits.{key}", found.remarks.get(f"limits.{key}", "")
        if mine is None or mine > theirs:
            said = f"{'unset' if mine is None else mine}, but the cluster takes {theirs}"
            yield Finding(about, "wrong", f"{said} ({remark})", f"set {about} = {theirs}")
        else:
            yield Finding(about, "ok", f"{mine}, and the cluster takes {theirs}")


def _account(site: Site, found: Found) -> Iterator[Finding]:
    account, mine = site.defaults.account, found.accounts
    do = f'set defaults.account = "{mine[0] if mine else "NAME"}"'
    if account is not None and mine and account not in mine:
        said = f"{account!r} is none of yours, which are {', '.join(mine)}"
        yield Finding("defaults.account", "wrong", said, do)
    elif account is None and "account" in site.mandatory:
        yield Finding("defaults.account", "warning", "unset, and every job must have one", do)
    elif account is not None:
        yield Finding("defaults.account", "ok", account)


def _queues(site: Site, found: Found) -> Iterator[Finding]:
    live = read_site(dict(found.settings)).queues
    there = {queue.name: queue for queue in live}
    named = [queue for queue in site.queues if queue.named]
    if live and named and not found.queue_names:
        there = dict.fromkeys((queue.spelled or queue.name for queue in named), live[0])
    for queue in named if there else ():
        name = queue.spelled or queue.name
        if name not in there and not found.all_queues:
            said = f"the cluster tells of {', '.join(there)}, and maybe not of all"
            yield Finding(f"queue {queue.name}", "warning", said, "try it")
            continue
        if name not in there:
            yield Finding(
                f"queue {queue.name}", "wrong", f"no open queue {name!r} on the cluster",
                f"take it out of the file{near(name, there)}",
            )  # fmt: skip
            continue
        wrong = list(_beyond(queue, there[name]))
        for key, said, value in wrong:
            yield Finding(f"queue {queue.name}", "wrong", said, f"set its {key} = {value}")
        if not wrong:
            yield Finding(f"queue {queue.name}", "ok", "is there, and takes what the file says")
    known = {queue.spelled or queue.name for queue in named}
    for name in there if site.queues else ():
        if name not in known:
            yield Finding(f"queue {name}", "ok", "is on the cluster, but not in the file")
    if there and not site.queues:
        yield Finding(
            "queues", "warning", f"none in the file; the cluster has {', '.join(there)}",
            "hpcpipe site init writes them",
        )  # fmt: skip


def _beyond(queue: Queue, live: Queue) -> Iterator[tuple[str, str, str]]:
    """Walk the limits that the file has higher: the key, how they stand, the cluster's."""
    for name in ("time", "memory", "cpus", "gpus"):
        mine, theirs = getattr(queue, f"max_{name}"), getattr(live, f"max_{name}")
        if mine is not None and theirs is not None and mine > theirs:
            unit = {"time": '"{}s"', "memory": '"{}M"'}.get(name, "{}")
            yield f"max_{name}", compare(name, mine, ">", theirs), unit.format(theirs)


# --- the tiny array -------------------------------------------------------------------------------


def _trial(loaded: Loaded, ask: tuple[str, ...]) -> Iterator[Finding]:
    """Submit two tasks and a third after them, wait for them, and tell what they saw."""
    site = loaded.site
    try:
        folder = Path(tempfile.mkdtemp(prefix="hpcpipe-doctor-", dir=Path.cwd()))
    except OSError as error:
        do = "Run this in a folder that you can write to and the nodes share, or with --no-trial."
        yield Finding("trial", "wrong", f"{Path.cwd()}: {error.strerror}", do)
        return
    made: Run | None = None
    try:
        beacons = folder / "beacons"
        beacons.mkdir()
        setups = {key: "\n".join(one.setup) for key, one in site.software.items() if one.setup}
        workflow = Workflow("doctor", folder)
        look = workflow.add(
            look_around, name="look", element=each([0, 1], axis="element"), beacons=str(beacons),
            ask=list(ask), setups=setups,
        )  # fmt: skip
        workflow.command("true", name="after", after=[look.gather()])
        made = submit(workflow, site=loaded, resources=Resources(time=60), over_budget=True)
        yield Finding("submission", "ok", "an array of two, and a job after it, were taken")
        late = _lateness(beacons, made, site.limits.settle_seconds)
        report = made.wait(timeout=_PATIENCE)
        yield Finding("run", "ok", f"all {report.total.total()} tasks succeeded")
        seen = [said for _, said in sorted(made.results("look").items())]
        yield from _seen(site, seen, setups)
        yield _common(site, late)
    except TimeoutError:
        yield Finding(
            "run", "warning", f"had not ended after {_PATIENCE:.0f} s: {_waiting(made)}",
            "try again when the queue is shorter",
        )  # fmt: skip
    except SchedulerUnavailable:
        raise
    except HpcpipeError as error:
        yield Finding("run", "wrong", str(error).splitlines()[0], "correct the site file")
    finally:
        if made is not None:
            with suppress(SchedulerError):
                made.cancel()
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder in which what was cancelled, as a DAGMan, may write on for a moment."""
    give_up = time.monotonic() + 10
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists() and time.monotonic() < give_up:
        time.sleep(0.1)
        shutil.rmtree(folder, ignore_errors=True)


def _lateness(beacons: Path, run: Run, settle: int) -> float | None:
    """Wait for the beacons; return how many seconds after its rename the last one was seen.

    None if the tasks have ended, and the filesystem had its time, but not all were seen.
    """
    late: dict[str, float] = {}
    begun = time.monotonic()
    give_up, look = begun + _PATIENCE, begun + 1
    while True:
        for file in beacons.glob("*.beacon"):
            if file.name not in late:
                late[file.name] = time.time() - float(file.read_text())
        now = time.monotonic()
        if len(late) == 2:
            return max(late.values())
        if now > give_up:
            return None
        if now > look and run.report().finished:
            give_up, look = now + settle, give_up + 1
        elif now > look:
            look = now + 1
        time.sleep(0.1)


def _waiting(run: Run | None) -> str:
    """Return the scheduler's own reason why a task still waits."""
    tasks = run.report().tasks if run is not None else ()
    return next((task.words for task in tasks if task.words), "no reason is given")


def _common(site: Site, late: float | None) -> Finding:
    about = "common filesystem"
    if late is None:
        return Finding(about, "wrong", "what a node wrote was not seen", "share the run's folder")
    said = f"a rename on a node was seen {max(0.0, late):.1f} s later (clocks may differ)"
    if late > site.limits.settle_seconds + 1:
        least = round(late) + 10
        return Finding(about, "wrong", said, f"set limits.settle_seconds = {least}")
    return Finding(about, "ok" if late < 1 else "warning", said)


def _seen(site: Site, seen: list[dict[str, Any]], setups: dict[str, str]) -> Iterator[Finding]:
    hosts = ", ".join(sorted({said["host"] for said in seen}))
    yield Finding("nodes", "ok", f"{hosts}: {seen[0]['system']}")
    here = (sys.executable, sys.version.split()[0])
    there = {(said["python"], said["version"]) for said in seen}
    if there == {here}:
        yield Finding("Python", "ok", f"{here[1]}, the same on a node as here")
    else:
        words = ", ".join(f"{version} at {path}" for path, version in sorted(there))
        yield Finding("Python", "warning", f"on a node {words}; here {here[1]} at {here[0]}")
    yield from _home(site, all(said["home"] for said in seen))
    if seen[0]["submit"] is not None:
        status, words = seen[0]["submit"]
        may, stated = status == 0, site.nodes.may_submit
        said = "may submit" if may else f"may not submit: {words}"
        if stated is not None and stated is not may:
            do = f"set nodes.may_submit = {str(may).lower()}"
            yield Finding("compute nodes", "wrong", f"{said}; the file says otherwise", do)
        else:
            yield Finding("compute nodes", "ok", said)
    for key, (status, words) in seen[0]["software"].items():
        if status:
            do = f"correct software.{key}.setup: {setups[key]!r}"
            yield Finding(f"software {key}", "wrong", f"its setup fails: {words}", do)
        else:
            yield Finding(f"software {key}", "ok", "its setup ends well on a node")


def _home(site: Site, writable: bool) -> Iterator[Finding]:
    if writable is not site.nodes.home:
        said = "nodes can write to it" if writable else "nodes cannot write to it"
        verdict, do = ("warning", "true") if writable else ("wrong", "false")
        yield Finding("home folder", verdict, said, f"set nodes.home = {do}")  # type: ignore[arg-type]
    else:
        yield Finding("home folder", "ok", f"nodes can{'' if writable else 'not'} write to it")
