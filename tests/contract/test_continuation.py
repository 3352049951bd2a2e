"""What failed is retried in the queue, with nobody logged in, also if that job itself is killed."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from contract.harness import Cluster, until
from hpcpipe.schedulers.base import run_command

WORKFLOW = """
    import os
    import signal
    import time

    from hpcpipe import Workflow, each, task

    HERE = os.path.dirname(__file__)
    ASKED = dict(cpus=1, memory="100M", time="5m", queue="long")

    def once(name):
        with open(HERE + "/ran", "a") as ran:
            ran.write(name + "\\n")
        with open(HERE + "/ran") as ran:
            return ran.read().split().count(name) == 1

    def wait(name):
        while not os.path.exists(HERE + "/" + name):
            time.sleep(0.2)

    @task(**ASKED, retries=1)
    def work(kind):
        first = once("work/" + kind)
        if kind == "slow":
            wait("go")
        if kind == "hopeless" or first and kind == "raises":
            raise ValueError("not yet")
        return kind

    @task(cpus=1, memory="110M", time="5m", queue="long")
    def next_work(kind):
        once("next_work/" + kind)
        return kind

    wf = Workflow("night", base_dir="runs")
    wf.add(next_work, kind=wf.add(work, kind=each(["good", "raises", "slow", "hopeless"])))
    if {commands}:
        wf.command(
            ["sh", HERE + "/tool.sh", "{{kind}}"],
            name="tool", resources={{**ASKED, "retries": 2, "retry_if": [75, "again"]}},
            kind=each(["code", "words", "other"]),
        )
"""
TOOL = """
    echo "tool/$1" >>"$(dirname "$0")/ran"
    [ "$(grep -c "tool/$1" "$(dirname "$0")/ran")" -lt 3 ] || exit 0
    case $1 in
    code) exit 75 ;;
    words) echo "licence server busy, try again later"; exit 1 ;;
    other) exit 3 ;;
    esac
"""


KILLED = """
    import os
    import signal
    import time

    from hpcpipe import Workflow, each, task

    HERE = os.path.dirname(__file__)
    ASKED = dict(cpus=1, memory="100M", time="5m", queue="long", retries=1)

    @task(**ASKED)
    def work(kind):
        with open(HERE + "/ran", "a") as ran:
            ran.write("work/" + kind + "\\n")
        with open(HERE + "/ran") as ran:
            first = ran.read().split().count("work/" + kind) == 1
        if kind == "killed" and first:
            os.killpg(0, signal.SIGKILL)
        if kind == "failed" and first:
            raise ValueError
        while not os.path.exists(HERE + "/" + kind):
            time.sleep(0.2)

    @task(**{{**ASKED, "memory": "110M"}})
    def next_work(kind, of):
        pass

    wf = Workflow("night", base_dir="runs")
    kind = each(["{dies}", "good", "slow"], axis="kind")
    if {commands}:
        of = wf.command(
            ["sh", HERE + "/tool.sh", "{{kind}}"], name="tool", resources=ASKED, kind=kind
        )
        wf.command("true {{kind}}", name="next", resources={{**ASKED, "memory": "110M"}},
                   kind=kind, after=[of])
    else:
        wf.add(next_work, kind=kind, of=wf.add(work, kind=kind))
"""
KILLED_TOOL = """
    here=$(dirname "$0")
    echo "work/$1" >>"$here/ran"
    case "$1 $(grep -c "work/$1" "$here/ran")" in
    "killed 1") kill -KILL 0 ;;
    "failed 1") exit 1 ;;
    esac
    until [ -e "$here/$1" ]; do sleep 0.2; done
"""


def submitted(cluster: Cluster, *, commands: bool = True) -> None:
    cluster.write("tool.sh", TOOL)
    cluster.write("flow.py", WORKFLOW.format(commands=commands))
    said = cluster.hpcpipe("submit", "flow.py").stdout
    assert "What fails is retried in the queue" in said


def ran(cluster: Cluster) -> list[str]:
    file = cluster.home / "ran"
    return file.read_text().split() if file.exists() else []


def ledger(cluster: Cluster) -> list[dict[str, Any]]:
    file = cluster.home / "runs/night/.hpcpipe/ledger.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def waiting(cluster: Cluster) -> list[str]:
    """List the jobs of continuations that have neither done their work nor been cancelled."""
    jobs: dict[str, str] = {}
    for fact in ledger(cluster):
        if fact["event"] == "submitted" and fact["batch"].startswith("+"):
            jobs[fact["batch"]] = fact["job"]
        elif fact["event"] in ("continued", "cancelled"):
            for batch in fact.get("batches", [fact.get("batch")]):
                jobs.pop(batch, None)
    return [*jobs.values()]


def has_ended(cluster: Cluster) -> bool:
    """Return whether one of the first job's three elements has left the queue."""
    job = next(fact["job"] for fact in ledger(cluster) if fact["event"] == "submitted")
    return len(cluster.dialect.adapter(cluster.spool, run_command).poll([job])) < 3


def succeeded(cluster: Cluster, first: str) -> bool:
    """Return whether another continuation waits, with its stand-in, in place of the first."""
    return len(waiting(cluster)) == 2 and first not in waiting(cluster)


