"""Retrying: the same plan once more, where its run lies now."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import NamedTuple

from hpcpipe.errors import UsageError
from hpcpipe.keys.fates import Known
from hpcpipe.resources import Resources
from hpcpipe.status.attempts import Retries
from hpcpipe.status.in_flight import Standing
from hpcpipe.store.plan import Frozen
from hpcpipe.store.recent import suggested
from hpcpipe.store.record import RunRecord
from hpcpipe.store.rundir import RunDir


def check_software(resources: Resources | None, folder: Path) -> None:
    """Raise UsageError for a demand that would make the planned tasks other ones."""
    for demand in resources.software or () if resources else ():
        if re.search(r"[<>=]", demand):
            again = suggested(folder, f"retry --reload --software {quote(demand)}")
            raise UsageError(
                f"--software {demand}: a version is part of what a task is, so the plan has to be "
                f"made again: {again}"
            )


def settle_in(plan: Frozen, rundir: RunDir) -> Frozen:
    """Adapt a plan to where its run lies now: the folder may have been renamed.

    Tasks start where they did, or if that folder moved along with the run's, there. Raises
    UsageError where it is gone, or where commands name files in the run's old folder.
    """
    home = os.path.abspath(rundir.folder)
    reload = suggested(rundir.folder, "retry --reload FILE")
    again = f"move it back, or plan again from the workflow's file: {reload}"
    cwd = plan.cwd
    moved = not os.path.exists(plan.home) or not os.path.samefile(plan.home, home)
    if moved and not os.path.isdir(cwd):
        cwd = os.path.normpath(os.path.join(home, os.path.relpath(cwd, plan.home)))
    if not os.path.isdir(cwd):
        raise UsageError(
            f"{plan.cwd}: the tasks of this run start in this folder, which is gone; {again}"
        )
    anchored = [node.name for node in plan.nodes.values() if node.anchored]
    if moved and anchored:
        raise UsageError(
            f"{home}: was moved from {plan.home}, where {anchored[0]} makes its files; {again}"
        )
    gone = not os.access(plan.executable, os.X_OK) and plan.python == sys.implementation.cache_tag
    return plan._replace(home=home, cwd=cwd, executable=sys.executable if gone else plan.executable)


def forget_stops(rundir: RunDir) -> None:
    """Remove what an earlier crash of a nipype workflow left to stop its tasks."""
    for file in rundir.home.glob(rundir.stopped("*").name):
        file.unlink(missing_ok=True)


class Chosen(NamedTuple):
    """The tasks that a retry is limited to, by node and flat index; ``force``: also if done."""

    tasks: Mapping[str, frozenset[int]]
    force: bool = False


def choose(record: RunRecord, names: Sequence[str], *, force: bool) -> Chosen | None:
    """Find the tasks that are named; None without names. Raises UsageError for an unknown name."""
    if force and not names:
        raise UsageError("--force runs tasks that succeeded: name them, NODE or NODE/LABEL")
    tasks: dict[str, frozenset[int]] = {}
    for name in names:
        for node, index in record.find(name) or [record.one(name)]:
            tasks[node.name] = tasks.get(node.name, frozenset()) | {index}
    return Chosen(tasks, force) if names else None


def limit(known: Mapping[str, Known], plan: Frozen, chosen: Chosen | None) -> Mapping[str, Known]:
    """Leave out all tasks but those chosen, and what depends on them and has not succeeded."""
    if chosen is None:
        return known
    limited: dict[str, Known] = {}
    wanted: dict[str, set[int]] = {}
    for name, node in plan.nodes.items():
        one, mine = known.get(name, Known()), chosen.tasks.get(name, frozenset())
        wanted[name] = {
            index
            for index in range(len(node))
            if index in mine
            or any(not wanted[edge.upstream].isdisjoint(edge.parents(index)) for edge in node.edges)
        }
        again = {node.key(index) for index in mine} if chosen.force else set()
        good = frozenset(one.good) - again
        rest = {node.key(index) for index in range(len(node)) if index not in wanted[name]}
        doubt = {*one.doubt, *(rest - good - one.in_flight.keys())}
        limited[name] = replace(one, good=good, doubt=doubt)
    return limited


def only_due(
    known: Mapping[str, Known],
    standing: Standing,
    rundir: RunDir,
    stuck: Collection[tuple[str, str]],
) -> Mapping[str, Known]:
    """Leave out failed tasks of which no retry is due, and those ``stuck`` with their request."""
    if standing.record is None or standing.record.after:  # of which nothing was submitted yet
        return known
    retries = Retries(rundir, standing.record)
    left = {
        (task.node, task.key)
        for task in standing.tasks.values()
        if task.state.bad and not retries.due(task)
    }
    left.update(stuck)
    doubt: dict[str, set[str]] = {name: {*one.doubt} for name, one in known.items()}
    for name, key in left:
        doubt[name].add(key)
    return {name: replace(one, doubt=doubt[name]) for name, one in known.items()}


def forced(chosen: Chosen | None, plan: Frozen) -> Iterator[tuple[str, str]]:
    """Yield the node and key of every task that runs again even if it succeeded."""
    for name, indices in chosen.tasks.items() if chosen and chosen.force else ():
        node = plan.nodes[name]
        yield from ((name, node.key(index)) for index in sorted(indices) if index < len(node))
