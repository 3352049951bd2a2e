"""How good plans are: calls and makespan of real applications, beside exact dependencies."""

from __future__ import annotations

import importlib.util
import json
import re
import time
from collections.abc import Iterator, Sequence
from functools import partial
from math import exp, log
from pathlib import Path

import measure
import psutil
import slots
from measure import HPCPIPE, PYTHON, Row, Use, amount, use
from slots import SLOTS

from hpcpipe.frontends.foreign_graphs import from_wfformat
from hpcpipe.keys.plan import Plan, make_plan
from hpcpipe.planner.batch import Batch, Limits, Wait
from hpcpipe.planner.compile import make_batches
from hpcpipe.planner.element_graph import Elements, make_elements
from hpcpipe.planner.predict import jobs_of
from hpcpipe.planner.search.baseline import exact_jobs
from hpcpipe.planner.simulate import Job, simulate
from hpcpipe.schedulers.slurm import Slurm

CORES = (8, 40, 200)
REAL = ("cycles", "epigenomics", "montage", "srasearch")  # run on a real Slurm
LONG = 40.0  # seconds that a graph is to take there
CAN = Slurm.capabilities
GENERATE = """
import random, sys
import numpy
from wfcommons import WorkflowGenerator
from wfcommons.wfchef import recipes

tasks, seed, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
for name in sorted(dir(recipes)):
    if name.endswith("Recipe"):
        random.seed(seed), numpy.random.seed(seed)
        try:
            made = WorkflowGenerator(getattr(recipes, name).from_num_tasks(tasks))
            made.build_workflow().write_json(folder + "/" + name[:-6].lower() + ".json")
        except ValueError:  # no graph of that recipe is so small
            pass
"""
IRREGULAR = """
import random, sys, time, networkx
from hpcpipe import from_networkx
from hpcpipe.keys.plan import make_plan
from hpcpipe.planner.compile import Limits, make_batches
from hpcpipe.schedulers.slurm import Slurm

tasks = int(sys.argv[1])
dice, graph = random.Random(0), networkx.DiGraph()
for task in range(tasks):
    graph.add_node(task, seconds=1 + dice.expovariate(1 / 60))
edges = set()
while len(edges) < 3 * tasks:
    first = dice.randrange(tasks)
    last = first + 1 + int(dice.expovariate(30 / tasks))
    if last < tasks:
        edges.add((first, last))
graph.add_edges_from(sorted(edges))
workflow = from_networkx(graph, "irregular")
seconds = {name: node.seconds for name, node in workflow.nodes.items()}
began = time.process_time()
make_batches(make_plan(workflow), Slurm.capabilities, Limits(), lambda: seconds)
print(time.process_time() - began)
"""


