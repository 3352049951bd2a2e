"""The local scheduler on real processes: what runs, how it ends, and that nothing stays behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcpipe.errors import SchedulerError, SchedulerUnavailable
from hpcpipe.indices import parse_indices
from hpcpipe.jobs import After, JobEnd, Reason, State
from hpcpipe.schedulers.local import Local, default_spool, tree
from hpcpipe.schedulers.local.job import Spec
from hpcpipe.schedulers.local.keeper import Keeper
from hpcpipe.schedulers.local.queue import (
    BAD,
    BLOCKED,
    READY,
    STARTED,
    WELL,
    Job,
    Machine,
    Queue,
    fits,
)
from hpcpipe.schedulers.local.spool import Spool, event_line

T = TypeVar("T")
ODD = 'it\'s a "run" $(touch pwned) of\nü %a'


class Brief(Local):
    """A scheduler whose keeper does not stay for long."""

    linger = 0.3


class Run:
    """A run folder, and the scheduler its scripts go to."""

    def __init__(self, folder: Path, spool: Path) -> None:
        self.folder = folder
        self.spool = Spool(spool)
        self.local = Brief(spool, grace=0.5)
        for name in ("batches", "logs"):
            (folder / name).mkdir(parents=True)

    def script(self, body: str, **directives: Any) -> Path:
        lines = [f"#HPCPIPE --{name}={value}\n" for name, value in directives.items()]
        script = self.folder / "batches" / "a script.sh"
        script.write_text("#!/bin/sh\n" + "".join(lines) + textwrap.dedent(body))
        return script

    def submit(
        self, body: str, *after: After, token: str = "", held: bool = False, **directives: Any
    ) -> str:
        script = self.script(body, **directives)
        return self.local.submit(script, after, token=token, held=held)

    def ends(self, *jobs: str) -> dict[str, JobEnd]:
        """Wait until nothing of these jobs is live; give how everything ended."""
        until(lambda: not self.local.poll(jobs))
        return dict(self.local.account(jobs, 0))

    def natives(self, *jobs: str) -> dict[str, str]:
        return {element: end.native for element, end in self.ends(*jobs).items()}

    def states(self, *jobs: str) -> dict[str, State]:
        return {element: status.state for element, status in self.local.poll(jobs).items()}

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def pids(self, name: str, count: int) -> list[int]:
        """Wait for process ids that a script wrote, one a line."""
        path = self.folder / name
        until(lambda: path.exists() and path.read_text().count("\n") == count)
        return [int(line) for line in path.read_text().split()]

    def keeper(self) -> psutil.Process | None:
        """Find the living keeper, if there is one."""
        try:
            process = psutil.Process(int(self.spool.lock.read_text()))
            return process if str(self.spool.root) in process.cmdline() else None
        except (FileNotFoundError, ValueError, psutil.Error):
            return None

    def kill_keeper(self) -> None:
        keeper = self.keeper()
        assert keeper is not None
        keeper.kill()
        until(lambda: not lives(keeper.pid))


def until(condition: Callable[[], T], seconds: float = 30) -> T:
    """Wait for a condition to hold, and give what it gave."""
    give_up = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.02)
    return value


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def new_run(tmp_path: Path) -> Iterator[Callable[[str], Run]]:
    """Make runs with a spool each; end their keepers, and all that those started."""
    runs: list[Run] = []

    def new_run(name: str) -> Run:
        runs.append(Run(tmp_path / name, tmp_path / f"the {name} spool"))
        return runs[-1]

    yield new_run
    for run in runs:
        if keeper := run.keeper():
            keeper.kill()
        tree.kill({}, str(run.spool.root), strays=True)


@pytest.fixture
def run(new_run: Callable[[str], Run]) -> Run:
    return new_run("run")


def test_a_plain_job_runs_in_its_run_folder_and_tells_how_it_ended(run: Run) -> None:
    job = run.submit(
        'pwd -P; echo "$HPCPIPE_JOB_ID ${HPCPIPE_INDEX-none} $HPCPIPE_CPUS" >&2',
        name="two words",
        output="logs/%j.%a.100%%.out",
        cpus=1,
    )
    assert job == "1"
    end = run.ends(job)["1"]
    assert (end.native, end.reason, end.exit_code, end.signal) == ("COMPLETED", None, 0, None)
    assert end.host == os.uname().nodename
    assert end.wall is not None
    assert 0 <= end.wall < 30
    assert (end.max_memory or 0) > 0
    assert run.read("logs/1.0.100%.out") == f"{run.folder.resolve()}\n1 none 1\n"


@pytest.mark.parametrize(
    ("body", "directives", "native", "reason", "code", "signum"),
    [
        ("exit 3", {}, "FAILED", Reason.EXIT, 3, None),
        ("kill -9 $$", {}, "FAILED", Reason.SIGNAL, None, 9),
        ("exec sleep 99", {"time": 1}, "TIMEOUT", Reason.TIME, None, 15),
        ("trap 'exit 5' TERM; sleep 99 & wait", {"time": 1}, "TIMEOUT", Reason.TIME, 5, None),
        ("trap '' TERM; sleep 99; sleep 99", {"time": 1}, "TIMEOUT", Reason.TIME, None, 9),
    ],
    ids=["exit code", "signal", "time limit", "time limit heeded", "time limit ignored"],
)
def test_each_way_to_fail_is_told_apart(
    run: Run,
    body: str,
    directives: dict[str, Any],
    native: str,
    reason: Reason,
    code: int | None,
    signum: int | None,
) -> None:
    end = run.ends(run.submit(body, **directives))["1"]
    assert (end.native, end.reason) == (native, reason)
    assert (end.exit_code, end.signal) == (code, signum)


def test_memory_counts_for_the_whole_tree_and_is_killed_over_the_limit(run: Run) -> None:
    eat = f"{sys.executable} -c 'import time; b = bytearray(60 << 20); time.sleep(99)'"
    job = run.submit(f"{eat} & {eat} & wait", memory=100)
    end = run.ends(job)[job]
    assert (end.native, end.reason) == ("OUT_OF_MEMORY", Reason.MEMORY)
    assert (end.max_memory or 0) > 120


def test_a_sparse_array_runs_each_of_its_indices_once(run: Run) -> None:
    job = run.submit("echo $HPCPIPE_INDEX", array="1,5,7-8", output="logs/x.%a.out")
    assert set(run.natives(job)) == {"1_1", "1_5", "1_7", "1_8"}
    logs = {path.name: path.read_text() for path in (run.folder / "logs").iterdir()}
    assert logs == {f"x.{index}.out": f"{index}\n" for index in (1, 5, 7, 8)}
    assert set(run.local.account(["1_5", "1_6"], 0)) == {"1_5"}


@pytest.mark.skipif(len(psutil.Process().cpu_affinity() or "12") < 2, reason="needs two cpus")
def test_an_element_starts_when_its_own_predecessor_has_ended(run: Run) -> None:
    parent = run.submit(
        """
        case $HPCPIPE_INDEX in
            1) exit 1 ;;
            2) while [ ! -e child.0 ]; do sleep 0.05; done ;;
        esac
        """,
        array="0-2",
    )
    child = run.submit("touch child.$HPCPIPE_INDEX", After(parent, "each"), array="0-2")
    last = run.submit("touch last", After(child, "each"), array="1-2")
    ends = run.ends(parent, child, last)
    assert {element for element, end in ends.items() if end.reason is None} == {
        *("1_0", "1_2"),
        *("2_0", "2_2"),
        "3_2",
    }
    assert ends["1_1"].reason is Reason.EXIT
    for never in ("2_1", "3_1"):
        assert (ends[never].native, ends[never].reason) == ("CANCELLED", Reason.UPSTREAM)
    assert not (run.folder / "child.1").exists()


def test_a_gather_waits_for_the_whole_and_an_element_for_one(run: Run) -> None:
    parent = run.submit(
        "[ $HPCPIPE_INDEX = 2 ] || exit 0; while [ ! -e one ]; do sleep 0.05; done; touch two",
        array="0-2",
    )
    one = run.submit("touch one", After(parent, element=1))
    whole = run.submit("test -e two", After(parent))
    never = run.submit("exit 0", After(run.submit("exit 1", array="0-1")))
    assert run.natives(one, whole, never) == {
        one: "COMPLETED",
        whole: "COMPLETED",
        never: "CANCELLED",
    }


def test_what_waits_says_for_what(run: Run) -> None:
    first = run.submit("sleep 99", cpus=10**6)
    until(lambda: run.states(first) == {first: State.RUNNING})
    second = run.submit("exit 0", array="0-1")
    third = run.submit("exit 0", After(second), After(first))
    said = run.local.poll([first, second, third])
    assert {element: (status.native, status.why) for element, status in said.items()} == {
        "1": ("RUNNING", ""),
        "2_0": ("PENDING", "Resources"),
        "2_1": ("PENDING", "Resources"),
        "3": ("PENDING", "Dependency"),
    }


# A child in a session of its own, and one whose parent is gone as well.
_STRAYS = f"""
    {sys.executable} - <<'END' &
    import os, subprocess, time
    def stray():
        return subprocess.Popen(["sleep", "99"], start_new_session=True).pid
    print(os.getpid(), stray(), sep="\\n", flush=True)
    if os.fork() == 0:
        print(stray(), flush=True)
        os._exit(0)
    os.wait()
    time.sleep(99)
    END
    trap '' TERM
    wait; sleep 99
    """


@pytest.mark.parametrize("one", [False, True], ids=["whole job", "one element"])
def test_cancel_ends_the_whole_tree_of_processes(run: Run, one: bool) -> None:
    job = run.submit(_STRAYS, array="4,6", cpus=10**6, output="logs/%a")
    pids = run.pids("logs/4", 3)
    after = run.submit("exit 0", After(job))
    run.local.cancel([f"{job}_4"] if one else [job])
    until(lambda: not any(map(lives, pids)))
    if one:
        more = run.pids("logs/6", 3)
        assert all(map(lives, more))
        run.local.cancel([f"{job}_6"])
    ends = run.ends(job, after)
    assert {element: (end.native, end.reason) for element, end in ends.items()} == {
        f"{job}_4": ("CANCELLED", Reason.CANCELLED),
        f"{job}_6": ("CANCELLED", Reason.CANCELLED),
        after: ("CANCELLED", Reason.UPSTREAM),
    }
    run.local.cancel([job, "777", f"{job}_999", "no id"])  # already gone, or never there


def test_one_pending_element_can_be_cancelled(run: Run) -> None:
    job = run.submit("exit 0", array="0-3", held=True)
    run.local.cancel([f"{job}_1", f"{job}_2"])
    until(lambda: set(run.states(job)) == {f"{job}_0", f"{job}_3"})
    run.local.release([job])
    assert run.natives(job) == {
        f"{job}_0": "COMPLETED",
        f"{job}_1": "CANCELLED",
        f"{job}_2": "CANCELLED",
        f"{job}_3": "COMPLETED",
    }


def test_what_is_held_waits_to_be_released_and_is_found_by_its_token(run: Run) -> None:
    job = run.submit("exit 0", token="a token/1", held=True)
    later = run.submit("exit 0", After(job), token="b", held=False)
    until(lambda: run.keeper() is None)  # what is held needs nobody to watch over it
    assert run.states(job) == {job: State.HELD}
    assert run.local.find(["a token/1", "b", "never"]) == {"a token/1": job, "b": later}
    assert run.keeper() is None
    assert run.states(job, later) == {job: State.HELD, later: State.QUEUED}
    run.local.release([job])
    assert set(run.natives(job, later).values()) == {"COMPLETED"}
    until(lambda: run.local.find(["a token/1", "b"]) == {})


def test_what_ran_when_the_keeper_was_killed_is_lost_and_the_rest_goes_on(run: Run) -> None:
    lost = run.submit(_STRAYS, output="logs/pids", cpus=10**6)
    next_one = run.submit("exit 0")
    after = run.submit("exit 0", After(lost))
    pids = run.pids("logs/pids", 3)
    run.kill_keeper()
    assert all(map(lives, pids))
    assert lost not in run.local.poll([lost])  # one question is enough
    ends = run.ends(lost, next_one, after)
    assert (ends[lost].native, ends[lost].reason) == ("LOST", Reason.LOST)
    assert (ends[next_one].native, ends[after].reason) == ("COMPLETED", Reason.UPSTREAM)
    assert not any(map(lives, pids))


def test_a_process_id_given_anew_to_a_stranger_is_left_alone(run: Run) -> None:
    job = run.submit("exec sleep 99", output="logs/out")
    until(lambda: run.states(job) == {job: State.RUNNING})
    run.kill_keeper()
    events = run.spool.folder(job) / "events"
    with subprocess.Popen(["sleep", "99"], start_new_session=True) as stranger:
        hours_ago = re.sub(r"\d+\.\d+ \d+", f"1000000.5 {stranger.pid}", events.read_text())
        events.write_text(hours_ago)
        assert run.natives(job) == {job: "LOST"}
        assert stranger.poll() is None
        stranger.kill()


def test_jobs_go_on_when_the_client_and_its_terminal_are_gone(run: Run) -> None:
    client = """
        import os, signal, sys
        from pathlib import Path
        from hpcpipe.schedulers.local import Local
        Local(sys.argv[1]).submit(Path(sys.argv[2]), token="t")
        os.kill(0, signal.SIGHUP)
    """
    script = run.script("while [ ! -e go ]; do sleep 0.05; done; echo went", output="logs/out")
    argv = [sys.executable, "-c", textwrap.dedent(client), str(run.spool.root), str(script)]
    # Its pipes are closed when nobody holds them any more: the keeper must not.
    done = subprocess.run(argv, start_new_session=True, capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGHUP, b"", b"")
    until(lambda: run.states("1") == {"1": State.RUNNING})
    keeper = run.keeper()
    assert keeper is not None
    assert keeper.terminal() is None
    keeper.send_signal(signal.SIGHUP)
    script.unlink()  # what was submitted is a copy
    (run.folder / "go").touch()
    assert run.natives("1") == {"1": "COMPLETED"}
    assert run.read("logs/out") == "went\n"


def test_a_keeper_that_a_job_started_is_no_part_of_that_job(
    run: Run, new_run: Callable[[str], Run]
) -> None:
    inner = new_run("inner")
    script = inner.script("while [ ! -e go ]; do sleep 0.05; done")
    client = f"""
        from pathlib import Path
        from hpcpipe.schedulers.local import Local
        Local({str(inner.spool.root)!r}).submit(Path({str(script)!r}), token="t")
    """
    (run.folder / "client.py").write_text(textwrap.dedent(client))
    outer = run.submit(f"{sys.executable} client.py; touch submitted; sleep 99")
    until(lambda: (run.folder / "submitted").exists())
    run.local.cancel([outer])
    assert run.natives(outer) == {outer: "CANCELLED"}
    (inner.folder / "go").touch()
    assert inner.natives("1") == {"1": "COMPLETED"}


def test_an_odd_run_folder_is_just_a_folder(tmp_path: Path, run: Run) -> None:
    odd = Run(tmp_path / ODD, run.spool.root)
    job = odd.submit("pwd -P", array="0", output="logs/o %a 'q' $(touch pwned).out")
    assert odd.natives(job) == {f"{job}_0": "COMPLETED"}
    assert odd.read("logs/o 0 'q' $(touch pwned).out") == f"{odd.folder.resolve()}\n"
    assert not [*tmp_path.rglob("pwned")]


def test_a_job_has_the_environment_and_umask_of_its_submitter(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.ends(run.submit("exit 0"))  # a keeper is there, with an environment of its own
    monkeypatch.setenv("ODD", "a\nb = 'c'")
    monkeypatch.setenv("HPCPIPE_INDEX", "77")
    before = os.umask(0o027)
    job = run.submit('printf "%s|" "$ODD" "${HPCPIPE_INDEX-none}"; umask', output="logs/out")
    os.umask(before)
    run.ends(job)
    assert run.read("logs/out").strip() in ("a\nb = 'c'|none|0027", "a\nb = 'c'|none|027")


def test_two_runs_share_the_machine(run: Run) -> None:
    other = Brief(run.spool.root, cpus=1)
    script = run.script("mkdir busy || exit 1; sleep 0.05; rmdir busy", array="0-4")
    jobs = [other.submit(script, token="a"), other.submit(script, token="b")]
    assert set(run.natives(*jobs).values()) == {"COMPLETED"}


def test_a_job_that_asks_for_more_than_there_is_runs_alone(run: Run) -> None:
    job = run.submit("mkdir busy && rmdir busy", array="0-2", cpus=10**6, memory=10**9)
    assert set(run.natives(job).values()) == {"COMPLETED"}


@pytest.mark.parametrize(
    ("asks", "runs", "available", "may"),
    [
        (Spec(cpus=8, memory=9999), [], 0, True),
        (Spec(cpus=2), [Spec(cpus=2)], 0, True),
        (Spec(cpus=2), [Spec(cpus=3)], 9999, False),
        (Spec(cpus=1, most_cpus=2), [Spec(cpus=2)], 9999, False),
        (Spec(cpus=1, most_cpus=99), [Spec(cpus=4)], 9999, False),
        (Spec(memory=400), [Spec(memory=600)], 400, True),
        (Spec(memory=401), [Spec(memory=600)], 999, False),
        (Spec(memory=400), [Spec(memory=500)], 399, False),
        (Spec(memory=100, most_memory=200), [Spec(memory=101)], 999, False),
    ],
)
def test_an_element_is_let_in_when_there_is_room(
    asks: Spec, runs: list[Spec], available: int, may: bool
) -> None:
    assert fits(asks, runs, Machine(cpus=4, memory=1000), lambda: available) is may


def test_a_keeper_that_leaves_never_misses_a_submission(run: Run) -> None:
    run.local.linger = 0.0  # type: ignore[misc]
    jobs = []
    for _ in range(15):
        jobs.append(run.submit("exit 0"))
        until(lambda: not run.local.poll(jobs))
    assert len(set(jobs)) == 15
    assert set(run.natives(*jobs).values()) == {"COMPLETED"}
    until(lambda: run.keeper() is None)


def test_a_keeper_runs_what_came_while_it_was_leaving(run: Run) -> None:
    keeper = """
        import sys
        from pathlib import Path
        from hpcpipe.schedulers.local import daemon, keeper
        from hpcpipe.schedulers.local.job import Spec
        from hpcpipe.schedulers.local.spool import Spool
        spool, stop_listening = Spool(Path(sys.argv[1])), daemon.stop_listening
        def leave(wake):
            if not spool.ids():
                spool.place(Spec(output="/dev/null"), b"exit 0", {})
            stop_listening(wake)
        daemon.stop_listening = leave
        spool.make()
        keeper.main(sys.argv[1], "0.0")
    """
    argv = [sys.executable, "-c", textwrap.dedent(keeper), str(run.spool.root)]
    subprocess.run(argv, check=True, timeout=30)
    until(lambda: run.spool.ended("1"))  # looking by `poll` would start another


def test_clients_at_the_same_time_get_one_keeper_and_different_ids(run: Run) -> None:
    run.local.linger = 60.0  # type: ignore[misc]
    script = run.script("echo $PPID >> logs/keepers")
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda _: run.local.submit(script, token="t"), range(16)))
    assert sorted(map(int, jobs)) == list(range(1, 17))
    assert set(run.natives(*jobs).values()) == {"COMPLETED"}
    assert len(set(run.read("logs/keepers").split())) == 1


def test_ended_jobs_are_forgotten_in_time_but_no_id_is_given_twice(run: Run) -> None:
    jobs = [run.submit("exit 0") for _ in range(3)]
    until(lambda: all(map(run.spool.ended, jobs)) and run.keeper() is None)
    for job in ("1", "3"):  # the last one stays, whatever its age
        os.utime(run.spool.folder(job) / "ended", (0, 0))
    assert run.submit("exit 0") == "4"
    assert set(run.local.account(jobs, 0)) == {"2", "3"}


def test_an_element_that_cannot_be_started_says_so(run: Run) -> None:
    job = run.submit("exit 0", held=True)
    run.folder.rename(run.folder.with_name("elsewhere"))
    run.local.release([job])
    end = run.ends(job)[job]
    assert (end.native, end.reason) == ("LAUNCH_FAILED", Reason.NODE)
    assert str(run.folder) in (run.spool.root / "keeper.log").read_text()


def test_nothing_asked_is_nothing_told_and_a_missing_id_is_absent(run: Run) -> None:
    for ids in ([], ["12", "12_3", "x", ""]):
        assert run.local.poll(ids) == {}
        assert run.local.account(ids, 0) == {}
        assert run.local.find(ids) == {}
    run.local.cancel([])
    run.local.release([])
    assert not run.spool.root.exists()  # asking makes nothing


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("#HPCPIPE --nodes=2", "line 4: #HPCPIPE --nodes=2: not a directive; there are --name="),
        ("#HPCPIPE -J x", "not a directive"),
        ("#HPCPIPE --cpus=0", "at least 1"),
        ("#HPCPIPE --memory=2G", "a whole number"),
        ("#HPCPIPE --array=3-1", "'3-1' contains no index"),
        ("#HPCPIPE --array=1,,2", "neither an index nor first-last"),
        ("#HPCPIPE --array=0-4,4", "named twice"),
        ("#HPCPIPE --output=nowhere/x.out", "there is no"),
    ],
)
def test_a_bad_directive_is_refused_with_its_line(run: Run, line: str, words: str) -> None:
    script = run.script(f"\n# a comment\n{line}\necho\n#HPCPIPE --past the head")
    with pytest.raises(SchedulerError, match=re.escape(words)):
        run.local.submit(script, token="t")
    assert not run.spool.ids()


@pytest.mark.parametrize(
    "after",
    [After("99"), After("1", "each"), After("1", element=9)],
    ids=["no such job", "no such pairs", "no such element"],
)
def test_a_dependency_that_can_never_be_met_is_refused(run: Run, after: After) -> None:
    run.submit("exit 0", array="0-1", held=True)
    with pytest.raises(SchedulerError, match="to start after"):
        run.submit("exit 0", after, array="0-2")


def test_a_spool_that_cannot_be_made_is_a_scheduler_that_cannot_be_asked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = Run(tmp_path / "run", tmp_path / "file" / "spool")
    with pytest.raises(SchedulerUnavailable, match="HPCPIPE_LOCAL"):
        run.submit("exit 0")


def test_the_spool_is_this_hosts_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = os.uname().nodename.partition(".")[0]
    monkeypatch.delenv("HPCPIPE_LOCAL", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_spool() == tmp_path / "hpcpipe" / "local" / host
    monkeypatch.setenv("HPCPIPE_LOCAL", str(tmp_path / "elsewhere"))
    assert default_spool() == tmp_path / "elsewhere" / host


def test_a_line_cut_short_hides_no_other(run: Run) -> None:
    job = run.submit("exit 0", array="0-1", held=True)
    until(lambda: run.keeper() is None)
    run.spool.record(job, event_line(0, 0, "RUNNING", "1234567")[:-9])
    run.local.release([job])
    assert run.natives(job) == {f"{job}_0": "COMPLETED", f"{job}_1": "COMPLETED"}


KINDS: list[Callable[[str], After]] = [
    lambda job: After(job, "each"),
    lambda job: After(job),
    lambda job: After(job, element=2),
]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_queue_always_agrees_with_what_dependencies_mean(data: st.DataObject) -> None:
    """Jobs of four kinds of dependency are ended in any order, and each state checked anew."""
    queue = Queue(lambda _: None)
    jobs: dict[str, Job] = {}
    for number in range(data.draw(st.integers(1, 5), "jobs")):
        spec = Spec(array="0-3" if data.draw(st.booleans()) else "0,2-4")
        after = [
            data.draw(st.sampled_from(KINDS))(parent)
            for parent in data.draw(st.lists(st.sampled_from([*jobs]) if jobs else st.nothing()))
        ]
        spec = Spec(array=spec.array, after=tuple(after))
        indices = parse_indices(spec.array)
        jobs[str(number)] = Job(
            str(number), spec, indices, bytearray(len(indices)), held=False, left=len(indices)
        )
        queue.add(jobs[str(number)])
    while found := queue.next():
        job, at = found
        job.state[at] = STARTED
        running = [(j, i) for j in jobs.values() for i, s in enumerate(j.state) if s == STARTED]
        for job, at in data.draw(st.lists(st.sampled_from(running), unique=True), "ended"):
            queue.settle(job, [at], well=data.draw(st.booleans(), "well"))
        for job in jobs.values():
            assert list(job.state) == [meant(jobs, job, index) for index in job.indices]


def meant(jobs: dict[str, Job], job: Job, index: int) -> int:
    """Say what state an element must be in, by definition."""
    state = job.state[list(job.indices).index(index)]
    needs = [
        dict(zip(jobs[after.job].indices, jobs[after.job].state, strict=True)).get(wanted, BAD)
        for after in job.spec.after
        for wanted in (
            [index]
            if after.kind == "each"
            else jobs[after.job].indices
            if after.element is None
            else [after.element]
        )
    ]
    if BAD in needs:
        return BAD
    if any(need != WELL for need in needs):
        return BLOCKED
    return READY if state == BLOCKED else state


def test_a_request_for_a_job_that_came_meanwhile_is_kept_for_the_next_look(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.make()

    class Racing(Spool):
        def folder(self, job: str) -> Path:
            there = super().folder(job)
            if job == "1" and not there.exists():  # and now a client is quick
                spool.place(Spec(name="one", cpus=1, folder=str(tmp_path), held=True), b"", {})
                spool.request("release", ["1"])
                return tmp_path / "not yet"
            return there

    keeper = Keeper(Racing(spool.root), linger=0)
    keeper.take_in()
    keeper.take_in()
    assert [event.word for event in spool.events("1")] == ["RELEASED"]
