"""Lies that a run could tell: each is seen and its cause given; once it is mended, all is well."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from contract.harness import Cluster

# Every task of these waits for a file ``go``, as a queue would make it wait.
FLOW = """
    import os, subprocess, sys, time
    from pathlib import Path
    from hpcpipe import Workflow, task

    HERE = os.path.dirname(os.path.abspath(__file__))  # no Path: the folder would be an input
    sys.path.insert(0, HERE)
    ASKED = dict(cpus=1, memory="100M", time="5m")

    def wait():
        until = time.time() + 100
        while not os.path.exists(HERE + "/go") and time.time() < until:
            time.sleep(0.1)

    @task(**ASKED)
    def gate():
        wait()

    @task(**ASKED)
    def read(file: Path, gate):
        return file.read_text()

    @task(**ASKED)
    def make() -> Path:
        Path("made.txt").write_text("made")
        return Path("made.txt")

    @task(**ASKED)
    def absent() -> Path:
        return Path("absent.txt")

    @task(**ASKED)
    def one():
        return 1

    @task(**ASKED)
    def packaged():
        import lab.stats
        return lab.stats.value()

    @task(**ASKED)
    def fill():
        if not os.path.exists(HERE + "/mended"):
            with open("/dev/full", "wb", buffering=0) as full:
                full.write(b"x")
        return 1

    @task(**ASKED)
    def lose_a_child():
        if not os.path.exists(HERE + "/mended"):
            script = "echo oom_kill 1 >" + HERE + "/events; kill -9 $$"
            subprocess.run(["sh", "-c", script])  # and nobody looks how it ended
        return 1

    wf = Workflow("lie", base_dir="runs")
    ADD
