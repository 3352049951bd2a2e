"""Results whose files are gone: they count as not done where something relies on these files.

A run relies on the results of its last nodes, and a task that is to run on those that it reads. The
files of all others may be purged: nothing needs them any more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hpcpipe.store.outcomes import LOOKED_AT, Listing, Store
from hpcpipe.store.plan import NodeRecord
from hpcpipe.store.rundir import RunDir


def look_at(
    rundir: RunDir, nodes: Mapping[str, NodeRecord], others: Collection[str] = ()
) -> dict[str, Listing]:
    """Look at the outcomes of nodes, and at the files of results that something relies on.

    Of a run of more than `LOOKED_AT` tasks, only at those that a task is to read which runs again.
    """
    store = Store(rundir)
    listings = store.has({*nodes, *others})
    read = {edge.upstream for node in nodes.values() for edge in node.edges}
    small = sum(map(len, nodes.values())) <= LOOKED_AT
    relied: dict[str, set[int]] = {name: set() for name in nodes}
    for name, node in [*nodes.items()][::-1]:
        good = listings[name].succeeded
        wanted = range(len(node)) if small and name not in read else sorted(relied[name])
        gone = {}
        for key in (node.key(index) for index in wanted):
            if key in good and (path := store.find_gone(node, key, listings[name].packed)):
                gone[key] = path
        if gone:
            good = listings[name].succeeded - gone.keys()
            listings[name] = listings[name]._replace(succeeded=good, gone=gone)
        above = [edge for edge in node.edges if listings[edge.upstream].succeeded]
        for index in range(len(node)) if above else ():
            if node.key(index) not in good and index not in node.done:
                for edge in above:
                    relied[edge.upstream].update(edge.parents(index))
    return listings
