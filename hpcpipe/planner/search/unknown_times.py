"""Where no run times are known: whether arrays are better than an array a level whatever these are.

A search then takes all tasks to be equally long, and may cut arrays so that they fill the cores in
even waves, of which no real run has any. So what it found counts only if it also wins with run
times that are drawn at random, and never loses much.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from hpcpipe.jobs import Capabilities
from hpcpipe.planner.element_graph import Elements
from hpcpipe.planner.layout import Array, make_jobs
from hpcpipe.planner.simulate import makespan

_DRAWS = 6
_MEAN = 0.99  # of the makespan of plain arrays, to be worth the calls
# Of few tasks the order of two may decide, so that a gain in the mean is no gain in a run.
_SMALL, _WORST_SMALL, _WORST = 500, 1.0, 1.07


def is_sturdy(
    graph: Elements,
    found: Sequence[Array],
    plain: Sequence[Array],
    cores: Sequence[int],
    can: Capabilities,
) -> bool:
    """Return whether arrays take less time than plain ones, over all draws and ``cores``."""
    worst = _WORST_SMALL if len(graph) <= _SMALL else _WORST
    ratios = []
    for draw in range(_DRAWS):
        dice = Random(draw)
        usual: dict[tuple[int, ...], float] = {}  # kinds of tasks differ more than tasks of a kind
        seconds = [
            one * usual.setdefault(kind, dice.lognormvariate(0, 1)) * dice.lognormvariate(0, 0.5)
            for one, kind in zip(graph.seconds, graph.kinds, strict=True)
        ]
        for count in cores:
            took = [
                makespan(make_jobs(graph, arrays, seconds), count, window=can.window)
                for arrays in (found, plain)
            ]
            ratios.append(took[0] / took[1])
            if ratios[-1] > worst:
                return False
    return sum(ratios) <= _MEAN * len(ratios)
