r"""The planner: tasks become few arrays, whose dependencies the scheduler itself can keep.

A submit command costs the scheduler; a dependency on more than is needed costs the user time. The
planner makes few arrays that wait for little more than they need. No scheduler is named here, only
`Capabilities`.

**Regular workflows** have dependencies along axes. They become arrays whose dependencies are
exact, without any search (`regular`)::

    smooth(subject) --> warp(subject, width)        smooth [0-99]
                                                      |       \          each element waits
                                                    warp[0-99] warp[0-99] for its namesake

**Any other graph** is searched. In the literature's words this is *layered partitioning by
simulated annealing, judged against a list-scheduling baseline*:

1. Tasks become *elements* (`element_graph`): a task, a chain of tasks, or a pack of these.
2. Elements are put into *layers* of equal depth and kind, and into an *ordering* of blocks such
   that those which lead to the same later element are neighbours (`search.orderings`)::

                 blocks   0    1    2    3
        layer 0           aa | aaa  aa | a        Only elements of one layer share an array. Cuts
        layer 1           b  | bb   b  | bbb      in the ordering divide layers: three arrays a
        layer 2           cc   cc   c    c        layer here, and one in the last.

   Of more than 500 tasks, short ones that nothing waits for may be put off to later blocks, to
   fill the cores at the end; and an array begins with its longest element where all of it is
   waited for, else with the longest path.

3. Which layers to cut where, and in which order to submit the arrays, is a *partition*
   (`search.partition`). Arrays are submitted the longest path down first, on average over their
   elements; an array can also be made more or less urgent, as its mean may mislead::

        submitted  a0 a1 b0 a2 b1 c0      b0 has few elements, and much depends on them: they do
                                          not wait for cores until all of a2 has started

   Annealing changes a partition at random, keeps the change if it is no worse, and at first also
   if it is a little worse (`search.search`).
4. Its makespan is estimated: from the *cells* that a layer and a block have in common
   (`search.cell_index`) follows what parts need of one another (`search.estimate`), from that the
   arrays (`layout`), and from those the makespan (`simulate`), on several numbers of cores.
5. It is judged beside the *baseline*: one job per element, exact dependencies, longest path first
   (`search.baseline`). That is no lower bound; the greater of the critical path and of the work
   over the cores is one.
6. The best partition is laid out element by element (`layout`).

A search takes at most 20 calls; 40 where there are at most 500 tasks, since there a needless wait
weighs more than a call. It takes fewer where that costs less than the slack, two per cent. Where no
run times are known its plan must also win with times drawn at random (`search.unknown_times`).

Read `batch` first, for the words; then `compile`, which chooses between the two ways; `regular`
with `fusion`; then from `search.search` on. `predict` has the expected makespan of a plan.
"""
