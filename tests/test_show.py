"""The screens, as they look on a terminal of 80 columns and 24 lines, and piped."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpcpipe.graph.axes import Axis
from hpcpipe.jobs import JobEnd, Reason, State
from hpcpipe.resources import Resources
from hpcpipe.status.instances import ElementId
from hpcpipe.status.places import Place
from hpcpipe.status.report import Report
from hpcpipe.status.state import Task
from hpcpipe.store.ledger import Submission
from hpcpipe.store.plan import NodeRecord
from hpcpipe.store.record import BatchRecord, RunRecord
from hpcpipe.views.status import change_lines, explain_lines, report_json, status_lines
from hpcpipe.views.text import Size

NOW = 1_800_000_000.0
ASKED = Resources(cpus=1, memory=4096, time=7200)

Golden = Callable[[str, str], None]
Counts = Mapping[State, int]


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcpipe.views.status.time", SimpleNamespace(time=lambda: NOW))


def report(counts: Mapping[str, Counts], tasks: Sequence[Task] = (), **more: Any) -> Report:
    """Return a report of counts by node, and tasks that have not succeeded."""
    axes = (Axis("subject", ("SAD01",)),)
    nodes = {name: NodeRecord(name, axes, b"", (), ASKED) for name in counts}
    record = RunRecord(3, "spm", {}, "/", "lab", "slurm", {}, 15, 30, nodes, {})
    counters = {name: Counter(of) for name, of in counts.items()}
    return Report(record, counters, tasks, **{"asked": None, **more})


def task(name: str, state: State, reason: Reason | None, words: str = "", **more: Any) -> Task:
    node, _, label = name.partition("/")
    return Task(node, label, "", state, reason, words, **more)


def failed(name: str, reason: Reason, words: str = "", **more: Any) -> Task:
    return task(name, State.FAILED, reason, words, **more)


def blocked(name: str, by: str) -> Task:
    return task(name, State.BLOCKED, Reason.UPSTREAM, f"waits for {by}")


def placed(element: str, attempt: int = 1, hint: str = "") -> Place:
    """Return where a task was submitted."""
    why = "short: 2 h fits its 4 h limit"
    batch = BatchRecord("normalize-0a1b2c3d", ("normalize",), b"", None, ASKED, "short", why)
    submission = Submission(batch.id, 3, "token", NOW, held=False, job="4712", hint=hint)
    return Place(batch, 54, ElementId("slurm:alps", element), submission, attempt)


SUCCEEDED = report(
    {"coregister": {State.DONE: 69}, "normalize": {State.DONE: 69}, "smooth": {State.DONE: 207}}
)
RUNNING = report(
    {
        "normalize": {State.DONE: 41, State.RUNNING: 14, State.QUEUED: 12, State.FAILED: 2},
        "smooth": {State.DONE: 82, State.QUEUED: 119, State.BLOCKED: 6},
    },
    [
        failed("normalize/SAD07", Reason.MEMORY, "used 4 GB of 4 GB"),
        failed("normalize/SAD31", Reason.MEMORY, "used 3.9 GB of 4 GB"),
        *(task(f"normalize/SAD{n}", State.QUEUED, None, "Priority") for n in range(50, 62)),
        *(task(f"smooth/SAD{n}/4", State.QUEUED, None, "Dependency") for n in range(119)),
        *(blocked(f"smooth/SAD{n:02}/{fwhm}", f"normalize/SAD{n:02}")
          for n in (7, 31) for fwhm in (4, 6, 8)),
    ],
    asked=NOW - 12,
)  # fmt: skip
CAUSES = [
    failed("normalize/SAD07", Reason.MEMORY, "used 4 GB of 4 GB"),
    failed("normalize/SAD31", Reason.MEMORY, "used 3.9 GB of 4 GB"),
    failed("normalize/SAD55", Reason.ERROR, "FileNotFoundError: T1/SAD55.mat\nis not there"),
    failed("normalize/SAD56", Reason.EXIT, "exit 1"),
    failed("normalize/SAD57", Reason.EXIT, "exit 1"),
    failed("normalize/SAD58", Reason.TIME, "TIMEOUT on node17"),
    failed("normalize/SAD59", Reason.NODE, "NODE_FAIL on node3"),
    failed("normalize/SAD60", Reason.SIGNAL, "killed by signal 11"),
    task("normalize/SAD61", State.CANCELLED, Reason.CANCELLED, "CANCELLED by 0"),
    task("normalize/SAD62", State.LOST, Reason.LOST, "not in the queue, no outcome, no accounting"),
    *(blocked(f"smooth/SAD{n:02}/4", f"normalize/SAD{n:02}") for n in (7, 31, *range(55, 63))),
    blocked("mean", "smooth/SAD07/4"),
]
FAILED = report(
    {
        "normalize": {State.DONE: 59, State.FAILED: 8, State.CANCELLED: 1, State.LOST: 1},
        "smooth": {State.DONE: 59, State.BLOCKED: 10},
        "mean": {State.BLOCKED: 1},
    },
    CAUSES,
    asked=NOW - 3,
)
MANY = report(
    {"voxelwise": {State.DONE: 9_700, State.FAILED: 300}, "collect": {State.BLOCKED: 1}},
    [
        *(failed(f"voxelwise/v{n}", Reason.ERROR, f"ValueError: row {n % 30}") for n in range(300)),
        blocked("collect", "voxelwise/v0"),
    ],
)
INTERRUPTED = report(
    {"normalize": {State.HELD: 69}, "smooth": {State.UNKNOWN: 100, State.WAITING: 107}},
    [task(f"normalize/SAD{n}", State.HELD, None, "JobHeldUser") for n in range(69)],
    asked=NOW,
    adrift=3,
)
NOTHING = report({"normalize": {State.WAITING: 69}}, adrift=1)
NO_SLURM = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n(squeue)"
UNREACHABLE = report(
    {"normalize": {State.DONE: 12, State.UNKNOWN: 57}},
    [task("normalize/SAD13", State.UNKNOWN, Reason.UNREACHABLE, NO_SLURM)],
    asked=NOW - 3700,
)
REFUSED = report(
    {"normalize": {State.FAILED: 69}, "smooth": {State.FAILED: 207}},
    [
        failed(
            f"{node}/{n}",
            Reason.REFUSED,
            "sbatch: error: Batch job submission failed: Invalid account or account/partition",
            place=placed("", hint="--account ada_lab"),
        )
        for node, size in (("normalize", 69), ("smooth", 207))
        for n in range(size)
    ],
)
FORTY = report(
    {
        **{f"register_{n}": {State.DONE: 10} for n in range(20)},
        **{f"model_{n}": {State.DONE: 5, State.FAILED: 1, State.QUEUED: 4} for n in range(10)},
        **{f"group_{n}": {State.BLOCKED: 1} for n in range(10)},
    },
    [
        *(failed(f"model_{n}/SAD01", Reason.ERROR, f"ValueError: row {n}") for n in range(10)),
        *(task(f"model_{n}/SAD02", State.QUEUED, None, "Priority") for n in range(10)),
        *(blocked(f"group_{n}", f"model_{n}/SAD01") for n in range(10)),
    ],
)
SCREENS = {
    "forty-nodes": FORTY,
    "finished": SUCCEEDED,
    "running": RUNNING,
    "failed-by-several-causes": FAILED,
    "ten-thousand-in-one-line": MANY,
    "interrupted": INTERRUPTED,
    "nothing-submitted": NOTHING,
    "unreachable": UNREACHABLE,
    "refused": REFUSED,
}


def fits(lines: Sequence[str]) -> str:
    """Return lines as one text; it must fit a small terminal."""
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", SCREENS)
def test_a_status_screen_is_as_it_was(name: str, golden: Golden) -> None:
    golden(f"screens/status-{name}.txt", fits([*status_lines(SCREENS[name])]))


def test_the_status_of_100_000_tasks_fits_one_screen() -> None:
    bad = [
        failed(f"n{node}/{n}", Reason.ERROR, f"ValueError: {n}")
        for node in range(4)
        for n in range(6250)
    ]
    after = [blocked(f"last/{n}", f"n0/{n}") for n in range(25000)]
    waits = [task(f"n0/{n}", State.QUEUED, None, f"reason {n % 7}") for n in range(1000)]
    nodes = {f"n{n}": {State.DONE: 12500, State.FAILED: 6250} for n in range(4)}
    last = {"last": {State.BLOCKED: 25000, State.QUEUED: 1000, State.RUNNING: 5}}
    lines = [*status_lines(report({**nodes, **last}, [*bad, *after, *waits], asked=NOW))]
    fits(lines)
    assert len(lines) > 15


def test_the_live_view_has_a_bar_for_each_node(golden: Golden) -> None:
    frames = [fits([*status_lines(at, bars=True)]) for at in (RUNNING, FORTY)]
    golden("screens/live.txt", "--\n".join(frames))


def test_a_high_or_a_wide_terminal_is_used() -> None:
    high = [*status_lines(FORTY, size=Size(80, 60))]
    assert sum(line.startswith(("register_", "model_", "group_")) for line in high) == 40
    assert high == [*status_lines(FORTY, whole=True)]
    wide = "\n".join(status_lines(REFUSED, size=Size(200, 24)))
    assert "Batch job submission failed: Invalid account or account/partition\n" in wide


# One task


OUTCOME = {"host": "node17", "max_memory": 4096 * 1024, "wall": 3725.0, "cpu": 3700.25, "exit": 9}
EXPLAINED: dict[str, tuple[Task, Report, dict[str, Any]]] = {
    "failed": (
        CAUSES[0]._replace(place=placed("4712_54", attempt=2), outcome=OUTCOME),
        FAILED,
        {
            "inputs": ["image    T1/SAD07.nii  9 MB", "mask     T1/SAD07_mask.nii  missing"],
            "files": ["/runs/spm/normalize/subject-SAD07"],
            "tail": ["reading", "Killed"],
            "log": Path("logs/normalize-0a1b2c3d.54.out"),
        },
    ),
    "by-the-accounting": (
        CAUSES[5]._replace(
            place=placed("4712_58"),
            end=JobEnd("TIMEOUT", Reason.TIME, max_memory=812, wall=7201.0, host="node17"),
        ),
        FAILED,
        {},
    ),
    "blocked": (CAUSES[-2], FAILED, {}),
    "succeeded": (
        task("normalize/SAD01", State.DONE, None, outcome={"wall": 0.25, "max_memory": 300}),
        SUCCEEDED,
        {"result": ["hpcpipe results normalize/SAD01"], "log": Path("out")},
    ),
}


@pytest.mark.parametrize("name", EXPLAINED)
def test_an_explanation_is_as_it_was(name: str, golden: Golden) -> None:
    golden(f"screens/explain-{name}.txt", fits([*explain_lines(*EXPLAINED[name])]))


# For pipes and scripts


def test_a_pipe_is_told_of_stages_and_causes(golden: Golden) -> None:
    lines = [*change_lines(None, RUNNING), "--", *change_lines(RUNNING, FAILED)]
    golden("screens/piped.txt", fits([*lines, "--", *change_lines(FAILED, FAILED)]))


def test_a_pipe_gets_a_page_whatever_the_size_of_the_run() -> None:
    lines: list[str] = []
    before = None
    for done in range(0, 100_001, 100):
        counts = {"work": {State.DONE: done, State.RUNNING: 1, State.QUEUED: 100_000 - done}}
        after = report(counts)
        lines += change_lines(before, after)
        before = after
    assert 10 <= len(lines) <= 20


def test_json_counts_by_node_and_state_and_tells_all_of_a_failure() -> None:
    first, *_ = EXPLAINED["failed"]
    shown = replace(FAILED, tasks=[first])
    found = json.loads(json.dumps(report_json(shown, lambda task: f"logs/{task.label}.out")))
    assert found["nodes"]["normalize"] == {
        "all": 69, "done": 59, "failed": 8, "cancelled": 1, "lost": 1,
    }  # fmt: skip
    assert found["failures"] == [
        {
            "task": "normalize/SAD07",
            "node": "normalize",
            "label": "SAD07",
            "state": "failed",
            "reason": "out of memory",
            "error": "used 4 GB of 4 GB",
            "exit": 9,
            "signal": None,
            "native": None,
            "host": "node17",
            "attempt": 2,
            "job_id": "4712_54",
            "log": "logs/SAD07.out",
        }
    ]


def test_every_golden_screen_is_one_of_a_case(pytestconfig: pytest.Config) -> None:
    folder = pytestconfig.rootpath / "tests" / "golden" / "screens"
    cases = {f"status-{name}" for name in SCREENS} | {f"explain-{name}" for name in EXPLAINED}
    assert {file.stem for file in folder.iterdir()} == cases | {"piped", "live"}
