"""The planner: tasks become few arrays, whose dependencies the scheduler itself can keep.

Read `batches` first. `exact` is for regular workflows, with `chains`; `coarse` searches arrays for
all others, over `lines`, `cuts` and `cells`; `simulate` has the rules of schedulers, and `makespan`
their short form; `yardstick` is what all are judged by.
"""
