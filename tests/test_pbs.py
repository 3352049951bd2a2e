"""PBS: its adapter against what OpenPBS 23.06.06 printed (tests/golden/outputs/pbs), and its
stand-in against the same."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from getpass import getuser
from pathlib import Path

import pytest
from contract.dialects import PBS as DIALECT
from contract.harness import tried, until

from hpcpipe.errors import SchedulerError, SchedulerUnavailable
from hpcpipe.model import After, Reason, State
from hpcpipe.schedulers.base import Done
from hpcpipe.schedulers.pbs import PBS

OUTPUTS = Path(__file__).parent / "golden" / "outputs" / "pbs"
COMMANDS = Path(__file__).parent / "standins" / "bin" / "pbs"
STANDIN_SITE = COMMANDS.parents[1] / "pbs.toml"
REFUSALS = [line.split("\t") for line in (OUTPUTS / "refusals.tsv").read_text().splitlines()]


def pbs(name: str, status: int = 0) -> PBS:
    """Make an adapter whose command is answered with a sample."""

    def read(ending: str) -> str:
        file = OUTPUTS / f"{name}.{ending}"
        return file.read_text() if file.exists() else ""

    def run(argv: Sequence[str], cwd: Path | None) -> Done:
        del cwd
        return Done(tuple(argv), status, read("json") or read("txt"), read("err"))

    return PBS(run)


def test_what_is_live_is_told_from_what_waits_and_what_never_can_run() -> None:
    statuses = pbs("qstat_tf").poll(["4[].pbshost"])
    assert {job: (status.state, status.native) for job, status in statuses.items()} == {
        "4[2].pbshost": (State.RUNNING, "R"),
        "4[3].pbshost": (State.QUEUED, "Q"),
        "14.pbshost": (State.HELD, "H"),
        "15.pbshost": (State.QUEUED, "Q"),
        "16.pbshost": (State.BLOCKED, "Q"),
        "17.pbshost": (State.QUEUED, "Q"),
    }
    lacks = "Insufficient amount of resource: ncpus (R: 64 A: 8 T: 8)"
    assert statuses["16.pbshost"].why == f"Can Never Run: {lacks}"
    assert statuses["15.pbshost"].why == "Not Running: Queue not started."


def test_each_end_is_told_apart() -> None:
    ends = pbs("qstat_xf_ends").account(["37.pbshost"], 0)
    assert {job: (end.reason, end.exit_code, end.signal) for job, end in ends.items()} == {
        "7.pbshost": (Reason.UPSTREAM, None, None),  # deleted, its predecessor having failed
        "37.pbshost": (Reason.TIME, None, None),
        "38.pbshost": (Reason.MEMORY, None, None),
        "39.pbshost": (Reason.SIGNAL, None, 11),
        "40.pbshost": (Reason.EXIT, 139, None),
        "41.pbshost": (Reason.EXIT, 255, None),
        "42.pbshost": (Reason.EXIT, 254, None),
        "43.pbshost": (Reason.EXIT, 254, None),
        "46.pbshost": (None, 0, None),
        "47.pbshost": (Reason.CANCELLED, None, 15),
        "48.pbshost": (Reason.CANCELLED, None, 9),
        "49.pbshost": (Reason.SIGNAL, None, 9),
    }
    assert ends["38.pbshost"][4:] == (308, 15.0, "pbshost")
    assert ends["37.pbshost"].native.endswith("exceeded resource walltime")


def test_elements_end_each_in_their_own_way_and_an_array_is_none() -> None:
    ends = pbs("qstat_xtf_array_failed").account(["19[].pbshost"], 0)
    assert {job: end.exit_code for job, end in ends.items()} == {
        "19[1].pbshost": 0,
        "19[2].pbshost": 7,
        "19[3].pbshost": 0,
        "22.pbshost": 0,  # after the success of the array above: this is how `afterok` lies
        "23.pbshost": None,
    }


@pytest.mark.parametrize("sample", ["qstat_tf_array_deleting", "qstat_xtf_array_deleted"])
def test_elements_that_were_deleted_while_they_waited_are_cancelled(sample: str) -> None:
    ends = pbs(sample).account(["65[].pbshost"], 0)
    assert {ends[f"65[{index}].pbshost"].reason for index in (3, 5, 6, 7)} == {Reason.CANCELLED}


def test_elements_of_an_array_that_is_held_are_held() -> None:
    text = (OUTPUTS / "qstat_tf_array_deleting.json").read_text()
    begun = '"job_state":\t"B",'
    assert begun in text
    held = text.replace(begun, '"job_state":\t"H",').replace(
        '"Hold_Types":\t"n"', '"Hold_Types":\t"u"', 1
    )
    statuses = PBS(lambda argv, _: Done(tuple(argv), 0, held)).poll(["65[].pbshost"])
    assert {job: status.state for job, status in statuses.items()} == {
        "65[1].pbshost": State.RUNNING,
        "65[2].pbshost": State.RUNNING,
        "65[4].pbshost": State.HELD,
        "65[8].pbshost": State.HELD,
    }


@pytest.mark.parametrize(
    ("sample", "status"),
    [("qstat_unknown", 153), ("qstat_finished_nox", 35), ("qstat_unknown_nohistory", 0)],
)
def test_what_the_server_does_not_know_is_absent(sample: str, status: int) -> None:
    assert pbs(sample, status).poll(["1.pbshost"]) == {}
    assert pbs(sample, status).account(["1.pbshost"], 0) == {}


def test_one_unknown_job_does_not_hide_the_others() -> None:
    ends = pbs("qstat_two_one_bad", 153).account(["6.pbshost", "99999.pbshost"], 0)
    assert {job: end.reason for job, end in ends.items()} == {"6.pbshost": None}


def test_an_answer_that_is_no_json_is_silence() -> None:
    torn = PBS(lambda argv, _: Done(tuple(argv), 0, '{"Jobs":{"1.pbshost":'))
    with pytest.raises(SchedulerUnavailable, match="no JSON"):
        torn.poll(["1.pbshost"])


def test_arrays_are_waited_for_until_they_end_and_jobs_until_they_end_well() -> None:
    after = [After("7.srv"), After("8[].srv"), After("9.srv"), After("6.srv", relaxed=True)]
    words = PBS().submit_command(Path("/a/run/batches/x.sh"), after, token="t", held=True)
    assert "depend=afterok:7.srv:9.srv,afterany:8[].srv:6.srv" in words
    assert {"-h", "/a/run/batches/x.sh"} <= set(words)


@pytest.mark.parametrize("name", [name for name, *_ in REFUSALS if name.startswith("qsub")])
def test_a_refusal_begins_with_the_words_of_pbs(name: str) -> None:
    with pytest.raises(SchedulerError) as refused:
        pbs(name, 2).submit(Path("run/batches/x.sh"), token="t")
    assert type(refused.value) is SchedulerError
    assert str(refused.value).startswith("qsub: ")


# --- the stand-in ---------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with the scripts that the samples were taken with."""
    for name in ("hello.sh", "ts.sh"):
        (tmp_path / name).write_text("#!/bin/sh\nexit ${EXIT:-0}\n")
    (tmp_path / "standin").mkdir()
    return tmp_path


