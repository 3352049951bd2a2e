"""The stand-ins for schedulers, against samples of the real ones: what they refuse, and where they
are known to do otherwise than one would think."""

from __future__ import annotations

import shlex
import subprocess
from getpass import getuser
from pathlib import Path

import pytest
from contract.dialects import FLUX, HTCONDORS_STANDIN, PBS, Dialect
from contract.harness import tried, until
from standins import links, lsf

HERE = Path(__file__).parent
SAMPLES = HERE / "golden" / "outputs"
REFUSALS = {
    f"{scheduler}-{name}": (scheduler, name, int(status), line)
    for scheduler in ("pbs", "torque", "flux", "htcondor")
    for row in (SAMPLES / scheduler / "refusals.tsv").read_text().splitlines()
    for name, status, line in [row.split("\t")]
}
DESCRIPTIONS = {
    "baddir": "executable = /bin/true\ninitialdir = /nonexistent/dir",
    "nullexe": "request_cpus = 1",
    "nosuch": "executable = /no/such/prog",
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with the scripts that the samples were taken with."""
    for name in ("hello.sh", "ts.sh"):
        (tmp_path / name).write_text("#!/bin/sh\nexit ${EXIT:-0}\n")
    for name, text in DESCRIPTIONS.items():
        (tmp_path / f"{name}.sub").write_text(f"{text}\nqueue\n")
    for name in ("", *(f".{end}" for end in ("condor.sub", "lib.out", "lib.err", "dagman.log"))):
        (tmp_path / f"ok.dag{name}").touch()
    (tmp_path / "standin").mkdir()
    return tmp_path


def typed(folder: Path, scheduler: str, line: str) -> subprocess.CompletedProcess[str]:
    """Run a command line of a stand-in."""
    command, *words = shlex.split(line)
    env = {"STANDIN": str(folder / "standin"), "HOME": str(folder), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [links(scheduler, folder) / command, *words],
        cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_only_the_least_time_limit_of_lsf_passes_quickly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STANDIN_MINUTE", "3")
    assert [lsf._time(limit) for limit in ("1", "5", "1:00")] == [3, 300, 3600]


@pytest.mark.parametrize(("scheduler", "name", "status", "line"), REFUSALS.values(), ids=REFUSALS)
def test_a_stand_in_refuses_what_the_real_one_refuses_in_its_words(
    run: Path, scheduler: str, name: str, status: int, line: str
) -> None:
    if "finished" in name:
        for _ in range(6):
            assert typed(run, scheduler, "qsub hello.sh").returncode == 0
    wanted = (status, (SAMPLES / scheduler / f"{name}.err").read_text())

    def answered() -> bool:
        done = typed(run, scheduler, line)
        return (done.returncode, done.stderr) == wanted

    until(answered, seconds=10)


def test_after_an_array_pbs_goes_by_the_element_that_ended_last(run: Path) -> None:
    (run / "array.sh").write_text(
        "#!/bin/sh\ncd $PBS_O_WORKDIR\n"
        "[ $PBS_ARRAY_INDEX != $LAST ] || sleep 1\n[ $PBS_ARRAY_INDEX != $BAD ] || exit 7\n"
    )
    (run / "note.sh").write_text("#!/bin/sh\necho $WHICH >> $PBS_O_WORKDIR/ran\n")
    for bad, last in ((2, 3), (3, 3)):
        array = typed(
            run, "pbs", f"qsub -h -J 1-3 -v BAD={bad},LAST={last} array.sh"
        ).stdout.strip()
        for kind in ("afterok", "afternotok", "afterany"):
            line = f"qsub -W depend={kind}:{array} -v WHICH={bad}.{kind} note.sh"
            assert typed(run, "pbs", line).returncode == 0
        assert typed(run, "pbs", f"qrls {array}").returncode == 0
    until(lambda: not typed(run, "pbs", "qselect -u " + getuser()).stdout, seconds=20)
    ran = (run / "ran").read_text().split()
    assert sorted(ran) == ["2.afterany", "2.afterok", "3.afterany", "3.afternotok"]


def test_without_history_pbs_drops_what_comes_after_a_job_that_ended(run: Path) -> None:
    (run / "standin" / "no_history").touch()
    job = typed(run, "pbs", "qsub hello.sh").stdout.strip()
    until(lambda: "Unknown Job Id" in typed(run, "pbs", f"qstat -f {job}").stderr, seconds=10)
    late = typed(run, "pbs", f"qsub -W depend=afterany:{job} ts.sh")
    assert (late.returncode, late.stdout) == (0, "2.pbshost\n")
    assert "Unknown Job Id" in typed(run, "pbs", "qstat -f 2").stderr


def test_qdel_of_several_ids_of_which_one_has_no_record_crashes_the_server_of_pbs(
    run: Path,
) -> None:
    jobs = [typed(run, "pbs", "qsub -h hello.sh").stdout.strip() for _ in range(2)]
    assert typed(run, "pbs", f"qdel {jobs[0]} {jobs[1]}").returncode == 0
    array = typed(run, "pbs", "qsub -h -J 1-3 hello.sh").stdout.strip()
    element = array.replace("[]", "[2]")
    assert typed(run, "pbs", f"qdel {element}").returncode == 0
    assert f"Job Id: {array}\n" in typed(run, "pbs", "qstat -f").stdout
    told = typed(run, "pbs", f"qdel {array} 99999")
    assert (told.returncode, told.stderr) == (0, "")
    assert "cannot connect to server" in typed(run, "pbs", "qstat -f").stderr


def test_what_comes_after_an_array_with_a_failure_stays_held_by_torque(run: Path) -> None:
    (run / "array.sh").write_text("#!/bin/sh\n[ $PBS_ARRAYID != 1 ] || exit 7\n")
    (run / "note.sh").write_text("#!/bin/sh\necho $WHICH >> $PBS_O_WORKDIR/ran\n")
    array = typed(run, "torque", "qsub -h -t 1-2 array.sh").stdout.strip()
    kinds = ("afterok", "afterokarray", "afternotokarray", "afteranyarray")
    for kind in kinds:
        line = f"qsub -W depend={kind}:{array} -v WHICH={kind} note.sh"
        assert typed(run, "torque", line).returncode == 0
    typed(run, "torque", f"qrls {array}")
    until((run / "ran").exists, seconds=20)
    states = typed(run, "torque", "qstat -x").stdout
    assert states.count("<job_state>H</job_state>") == 3
    assert (run / "ran").read_text() == "afteranyarray\n"
    assert len(typed(run, "torque", "qselect -u " + getuser()).stdout.split()) == 1 + len(kinds)


def test_a_job_too_big_for_the_cluster_is_named_and_cleared(tmp_path: Path) -> None:
    with tried(PBS, tmp_path) as cluster:
        site = Path(PBS.site).read_text().replace("max_cpus = 8", "max_cpus = 64")
        cluster.write("big.toml", site)
        words = ("map", "--site", "./big.toml", "--base-dir", "runs", "--name", "it")
        cluster.hpcpipe(*words, "--cpus", "16", "--", "echo", ":::", "a")
        [failed] = cluster.finish()["failures"]
        assert (failed["state"], failed["reason"]) == ("failed", "can never start")
        assert "Can Never Run: Insufficient amount of resource: ncpus" in failed["error"]
        cluster.hpcpipe(*words, "--cpus", "1", "--", "echo", ":::", "a")
        assert cluster.finish()["nodes"] == {"it": {"all": 1, "done": 1}}
        until(lambda: not typed(tmp_path, "pbs", f"qselect -u {getuser()}").stdout, seconds=10)


CLOSED = """
    import os
    import time
    from hpcpipe import Workflow, each, task

    HERE = os.path.dirname(__file__)

    @task(time="2m")
    def first(x):
        while not os.path.exists(HERE + "/go"):
            time.sleep(0.1)
        return x

    @task(time="3m")
    def second(x):
        return x

    wf = Workflow("wf", base_dir="runs")
    wf.add(second, x=wf.add(first, x=each([1, 2], axis="i")))
"""


@pytest.mark.parametrize("dialect", [FLUX, PBS, HTCONDORS_STANDIN], ids=lambda one: one.name)
def test_a_job_whose_log_cannot_be_opened_could_not_be_started(
    tmp_path: Path, dialect: Dialect
) -> None:
    with tried(dialect, tmp_path) as cluster:
        cluster.write("closed.py", CLOSED)
        cluster.hpcpipe("submit", "closed.py")
        logs = tmp_path / "runs/wf/.hpcpipe/logs"
        until(lambda: [*logs.iterdir()], seconds=30)
        logs.rename(logs.with_name("old"))
        (tmp_path / "go").touch()
        failures = cluster.finish()["failures"]
        assert {one["task"]: one["reason"] for one in failures} == dict.fromkeys(
            ("second/1", "second/2"), "could not be started"
        )
        assert "its log could not be written" in cluster.hpcpipe("explain", "second/1").stdout


STUBBORN = "trap '' ALRM; trap 'echo {} >told; exit 3' TERM; while :; do sleep 0.1; done"


@pytest.mark.parametrize("python", [False, True])
def test_at_its_time_limit_on_flux_a_command_is_told_and_waited_for(
    tmp_path: Path, python: bool
) -> None:
    """Flux sends ALRM to all of a job, which alone would end its script."""
    with tried(FLUX, tmp_path) as cluster:
        if python:
            cluster.write(
                "one.py",
                f"""
                import subprocess
                from hpcpipe import Workflow, each, task

                @task(time="2s")
                def it(x):
                    subprocess.run(["sh", "-c", {STUBBORN!r}], cwd={str(tmp_path)!r})

                wf = Workflow("wf", base_dir="runs")
                wf.add(it, x=each([1]))
                """,
            )
            cluster.hpcpipe("submit", "one.py")
        else:
            words = ("map", "--base-dir", "runs", "--name", "it", "--time", "2s", "--", "sh", "-c")
            cluster.hpcpipe(*words, f"cd {tmp_path}; {STUBBORN}", ":::", "1")
        [failed] = cluster.finish()["failures"]
        assert (failed["state"], failed["reason"]) == ("failed", "time limit")
        assert python or (tmp_path / "told").exists()


def test_what_htcondor_holds_for_its_time_is_told_and_removed_and_the_rest_goes_on(
    tmp_path: Path,
) -> None:
    with tried(HTCONDORS_STANDIN, tmp_path) as cluster:
        script = "[ {n} = 1 ] || sleep 60"
        words = ("map", "--base-dir", "runs", "--name", "it", "--time", "2s", "--", "sh", "-c")
        cluster.hpcpipe(*words, script.replace("{n}", "{}"), ":::", "1", "2")
        report = cluster.finish()
        [failed] = report["failures"]
        assert (failed["state"], failed["reason"]) == ("failed", "time limit")
        assert report["nodes"]["it"] == {"all": 2, "done": 1, "failed": 1}
        until(lambda: not _in_htcondors_queue(tmp_path), seconds=20)


def test_what_htcondor_cannot_start_is_held_and_status_says_why_and_clears_it(
    tmp_path: Path,
) -> None:
    with tried(HTCONDORS_STANDIN, tmp_path) as cluster:
        site = Path(HTCONDORS_STANDIN.site).read_text()
        cluster.write("site.toml", site + '[htcondor]\noptions = ["output = /nonexistent/x"]\n')
        words = ("--site", "./site.toml", "--base-dir", "runs", "--name", "it")
        cluster.hpcpipe("map", *words, "--", "echo", ":::", "1", "2")
        failures = cluster.finish()["failures"]
        assert {(one["state"], one["reason"]) for one in failures} == {
            ("failed", "could not be started")
        }
        why = "Failed to open '/nonexistent/x' as standard output: No such file or directory"
        assert all(why in one["error"] for one in failures)
        until(lambda: not _in_htcondors_queue(tmp_path), seconds=20)


def _in_htcondors_queue(folder: Path) -> str:
    words = "condor_q -json -attributes ClusterId -constraint 'ClusterId == ClusterId'"
    return typed(folder, "htcondor", words).stdout.strip()
