"""Deleting what earlier runs left and nothing uses any more; see `hpcpipe.status.unused`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from hpcpipe.status.unused import Unused, find_unused
from hpcpipe.store.ledger import History, Ledger, is_cleaned
from hpcpipe.store.leftovers import FOLDERS, Found, delete, find_leftovers
from hpcpipe.store.rundir import RunDir
from hpcpipe.submit.locking import locked
from hpcpipe.submit.recover import recover


class Leftovers(NamedTuple):
    """What nothing uses, by kind, the runs that had it, and old runs that stay as they are busy."""

    runs: tuple[int, ...]
    found: Mapping[str, list[Found]]
    busy: tuple[int, ...]


def look(rundir: RunDir, older: float) -> Leftovers:
    """Find what runs left whose last submission is ``older`` seconds ago. Deletes nothing."""
    unused, found = _find(rundir, Ledger(rundir.ledger).read(), older)
    return Leftovers(tuple(sorted(unused.runs)), found, unused.busy)


def _find(rundir: RunDir, history: History, older: float) -> tuple[Unused, dict[str, list[Found]]]:
    unused = find_unused(rundir, history, older)
    batches, keys = unused.batches, unused.keys
    return unused, find_leftovers(rundir, batches, keys, unused.gone, unused.plans)


def clean(rundir: RunDir, older: float, *, folders: bool = False) -> Leftovers:
    """Delete what `look` finds, and return it; working folders only if they are asked for.

    The ledger has it first: whenever this is killed, the rest of the files is of no run any more,
    and the next time finds it.
    """
    with locked(rundir):
        recover(rundir)
        ledger = Ledger(rundir.ledger)
        history = ledger.read()
        unused, found = _find(rundir, history, older)
        if not folders:
            found[FOLDERS] = []
        runs = {one["run"] for one in history.runs if not is_cleaned(one)} & unused.runs
        batches = history.submissions.keys() & unused.batches
        if runs or batches:
            ledger.cleaned(sorted(runs), sorted(batches))
        for some in found.values():
            delete(some)
    return Leftovers(tuple(sorted(unused.runs)), found, unused.busy)