def typed(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """Run a command line of the stand-in."""
    command, *words = shlex.split(line)
    env = {"STANDIN": str(folder / "standin"), "HOME": str(folder), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [COMMANDS / command, *words],
        cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "status", "line"), REFUSALS, ids=[name for name, *_ in REFUSALS])
def test_the_stand_in_refuses_what_pbs_refuses_in_its_words(
    run: Path, name: str, status: str, line: str
) -> None:
    if "finished" in name:
        for _ in range(6):
            assert typed(run, "qsub hello.sh").returncode == 0
    wanted = (int(status), (OUTPUTS / f"{name}.err").read_text())

    def answered() -> bool:
        done = typed(run, line)
        return (done.returncode, done.stderr) == wanted

    until(answered, seconds=10)


def test_after_an_array_the_stand_in_goes_by_the_element_that_ended_last(run: Path) -> None:
    (run / "array.sh").write_text(
        "#!/bin/sh\ncd $PBS_O_WORKDIR\n"
        "[ $PBS_ARRAY_INDEX != $LAST ] || sleep 1\n[ $PBS_ARRAY_INDEX != $BAD ] || exit 7\n"
    )
    (run / "note.sh").write_text("#!/bin/sh\necho $WHICH >> $PBS_O_WORKDIR/ran\n")
    for bad, last in ((2, 3), (3, 3)):
        array = typed(run, f"qsub -h -J 1-3 -v BAD={bad},LAST={last} array.sh").stdout.strip()
        for kind in ("afterok", "afternotok", "afterany"):
            line = f"qsub -W depend={kind}:{array} -v WHICH={bad}.{kind} note.sh"
            assert typed(run, line).returncode == 0
        assert typed(run, f"qrls {array}").returncode == 0
    until(lambda: not typed(run, "qselect -u " + getuser()).stdout, seconds=20)
    ran = (run / "ran").read_text().split()
    assert sorted(ran) == ["2.afterany", "2.afterok", "3.afterany", "3.afternotok"]


def test_without_history_the_stand_in_drops_what_comes_after_a_job_that_ended(run: Path) -> None:
    (run / "standin" / "no_history").touch()
    job = typed(run, "qsub hello.sh").stdout.strip()
    until(lambda: "Unknown Job Id" in typed(run, f"qstat -f -F json {job}").stderr, seconds=10)
    late = typed(run, f"qsub -W depend=afterany:{job} ts.sh")
    assert (late.returncode, late.stdout) == (0, "2.pbshost\n")
    assert "Unknown Job Id" in typed(run, "qstat -f -F json 2").stderr


def test_a_job_too_big_for_the_cluster_is_named_and_cleared(tmp_path: Path) -> None:
    with tried(DIALECT, tmp_path) as cluster:
        site = STANDIN_SITE.read_text().replace("max_cpus = 8", "max_cpus = 64")
        cluster.write("big.toml", site)
        words = ("map", "--site", "./big.toml", "--base-dir", "runs", "--name", "it")
        cluster.hpcpipe(*words, "--cpus", "16", "--", "echo", ":::", "a")
        [failed] = cluster.finish()["failures"]
        assert (failed["state"], failed["reason"]) == ("failed", "refused by the scheduler")
        assert failed["error"].startswith("Can Never Run: Insufficient amount of resource: ncpus")
        cluster.hpcpipe(*words, "--cpus", "1", "--", "echo", ":::", "a")
        assert cluster.finish()["nodes"] == {"it": {"all": 1, "done": 1}}
        assert not typed(tmp_path, f"qselect -u {getuser()}").stdout