"""
READ = 'wf.add(read, file=Path(HERE, "in.txt"), gate=wf.add(gate))'
WORDS = '["sh", HERE + "/tool.sh", "{output}"]'
TOOL = f'wf.command({WORDS}, name="tool", outputs="out.txt", resources=ASKED)'


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


def on_input(change: Callable[[str], str]) -> Callable[[Cluster], None]:
    """Let the input change while the task waits in the queue."""

    def act(cluster: Cluster) -> None:
        file = cluster.home / "in.txt"
        file.write_text(change(file.read_text()))
        (cluster.home / "go").touch()

    return act


def on_outcome(damage: Callable[[bytes], bytes]) -> Callable[[Cluster], None]:
    """Damage the outcome of a task that has succeeded."""

    def act(cluster: Cluster) -> None:
        assert cluster.finish()["failures"] == []
        [file] = cluster.home.glob("runs/lie/.hpcpipe/results/*/*.pkl")
        file.write_bytes(damage(file.read_bytes()))

    return act


def purge(cluster: Cluster) -> None:
    assert cluster.finish()["failures"] == []
    [file] = cluster.home.glob("runs/lie/**/made.txt")
    file.unlink()


def overwrite(cluster: Cluster) -> None:
    assert cluster.finish()["failures"] == []
    [file] = cluster.home.glob("runs/lie/**/made.txt")
    file.write_text("oops")


def try_once(cluster: Cluster) -> None:
    """Let a first try leave its output and fail; the next finds it there, and skips it."""
    cluster.finish()
    cluster.hpcpipe("retry")


def nothing(_: Cluster) -> None:
    return


@dataclass(frozen=True)
class Lie:
    """A workflow, what happens to it, what is then said, and the value once it is mended."""

    add: str
    happens: Callable[[Cluster], None]
    reason: str
    words: str
    value: Any = None
    tool: str = ""  # the script that its command runs
    mended: str = 'echo x >"$1"'
    setup: str = ""


LIES: dict[str, Lie] = {
    "input changed after submit": Lie(
        READ, on_input(lambda _: "B"), "input changed", "in.txt changed since it was planned", "B"
    ),
    "a copy that was cut short": Lie(
        READ, on_input(lambda part: part + "more"), "input changed", "in.txt changed", "Amore"
    ),
    "output missing": Lie(TOOL, nothing, "exit", "did not make out.txt", tool=":"),
    "a path to nothing": Lie(
        "wf.add(absent)", nothing, "error", "absent.txt, which does not exist"
    ),
    "output empty": Lie(TOOL, nothing, "exit", "made out.txt empty", tool=': >"$1"'),
    "output left from an earlier try": Lie(
        TOOL, try_once, "exit", "left out.txt as an earlier try had made it",
        tool='[ -e "$1" ] || { echo half >"$1"; exit 3; }', mended='rm "$1"; echo x >"$1"',
    ),
    "result purged": Lie("wf.add(make)", purge, "output gone", "made.txt"),
    "result overwritten": Lie(
        "wf.add(make)", overwrite, "output changed", "made.txt was changed after make made it"
    ),
    "outcome truncated": Lie("wf.add(one)", on_outcome(lambda all: all[:-9]), "damaged", "", 1),
    "outcome empty": Lie("wf.add(one)", on_outcome(lambda _: b""), "damaged", "", 1),
    "one bit flipped": Lie("wf.add(one)", on_outcome(flip), "damaged", "", 1),
    "module load failed": Lie(
        "wf.add(one)", nothing, "could not be started", "Unable to locate a modulefile", 1,
        setup="module load fsl",
    ),
    "disk full": Lie(
        "wf.add(fill)", nothing, "no space left on disk", "No space left on device", 1
    ),
    "child killed for memory": Lie(
        "wf.add(lose_a_child)", nothing, "out of memory", "the kernel killed a process of it", 1
    ),
}  # fmt: skip
MODULE = """module() {
  [ -e '%s/mended' ] || { echo "ERROR: Unable to locate a modulefile for 'fsl'" >&2; return 1; }
}"""


def write_site(cluster: Cluster, lie: Lie) -> None:
    """Write a site with the setup of a lie, and where the kernel's count of killed processes is."""
    lines = [*(MODULE % cluster.home).splitlines(), lie.setup] if lie.setup else []
    cluster.write(
        "lab.toml",
        f"""
        extends = "{cluster.dialect.site}"
        [environment]
        prologue = {json.dumps(lines)}
        [environment.variables]
        HPCPIPE_MEMORY_EVENTS = "{cluster.home}/events"
        """,
    )


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_lie_is_told_by_its_cause_and_mended(either: Cluster, lie: Lie) -> None:
    cluster = either
    write_site(cluster, lie)
    cluster.write("in.txt", "A")
    cluster.write("tool.sh", lie.tool)
    cluster.write("events", "oom_kill 0\n")
    cluster.write("flow.py", FLOW.replace("ADD", lie.add))
    cluster.hpcpipe("submit", "flow.py", "--site", "lab.toml")
    lie.happens(cluster)
    report = cluster.finish()
    [told] = [one for one in report["failures"] if one["reason"] != "upstream failed"]
    assert told["reason"] == lie.reason
    assert lie.words in told["error"]
    assert "succeeded" not in report["verdict"]
    assert lie.reason in cluster.hpcpipe("status").stdout
    if lie.words.endswith("does not exist"):
        return
    cluster.write("tool.sh", lie.mended)
    cluster.write("events", "oom_kill 0\n")
    (cluster.home / "mended").touch()
    cluster.hpcpipe("retry")
    report = cluster.finish()
    assert report["failures"] == []
    if lie.value is not None:
        assert _value(cluster) == lie.value


def test_an_own_package_that_was_edited_makes_its_tasks_run_again(either: Cluster) -> None:
    cluster = either
    (cluster.home / "lab").mkdir()
    cluster.write("lab/__init__.py", "")
    stats = cluster.write("lab/stats.py", "def value(): return 1\n")
    cluster.write("flow.py", FLOW.replace("ADD", "wf.add(packaged)"))
    for value in (1, 2):
        stats.write_text(f"def value(): return {value}\n")
        cluster.hpcpipe("submit", "flow.py")
        assert cluster.finish()["failures"] == []
        assert _value(cluster) == value


def _value(cluster: Cluster) -> Any:
    """Load the result of the last node."""
    from hpcpipe.run import Run

    run = Run(cluster.home / "runs" / "lie")
    [value] = run.results([*run.record.nodes][-1]).values()
    return value