def test_what_fails_is_retried_as_often_as_asked_while_others_run(cluster: Cluster) -> None:
    submitted(cluster)
    until(lambda: ran(cluster).count("work/raises") == 2 and "next_work/raises" in ran(cluster))
    (cluster.home / "go").touch()  # what ran all the time
    report = cluster.finish()
    told = {one["task"]: one["reason"] for one in report["failures"]}
    assert told == {
        "work/hopeless": "error",
        "next_work/hopeless": "upstream failed",
        "tool/other": "exit",
    }
    counts = {name: ran(cluster).count(name) for name in ran(cluster)}
    assert counts == {
        "work/good": 1, "work/raises": 2, "work/slow": 1, "work/hopeless": 2,
        "next_work/good": 1, "next_work/raises": 1, "next_work/slow": 1,
        "tool/code": 3, "tool/words": 3, "tool/other": 1,
    }  # fmt: skip
    ends = {name: [end["reason"] for end in some] for name, some in report["retried"].items()}
    assert ends == {
        "work/raises": ["error"], "work/hopeless": ["error"],
        "tool/code": ["exit"] * 2, "tool/words": ["exit"] * 2,
    }  # fmt: skip
    until(lambda: not waiting(cluster))
    assert "error: ValueError: not yet" in cluster.hpcpipe("explain", "work/raises").stdout


def test_its_stand_in_goes_on_where_a_continuation_is_killed(cluster: Cluster) -> None:
    submitted(cluster, commands=False)
    lock, waking = (cluster.home / "runs/night/.hpcpipe" / name for name in ("lock", "waking"))
    waking.touch()  # as if a continuation had been called for that never came
    adapter = cluster.dialect.adapter(cluster.spool, run_command)
    for _ in range(2 if cluster.dialect.lets_go else 1):
        first = waiting(cluster)[0]
        adapter.cancel([first])
        if cluster.dialect.lets_go:
            until(partial(succeeded, cluster, first))
    (cluster.home / "go").touch()
    report = cluster.finish()
    assert {one["task"] for one in report["failures"]} == {"work/hopeless", "next_work/hopeless"}
    until(lambda: not waiting(cluster) and not lock.exists())
    assert ran(cluster).count("work/raises") == 2


def test_a_cancelled_run_is_not_retried(cluster: Cluster) -> None:
    submitted(cluster, commands=False)
    until(lambda: "work/slow" in ran(cluster))
    cluster.hpcpipe("cancel")
    assert not waiting(cluster)
    report = cluster.finish()
    assert not report["nodes"]["work"].keys() & {"queued", "running", "waiting"}
    assert ran(cluster).count("work/slow") == 1


@pytest.mark.can("continues_on_submit_host")
def test_what_fails_is_retried_also_where_no_node_may_submit_jobs(cluster: Cluster) -> None:
    cluster.write("tool.sh", TOOL)
    cluster.write("flow.py", WORKFLOW.format(commands=True))
    site = f'extends = "{cluster.dialect.site}"\n[nodes]\nmay_submit = false\n'
    cluster.write("site.toml", site)
    cluster.hpcpipe("submit", "--site", "./site.toml", "flow.py")
    (cluster.home / "go").touch()
    report = cluster.finish(seconds=240)
    assert len(report["failures"]) == 3
    assert [ran(cluster).count(f"tool/{kind}") for kind in ("code", "words", "other")] == [3, 3, 1]
    assert not (cluster.home / "runs/night/.hpcpipe/logs/waking.out").exists()


@pytest.mark.can("short_time")
def test_what_ran_out_of_memory_or_time_gets_more_until_it_has_enough(cluster: Cluster) -> None:
    cluster.write(
        "flow.py",
        f"""
        import os
        import time
        from hpcpipe import Workflow, each, task

        HERE = os.path.dirname(__file__)

        @task(cpus=1, memory="100M", time="{cluster.dialect.short_time or "1m"}", retries=3)
        def work(kind):
            hog = b"x" * (250 << 20) if kind == "memory" else b""
            if hog and not os.path.exists(HERE + "/ran"):
                open(HERE + "/ran", "w").close()
                time.sleep(600)  # not every scheduler looks at once
            time.sleep(3)
            return len(hog)

        wf = Workflow("night", base_dir="runs")
        wf.add(work, kind=each(["memory", "good"]))
        """,
    )
    cluster.hpcpipe("submit", "flow.py")
    report = cluster.finish(seconds=300)
    assert report["failures"] == []
    reasons = [end["reason"] for end in report["retried"]["work/memory"]]
    assert "out of memory" in reasons  # and perhaps "time limit", on a busy machine


@pytest.mark.parametrize("commands", [False, True], ids=["functions", "commands"])
def test_what_is_killed_with_its_script_is_retried_when_another_task_begins(
    either: Cluster, *, commands: bool
) -> None:
    cluster = either  # Grid Engine cannot tell a kill from a cancel, which is never undone
    retries_as_another_begins(cluster, "killed", commands=commands)


@pytest.mark.parametrize("commands", [False, True], ids=["functions", "commands"])
def test_what_fails_is_retried_as_another_task_begins_though_no_continuation_comes(
    either: Cluster, *, commands: bool
) -> None:
    cluster = either
    waking = cluster.home / "runs/night/.hpcpipe/waking"
    waking.parent.mkdir(parents=True)
    waking.touch()  # as if one had been called for, and waited for a slot in vain
    retries_as_another_begins(cluster, "failed", commands=commands)


def retries_as_another_begins(cluster: Cluster, dies: str, *, commands: bool) -> None:
    cluster.write("tool.sh", KILLED_TOOL)
    cluster.write("flow.py", KILLED.format(commands=commands, dies=dies))
    cluster.hpcpipe("submit", "flow.py")
    (cluster.home / dies).touch()
    until(lambda: {*ran(cluster)} == {f"work/{dies}", "work/good", "work/slow"})
    until(lambda: has_ended(cluster) or cluster.status()["retried"])
    (cluster.home / "good").touch()
    until(lambda: ran(cluster).count(f"work/{dies}") == 2)
    (cluster.home / "slow").touch()
    report = cluster.finish()
    assert report["failures"] == []
    assert sorted(ran(cluster)) == sorted([f"work/{dies}"] * 2 + ["work/good", "work/slow"])
