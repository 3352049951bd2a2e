"""Chains of nodes whose tasks run in one element, one after the other.

Where a scheduler cannot pair the elements of arrays, nodes that would be aligned are *fused* into
such a chain; so are those that want to be, since their start costs much. Most chains are of one
node.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence

from hpcpipe.jobs import Capabilities
from hpcpipe.keys.fates import RUN
from hpcpipe.keys.plan import NodePlan, Plan
from hpcpipe.planner.batch import Batch, Limits, Wait
from hpcpipe.resources import Resources

Chain = tuple[NodePlan, ...]


def make_chains(plan: Plan, can: Capabilities, limits: Limits) -> Iterator[Chain]:
    """Walk the nodes, upstream ones first; those that are to be fused come as one chain."""
    below: dict[str, list[NodePlan]] = defaultdict(list)
    for node in plan.nodes.values():
        for upstream in {edge.upstream for edge in node.edges}:
            below[upstream].append(node)
    fused: set[str] = set()
    for node in plan.nodes.values():
        if node.node.name in fused:
            continue
        chain = [node]
        while len(next_ := below[chain[-1].node.name]) == 1:
            if can.elementwise and not _wants_to(plan, next_[0], limits):
                break
            if not _fusible(plan, chain[-1], next_[0]):
                break
            chain += next_
            fused.add(next_[0].node.name)
        yield tuple(chain)


def _wants_to(plan: Plan, node: NodePlan, limits: Limits) -> bool:
    """Return whether to fuse a node though it need not be: where no time is set for its
    tasks, as that of several might be more than a queue gives."""
    return node.node.fuse and limits.untimed and plan.asked(node).time is None


def _fusible(plan: Plan, above: NodePlan, node: NodePlan) -> bool:
    """Return whether each task needs only its namesake above, and both have the same requests."""
    return (
        len(node.edges) == 1
        and node.edges[0].single
        and len(node.fates) == len(above.fates) > 1
        and all(at == base for at, base in enumerate(node.edges[0].base))
        and plan.asked(node) == plan.asked(above)
        and node.node.sh == above.node.sh
        and not (node.raised or above.raised or node.in_flight or above.in_flight)
    )


def batch_of(
    chain: Chain,
    elements: Sequence[int],
    indices: Sequence[int] | None,
    resources: Resources,
    waits: tuple[Wait, ...],
) -> Batch:
    """Make a batch of elements of a chain; of what is done already, an element runs nothing."""
    if len(chain) == 1:
        return Batch(chain, elements, indices, resources, waits)
    tasks, which, starts = array("q"), array("i"), array("q", [0])
    for element in elements:
        for number, node in enumerate(chain):
            if node.fates[element] == RUN:
                tasks.append(element)
                which.append(number)
        starts.append(len(tasks))
    return Batch(chain, tasks, indices, resources, waits, which, starts)


def by_resources(plan: Plan, chain: Chain) -> Iterator[tuple[Sequence[int], Resources]]:
    """Group the tasks to run by what they ask for; most nodes have one group."""
    node = chain[0]
    if len(chain) > 1:
        fates = zip(*(one.fates for one in chain), strict=True)
        elements = array("q", [at for at, together in enumerate(fates) if RUN in together])
        if elements:
            yield elements, plan.asked(node)
        return
    if not node.raised:
        if node.to_run:
            yield node.to_run, plan.asked(node)
        return
    groups: dict[Resources, array[int]] = defaultdict(lambda: array("q"))
    for task in node.to_run:
        groups[plan.asked(node, task)].append(task)
    for resources, tasks in groups.items():
        yield tasks, resources
