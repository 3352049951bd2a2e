"""Results whose files are gone, or were changed: they count as not done where something relies on
these files.

A run relies on the results of its last nodes, and a task that is to run on those that it reads. The
files of all others may be purged: nothing needs them any more. Nor may a task that changes the file
of another in place make that one run again, once it has succeeded.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hpcpipe.errors import HpcpipeError
from hpcpipe.jobs import Reason
from hpcpipe.store.outcomes import LOOKED_AT, Listing, Store
from hpcpipe.store.plan import NodeRecord, loose_edges
from hpcpipe.store.rundir import RunDir, read_pickle, write_pickle
from hpcpipe.worker.made import Noted, is_changed

if TYPE_CHECKING:
    from hpcpipe.keys.file_digest import Files


def look_at(
    rundir: RunDir, nodes: Mapping[str, NodeRecord], others: Collection[str] = ()
) -> dict[str, Listing]:
    """Look at the outcomes of nodes, and at the files of results that something relies on.

    Of a run of more than `LOOKED_AT` tasks, only at those that a task is to read which runs again.
    """
    store, files = Store(rundir), MadeFiles(rundir)
    listings = store.has({*nodes, *others})
    read = {edge.upstream for node in nodes.values() for edge in node.edges}
    small = sum(map(len, nodes.values())) <= LOOKED_AT
    relied: dict[str, dict[int, bool]] = {name: {} for name in nodes}  # task → are they compared?
    for name, node in [*nodes.items()][::-1]:
        good = listings[name].succeeded
        last = small and name not in read
        wanted = dict.fromkeys(range(len(node)), True) if last else relied[name]
        keys = {node.key(index): compared for index, compared in wanted.items()}
        amiss = files.find_amiss(node, {key: keys[key] for key in keys if key in good}, listings)
        if amiss:
            good = listings[name].succeeded - amiss.keys()
            listings[name] = listings[name]._replace(succeeded=good, amiss=amiss)
        above = [one for one in enumerate(node.edges) if listings[one[1].upstream].succeeded]
        loose = loose_edges(nodes, node) if above else ()
        for index, key in enumerate(node.all_keys() if above else ()):
            if key not in good and index not in node.done:
                for number, edge in above:
                    some = relied[edge.upstream]
                    compared = number < node.values and number not in loose
                    some |= {one: compared or some.get(one, False) for one in edge.parents(index)}
    files.remember()
    return listings


class MadeFiles:
    """The files that tasks of a run returned, as they are now."""

    def __init__(self, rundir: RunDir) -> None:
        self._rundir, self._store = rundir, Store(rundir)
        self._digests: Files | None = None

    def find_amiss(
        self, node: NodeRecord, keys: Mapping[str, bool], listings: Mapping[str, Listing]
    ) -> dict[str, tuple[Reason, str]]:
        """Find what is wrong with a file of each of a node's results.

        ``keys`` has whether their content is compared. The last of several tasks that write to one
        file knows what it is like.
        """
        packed = listings[node.name].packed
        files = {key: self._store.files(node, key, packed) for key in keys}
        known: dict[str, list[Noted]] = {}
        for key, some in files.items():
            for path, facts in some.items():
                if facts and keys[key]:
                    known.setdefault(path, []).append(facts)
        said = {path: self._wrong(path, known.get(path, ()), node.name) for path in _of(files)}
        found = ((key, said[path]) for key, some in files.items() for path in some)
        return {key: wrong for key, wrong in found if wrong}

    def _wrong(self, path: str, known: Iterable[Noted], node: str) -> tuple[Reason, str] | None:
        if not (os.path.exists(path) or _is_listed(path)):
            return Reason.GONE, f"{path} is gone, which it returned"
        with suppress(OSError, HpcpipeError):  # who reads it reports that it cannot be read
            if known and is_changed(path, [*known], self._digest):
                return Reason.CHANGED, f"{path} was changed after {node} made it"
        return None

    def _digest(self, path: str) -> bytes:
        from hpcpipe.keys.file_digest import Files  # few runs need it

        if self._digests is None:
            self._digests = Files(known=read_pickle(self._rundir.files))
        return self._digests.digest(Path(path))

    def remember(self) -> None:
        """Keep the digests of files, so that each is read once."""
        if self._digests is not None:
            with suppress(OSError):
                write_pickle(self._rundir.files, self._digests.known)


def _of(files: Mapping[str, Mapping[str, object]]) -> Iterable[str]:
    return {path: None for some in files.values() for path in some}


def _is_listed(path: str) -> bool:
    """Return whether a file is there after all: to list its folder makes an NFS client look."""
    try:
        return os.path.basename(path) in os.listdir(os.path.dirname(path)) and os.path.exists(path)
    except OSError:
        return False
