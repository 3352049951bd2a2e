"""The results of a node, as they are to be loaded: where each is, and what is to be said of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hpcpipe.jobs import Reason
from hpcpipe.status.relied import MadeFiles
from hpcpipe.status.state import names_missing
from hpcpipe.store.outcomes import Store
from hpcpipe.store.plan import NodeRecord
from hpcpipe.store.rundir import RunDir


class Looked:
    """What one look at the outcomes of a node, or of one task, has seen.

    ``keys`` are those of results that count, ``where`` has the places of some. Of a node that
    others read, a result counts whatever became of its files: these may have been changed in place.
    """

    def __init__(
        self,
        rundir: RunDir,
        nodes: Mapping[str, NodeRecord],
        name: str,
        task: int | None = None,
    ) -> None:
        self._store, self._nodes, self._node = Store(rundir), nodes, nodes[name]
        listings = self._store.has([name])
        listing = listings[name]
        self._partial = self._store.find_partial(name, listing)
        self.where = {**listing.packed, **self._partial}
        every = range(len(self._node)) if task is None else (task,)
        keys = {self._node.key(one): one for one in every}
        self._tasks = {
            key: one
            for key, one in keys.items()
            if key in listing.succeeded or key in self._partial
        }
        good = dict.fromkeys(self._tasks.keys() & listing.succeeded, True)
        self._amiss: Mapping[str, tuple[Reason, str]]
        self._amiss = MadeFiles(rundir).find_amiss(self._node, good, listings)
        read = any(edge.upstream == name for node in nodes.values() for edge in node.edges)
        self.keys = self._tasks.keys() - (() if read else self._amiss.keys())

    def remarks(self) -> Iterator[str]:
        """Yield what is to be said of some results, each after the task's name."""
        for key, index in self._tasks.items():
            if key in self._amiss:
                yield f"{self._node.task(index)}: {self._amiss[key][1]}"
            elif key in self._partial:
                record = self._store.get_partial_at(self._partial[key], key)
                lost = " ".join(names_missing(self._nodes, record))
                yield f"{self._node.task(index)}: made without {lost}"
