"""That no task ever runs twice at once and none is lost, whatever happens in whatever order.

The real plans, states, ledger, store and claims, in a simulated world; see `simulated`.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from fakes import RUNNING
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from simulated import Cluster, Killed, Queued, World

from hpcpipe import each
from hpcpipe.errors import HpcpipeError
from hpcpipe.graph.workflow import Workflow
from hpcpipe.jobs import State
from hpcpipe.keys.fates import DONE, IN_FLIGHT, RUN
from hpcpipe.keys.file_digest import Files
from hpcpipe.keys.plan import freeze
from hpcpipe.resources import Resources
from hpcpipe.run import retry, submit
from hpcpipe.site import Limits, Site
from hpcpipe.status.report import make_report
from hpcpipe.store.ledger import Ledger
from hpcpipe.store.rundir import RunDir
from hpcpipe.submit.cancel import cancel
from hpcpipe.submit.prepare import draft

CLOCKED = (
    "status.in_flight", "status.poll", "status.report", "store.ledger", "submit.recover",
    "submit.hand_over", "submit.refusal", "submit.submit", "worker.task",
)  # fmt: skip
FAULTS = ("", "", "refused", "lost before", "lost after", "late 2", "late 40", "late 600",
          "killed before", "killed after")  # fmt: skip
SKEWS = (0, 0, -45, 45, -900, 900)  # seconds
SETTLE = 30

clusters = st.integers(0, 1)
picks = st.integers(0, 20)
faults = st.lists(st.sampled_from(FAULTS), min_size=3, max_size=3)


def make(n: int) -> int:
    return n


def follow(n: int) -> int:
    return n


def collect(ns: list[int]) -> int:
    return sum(ns)


class Histories(RuleBasedStateMachine):
    """Random histories of one run: two login nodes, each at a cluster of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.temporary = tempfile.TemporaryDirectory()
        folder = Path(self.temporary.name)
        self.patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        self.patch.chdir(folder)
        self.workflow = Workflow("lab", folder / "runs", source=__file__)
        first = self.workflow.add(make, n=each(range(3), axis="n"), name="first")
        second = self.workflow.add(follow, n=first, name="second")
        self.workflow.add(collect, ns=second.gather(), name="third")
        self.rundir = RunDir(self.workflow.folder)
        self.world = World(self.rundir.home, time.time())
        for module in CLOCKED:
            self.patch.setattr(f"hpcpipe.{module}.time", self.world)
        self.patch.setattr("hpcpipe.worker.claim.find_process", self.world.find_process)
        self.patch.setattr("hpcpipe.schedulers.local.Local", lambda **_: self.here)
        self.patch.setattr(os, "fsync", lambda _: None)
        frozen = freeze(self.workflow, Files(), Resources())  # once, as it takes the longest
        self.patch.setattr("hpcpipe.submit.prepare.freeze", lambda *_: frozen)
        self.patch.setattr("logging.Logger.warning", lambda *_: None)

    @initialize(
        others=st.tuples(st.integers(0, 2), st.integers(0, 2)),
        skews=st.tuples(st.sampled_from(SKEWS), st.sampled_from(SKEWS)),
        packed=st.booleans(),
        faults=faults,
    )
    def begin(
        self, others: tuple[int, int], skews: tuple[int, int], packed: bool, faults: Sequence[str]
    ) -> None:
        self.clusters = [
            Cluster(self.world, f"local:{name}", n) for name, n in zip("ab", others, strict=True)
        ]
        self.skews = skews
        limits = Limits(poll_seconds=10, settle_seconds=SETTLE, max_jobs=4 if packed else None)
        self.site = Site(limits=limits)
        self.submit(0, faults)

    def at(self, where: int) -> None:
        self.here, self.world.skew = self.clusters[where], self.skews[where]

    @contextmanager
    def client(self, where: int, faults: Sequence[str] = ()) -> Iterator[None]:
        """Be a client at a cluster, which may be refused or killed."""
        self.at(where)
        self.here.faults = [*faults]
        try:
            with suppress(Killed):
                yield
        except HpcpipeError as error:
            note(f"{type(error).__name__}: {error}")
        finally:
            self.here.faults = []

    # --- what people do -----------------------------------------------------------------------

    @rule(where=clusters, faults=faults)
    def submit(self, where: int, faults: Sequence[str]) -> None:
        with self.client(where, faults):
            submit(self.workflow, site=self.site)

    @precondition(lambda self: self.rundir.exists)
    @rule(where=clusters)
    def retry(self, where: int) -> None:
        with self.client(where):
            retry(self.workflow.folder, site=self.site)

    @precondition(lambda self: self.rundir.exists)
    @rule(where=clusters, names=st.sampled_from(((), ("first/1",), ("second/0",), ("third",))))
    def cancel(self, where: int, names: tuple[str, ...]) -> None:
        with self.client(where):
            cancel(self.rundir, names)

    # --- what happens by itself ---------------------------------------------------------------

    @rule(pick=picks, many=st.integers(1, 4))
    def start(self, pick: int, many: int) -> None:
        for _ in range(many):
            ready = [(one, c) for c in self.clusters for one in c.ready()]
            if ready:
                one, cluster = ready[pick % len(ready)]
                cluster.start(one)

    def pick(self, pick: int) -> tuple[Queued, Cluster] | None:
        running = [(one, c) for c in self.clusters for one in c.elements if one.word == RUNNING]
        return running[pick % len(running)] if running else None

    @rule(
        pick=picks,
        good=st.sampled_from((True, True, False)),
        late=st.sampled_from((0, 5, SETTLE - 5)),
        after=st.sampled_from((0, 0, 1, 20)),
    )
    def finish(self, pick: int, good: bool, late: float, after: float) -> None:
        if found := self.pick(pick):
            worker = found[0].worker
            assert worker
            self.world.at(after, lambda: worker.finish(good, late))
            if not after:
                self.world.sleep(0)

    @rule(pick=picks, softly=st.booleans())
    def requeue(self, pick: int, softly: bool) -> None:
        if found := self.pick(pick):
            found[1].requeue(found[0], softly)

    @rule(pick=picks)
    def fail_node(self, pick: int) -> None:
        if found := self.pick(pick):
            found[1].fail_node(found[0])

    @rule(seconds=st.sampled_from((1, 11, 40, 700)))
    def wait(self, seconds: float) -> None:
        self.world.sleep(seconds)

    @rule(
        where=clusters,
        mute=st.sampled_from(((), (), ("poll",), ("account",), ("find",), ("poll", "find"))),
        deaf=st.sampled_from(((), (), ("release",), ("cancel",))),
        lag=st.sampled_from((0, 0, 20)),
        amnesia=st.booleans(),
        slow=st.sampled_from((0, 3, 90)),
        others=st.integers(0, 1),
    )
    def change(
        self, where: int, mute: Sequence[str], deaf: Sequence[str], lag: float, amnesia: bool,
        slow: float, others: int,
    ) -> None:  # fmt: skip
        cluster = self.clusters[where]
        cluster.mute, cluster.deaf = {*mute}, {*deaf}
        cluster.lag, cluster.amnesia, cluster.slow = lag, amnesia, slow
        cluster.last += others

    # --- what must hold -----------------------------------------------------------------------

    @invariant()
    def status_and_plan_agree(self) -> None:
        if not (self.rundir.exists and Ledger(self.rundir.ledger).read().runs):
            return
        report = make_report(self.rundir, fresh=True)
        plan = draft(self.workflow, self.site)
        shown = {(task.node, task.key): task for task in report.tasks}
        planned = plan.standing.tasks
        assert shown.keys() == planned.keys()
        for task, one in shown.items():
            assert (one.state, one.reason) == (planned[task].state, planned[task].reason), task
        for name, node in plan.plan.nodes.items():
            for index in range(len(node.node)):
                found = shown.get((name, node.key(index)))
                fate = node.fates[index]
                assert (fate == DONE) == (found is None)
                if fate == RUN and found and found.state.live and found.place:
                    assert found.place.id in plan.superseded, found
                if fate == IN_FLIGHT:
                    assert found is not None
                    assert found.under_way, found

    def teardown(self) -> None:
        try:
            if hasattr(self, "clusters"):
                self.let_all_end()
        finally:
            self.patch.undo()
            self.temporary.cleanup()

    def let_all_end(self) -> None:
        """Let everything settle: all succeed in the end, and nothing is left in a queue."""
        for cluster in self.clusters:
            cluster.mute, cluster.deaf, cluster.slow, cluster.lag = set(), set(), 0, 0
        for number in range(16):
            self.world.sleep(700)
            for cluster in self.clusters:
                self.run_all(cluster)
            with self.client(number % 2):
                submit(self.workflow, site=self.site)
            if len(self.world.succeeded) == 7 and number > 1:
                break
        for where in 0, 1:
            with self.client(where):
                submit(self.workflow, site=self.site)
        report = make_report(self.rundir, fresh=True)
        assert report.total.keys() == {State.DONE}, report.tasks
        assert len(self.world.succeeded) == 7
        left = [(c.where, c.readiness(one), one) for c in self.clusters for one in c.elements]
        left = [one for one in left if one[2].live]
        assert not left, left

    def run_all(self, cluster: Cluster) -> None:
        self.finish_all(cluster)
        while ready := cluster.ready():
            for one in ready:  # all at once
                cluster.start(one)
            self.finish_all(cluster)

    def finish_all(self, cluster: Cluster) -> None:
        for one in cluster.elements:
            while one.word == RUNNING and one.worker and one.worker.now:
                one.worker.finish(True)


ALL = bool(os.environ.get("HPCPIPE_TEST_ALL"))
TestHistories = Histories.TestCase
TestHistories.settings = settings(
    derandomize=not ALL,
    max_examples=1000 if ALL else 10,
    stateful_step_count=25,
    deadline=None,
    phases=[Phase.generate, *([Phase.shrink] if ALL else [])],  # it would take minutes
    suppress_health_check=[*HealthCheck],
)