def rows(size: int, rounds: int) -> Iterator[Row | str]:
    """Measure graphs of ``size`` tasks, planning ten to a thousand times as many, and packs."""
    del rounds  # a plan is always the same
    with measure.scratch() as folder:
        if importlib.util.find_spec("wfcommons"):
            graphs = generate(folder, size)
            yield from quality(graphs)
            yield from small(folder)
            yield from large(generate(folder, size * 5 // 2))
            yield from on_slurm(folder, [one for one in graphs if one.name in REAL])
        else:
            yield "planner.py has no graphs without wfcommons: pip install wfcommons"
        for tasks in (10 * size, 100 * size, 1000 * size):
            seconds = float(use(PYTHON, "-c", IRREGULAR, str(tasks)).said)
            goal = 20 if tasks == 100_000 else None
            what = f"planning {tasks:,} irregular tasks with {3 * tasks:,} dependencies: CPU"
            yield amount(what, seconds, "s", goal)
        yield from packs(folder, 10 * size)


def generate(folder: Path, tasks: int, seed: int = 1) -> Sequence[Graph]:
    """Generate a graph of each application that has one of so few tasks."""
    own = folder / f"{tasks}-{seed}"
    own.mkdir()
    use(PYTHON, "-c", GENERATE, str(tasks), str(seed), own)
    return [Graph(file) for file in sorted(own.glob("*.json"))]


# --- thirty cases ---------------------------------------------------------------------------------


class Graph:
    """A graph of an application, as it is planned with and without its run times."""

    def __init__(self, file: Path) -> None:
        self.name, self.file = file.stem, file
        self.plan: Plan = make_plan(from_wfformat(file))
        self.seconds = {name: node.node.seconds or () for name, node in self.plan.nodes.items()}
        self.tasks = make_elements(self.plan, self.seconds)

    def batches(self, *, known: bool, cores: int | None = None) -> Sequence[Batch]:
        """Plan it for Slurm."""
        limits = Limits(cores=cores)
        return make_batches(self.plan, CAN, limits, lambda: self.seconds if known else {})

    def takes(self, batches: Sequence[Batch], cores: int) -> float:
        """Simulate batches with the true run times."""
        jobs = jobs_of(batches, self.tasks)
        return simulate(jobs, cores, window=CAN.window).makespan

    def bound(self, cores: int) -> float:
        """Return what no schedule can beat: the work over the cores, or the critical path."""
        work = sum(s * c for s, c in zip(self.tasks.seconds, self.tasks.cpus, strict=True))
        return max(work / cores, *self.tasks.below)

    def exact(self, cores: int, by: Elements | None = None) -> float:
        """Simulate a call a task, the longest path first; by the run times of another graph."""
        order = exact_jobs(by or self.tasks)
        if by is not None:
            ranked = sorted(by.order, key=lambda element: -by.below[element])
            order = [
                Job([self.tasks.seconds[element]], job.indices, job.waits, job.cpus)
                for element, job in zip(ranked, order, strict=True)
            ]
        return simulate(order, cores).makespan

    def levels(self, cores: int) -> float:
        """Simulate one array a level, each after the whole of the one before."""
        levels: dict[int, list[float]] = {}
        for depth, seconds in zip(self.tasks.depth, self.tasks.seconds, strict=True):
            levels.setdefault(depth, []).append(seconds)
        jobs = [
            Job(levels[at], range(len(levels[at])), [Wait(at - 1)] if at else ())
            for at in sorted(levels)
        ]
        return simulate(jobs, cores).makespan


def quality(graphs: Sequence[Graph]) -> Iterator[Row]:
    """Make the rows of all graphs on all numbers of cores."""
    beside = {(g.name, cores): g.exact(cores) for g in graphs for cores in CORES}
    levels = [g.levels(cores) / beside[g.name, cores] for g in graphs for cores in CORES]
    yield from spread("makespan of an array a level", levels)
    for known in (True, False):
        said = "run times known" if known else "no run times known"
        began = time.process_time()
        plans = {g.name: g.batches(known=known) for g in graphs}
        what = f"planning {len(graphs)} graphs, {said}: CPU"
        yield amount(what, time.process_time() - began, "s")
        yield amount(f"calls, {said}: at most", max(map(len, plans.values())), "×", 20)
        took = {(g.name, n): g.takes(plans[g.name], n) for g in graphs for n in CORES}
        ratios = [took[key] / beside[key] for key in took]
        yield from spread(f"makespan, {said}", ratios, *((1.005, 1.05) if known else ()))
        bound = [took[g.name, n] / g.bound(n) for g in graphs for n in CORES]
        yield from spread(f"makespan, {said}, beside the bound", bound)
        if not known:
            equal = {g.name: make_elements(g.plan, {}) for g in graphs}
            blind = [took[g.name, n] / g.exact(n, equal[g.name]) for g in graphs for n in CORES]
            yield from spread("makespan, no run times known, nor beside", blind, 1.04)
    told = [g.takes(g.batches(known=True, cores=n), n) / beside[g.name, n]
            for g in graphs for n in CORES]  # fmt: skip
    yield from spread("makespan, run times and cores known", told, 1.01, 1.05)


def small(folder: Path) -> Iterator[Row]:
    """Make the rows of graphs of few tasks."""
    graphs = [
        g for tasks in (50, 100, 250) for seed in (1, 2, 3) for g in generate(folder, tasks, seed)
    ]
    plans = [g.batches(known=True) for g in graphs]
    yield amount("calls, 50 to 250 tasks, run times known: at most", max(map(len, plans)), "×", 40)
    known = [g.takes(p, n) / g.exact(n) for g, p in zip(graphs, plans, strict=True) for n in CORES]
    yield from spread("makespan, 50 to 250 tasks, run times known", known, None, 1.05)
    plans = [g.batches(known=False) for g in graphs]
    blind = [g.takes(p, n) / g.levels(n) for g, p in zip(graphs, plans, strict=True) for n in CORES]
    what = "makespan, 50 to 250 tasks, no times known, beside an array a level"
    yield from spread(what, blind, None, 1)


def large(graphs: Sequence[Graph]) -> Iterator[Row]:
    """Make the rows of graphs of many tasks, on as many cores as they keep busy."""
    cores = max(CORES)
    took = [g.takes(g.batches(known=True), cores) / g.exact(cores) for g in graphs]
    tasks = max(len(g.tasks) for g in graphs)
    yield from spread(f"makespan, up to {tasks:,} tasks, {cores} cores", took, None, 1.05)


def spread(
    what: str, ratios: Sequence[float], mean: float | None = None, most: float | None = None
) -> Iterator[Row]:
    """Make rows of ratios: their geometric mean, and the worst."""
    usual = exp(sum(map(log, ratios)) / len(ratios))
    for name, ratio, goal in (("mean", usual, mean), ("worst", max(ratios), most)):
        said = "" if goal is None else f"≤ {goal:g}" + (" (missed)" if ratio > goal else "")
        yield Row(f"{what}: {name} of {len(ratios)}", "", "", f"{ratio:.3f}", said)


# --- on a real Slurm ------------------------------------------------------------------------------


def on_slurm(folder: Path, graphs: Sequence[Graph]) -> Iterator[Row | str]:
    """Run graphs, scaled in time, and hold how long they took against what was predicted.

    What Slurm adds to an element is measured before, by an array of short sleeps.
    """
    if missing := measure.slurm_missing():
        yield f"planner.py runs no graphs, as no Slurm answers: {missing}"
        return
    env = slots.slots_site(folder)
    latency = slots.latency(folder, env)
    yield Row("what Slurm adds to an element of a full cluster", f"{latency * 1000:.0f} ms")
    for graph in graphs:
        scale = LONG / graph.exact(SLOTS)
        file = folder / f"{graph.name}_run.py"
        file.write_text(
            "from hpcpipe import from_wfformat\n"
            f"wf = from_wfformat({str(graph.file)!r}, name={graph.name!r}, base_dir='runs', "
            f"scale={scale!r})\n"
        )
        planned = make_plan(from_wfformat(graph.file, scale=scale))
        seconds = {name: node.node.seconds or () for name, node in planned.nodes.items()}
        batches = make_batches(planned, CAN, Limits(1001, cores=SLOTS), partial(dict, seconds))
        jobs = jobs_of(batches, make_elements(planned, seconds))
        told = simulate(jobs, SLOTS, window=CAN.window, latency=latency).makespan
        took = slots.lasted(slots.spans(folder, env, graph.name, "submit", str(file)))
        ratio = took / told
        goal = "0.9 – 1.1" + ("" if 0.9 <= ratio <= 1.1 else " (missed)")
        what = f"{graph.name}, {len(graph.tasks):,} tasks in {len(batches)} arrays on Slurm"
        yield Row(f"{what}: wall", f"{took:.1f} s", f"{told:.1f} s", f"{ratio:.2f}", goal)


# --- packs ----------------------------------------------------------------------------------------


def packs(folder: Path, tasks: int) -> Iterator[Row]:
    """Run tasks that do nothing, packed, on local processes: CPU of all there is to it."""
    pack = f"--pack={tasks // 20}"
    python = ("submit", pack, measure.NOOP)
    shell = ("map", pack, "--name=noop", "--base-dir=runs", "--", "true", "::::", "lines")
    for what, words, goal in (("Python tasks", python, 2.0), ("commands", shell, 4.0)):
        new = measure.fresh(folder)
        (new / "lines").write_text("".join(f"{n}\n" for n in range(tasks)))
        spent = whole(new, *words, tasks=tasks)
        each = spent.cpu / tasks * 1000
        said = f"≤ {goal:g} ms" + (" (missed)" if each > goal else "")
        yield Row(f"{tasks:,} packed {what}: CPU each", f"{each:.2f} ms", goal=said)
        yield Row(f"{tasks:,} packed {what}: wall each", f"{spent.wall / tasks * 1000:.2f} ms")


def whole(folder: Path, *words: str, tasks: int) -> Use:
    """Submit to local processes, and count what the client and all that it started used."""
    env = {
        "HPCPIPE_SITE": "local",
        "HPCPIPE_LOCAL": str(folder / "spool"),
        "SUBJECTS": str(tasks // 2),
    }
    began = time.perf_counter()
    client = use(HPCPIPE, *words, cwd=folder, env=env)
    (lock,) = folder.glob("spool/*/keeper.lock")
    keeper = psutil.Process(int(re.findall(r"\d+", lock.read_text())[0]))
    ask = (HPCPIPE, "status", "--json", "--run", str(folder / "runs" / "noop"))
    while True:
        spent = sum(keeper.cpu_times()[:4])  # its own, and of what it has waited for
        told = json.loads(use(*ask, cwd=folder, env=env).said)
        if told["finished"]:
            break
        time.sleep(0.5)
    wall = time.perf_counter() - began
    spent = sum(keeper.cpu_times()[:4]) if keeper.is_running() else spent
    assert all(node["all"] == node.get("done") for node in told["nodes"].values()), told
    return Use(wall, client.cpu + spent, 0)


if __name__ == "__main__":
    measure.main(rows)
