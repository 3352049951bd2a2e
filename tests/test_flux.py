"""Flux: its adapter against what flux-core 0.88 printed (tests/golden/outputs/flux)."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import ends_of

from hpcpipe.errors import SchedulerError, SchedulerUnavailable, SubmitUnclear
from hpcpipe.jobs import After, Reason, State
from hpcpipe.schedulers.base import Done, launch, shown
from hpcpipe.schedulers.flux import Flux
from hpcpipe.schedulers.flux.probe import Probe

OUTPUTS = Path(__file__).parent / "golden" / "outputs" / "flux"
JOBS = (OUTPUTS / "flux_jobs_json.json").read_text()
NAMES = {row["name"]: row["jobid"].replace("ƒ", "f") for row in json.loads(JOBS)["jobs"]}


def flux(*answers: str | Done) -> tuple[Flux, list[Sequence[str]]]:
    """Make an adapter whose commands get these answers, in turn; and note the commands."""
    left, ran = list(answers), []

    def run(argv: Sequence[str], cwd: Path | None) -> Done:
        del cwd
        ran.append(argv)
        answer = left.pop(0)
        return Done(tuple(argv), 0, answer) if isinstance(answer, str) else answer

    return Flux(run), ran


ORDER = ((1, "ƒ4J24Twu"), (3, "ƒ4J24Twv"), (0, "ƒ4J3YTEF"), (2, "ƒ4J52SWb"))


def row(jobid: str, state: str = "SCHED", name: str = "n", urgency: int = 16, *waits: str) -> Any:
    return {
        "jobid": jobid, "name": name, "state": state, "urgency": urgency,
        "dependencies": [f"after-finish={one}" for one in waits],
    }  # fmt: skip


def test_each_end_is_told_apart() -> None:
    ends = flux(JOBS)[0].account(NAMES.values(), 0)
    told = {name: ends[job] for name, job in NAMES.items()}
    assert {name: (end.reason, end.exit_code, end.signal) for name, end in told.items()} == {
        **dict.fromkeys(("true", "held2", "todel2", "depany", "depnotok"), (None, 0, None)),
        **dict.fromkeys(("b1", "arr", "out", "ok1"), (None, 0, None)),
        "f3": (Reason.EXIT, 3, None),
        "segv": (Reason.SIGNAL, None, 11),
        "wall": (Reason.TIME, None, 14),
        "todel": (Reason.CANCELLED, None, 15),
        "held": (Reason.CANCELLED, None, None),
        "depok": (Reason.UPSTREAM, None, None),
        "toobig": (Reason.NEVER, None, None),
        "nosuch": (Reason.EXIT, 127, None),
    }
    assert told["toobig"].native.startswith("FAILED: unsatisfiable request: need 64 slot(s)")
    assert (told["ok1"].host, round(told["ok1"].wall or 0, 1)) == ("vm", 1.0)
    assert flux(JOBS)[0].poll(NAMES.values()) == {}
    assert flux(JOBS)[0].account(["ƒunknown"], 0) == {}


def test_what_waits_for_a_closed_gate_is_held() -> None:
    gate = row("ƒ1", "SCHED", "hpcpipe-gate", 0)
    rows = [gate, row("ƒ2", "DEPEND", "n", 16, "ƒ1"), row("ƒ3", "DEPEND", "n", 16, "ƒ2")]
    rows += [row("ƒ4", "RUN"), row("ƒ5", "SNOOZE")]
    statuses = flux(json.dumps({"jobs": rows}))[0].poll(["ƒ2,ƒ3", "ƒ4", "ƒ5"])
    assert {job: status.state for job, status in statuses.items()} == {
        "f2": State.HELD,
        "f3": State.QUEUED,
        "f4": State.RUNNING,
        "f5": State.UNKNOWN,
    }


def test_all_that_is_held_waits_for_one_gate(tmp_path: Path) -> None:
    script = tmp_path / "x.sh"
    script.write_text("#!/bin/sh\n#flux: --job-name=smooth.wf\n#flux: --cc=0-3\n")
    copies = (OUTPUTS / "flux_submit_cc.txt").read_text()
    which = [row(one, "DEPEND", f"smooth.wf:t#{at}") for at, one in ORDER]
    named = json.dumps({"jobs": which})
    adapter, ran = flux("ƒ7\n", copies, named, copies, named, "ƒ9\n", copies, named, "")
    job = adapter.submit(script, token="t1", held=True)
    assert job == "f4J3YTEF,f4J24Twu,f4J52SWb,f4J24Twv"  # by the names, not as printed
    assert [adapter.element(job, index) for index in (0, 3, 4)] == ["f4J3YTEF", "f4J24Twv", ""]
    adapter.submit(script, token="t2", held=True)
    adapter.submit(script, [After(job), After(job, element=1, well=False)], token="t3")
    adapter.release([job, "ƒ8"])
    ran = [argv for argv in ran if argv[1] != "jobs"]
    said = ("--job-name=smooth.wf", "--cc=0-3")
    command = ("sh", "-c", launch(script, ("/bin/sh",)))
    assert "--urgency=hold" in ran[0]
    held = ("--job-name=smooth.wf:t1#{cc}", "--dependency=afterany:f7")
    assert ran[1] == ("flux", "submit", *said, *held, *command)
    assert "--dependency=afterany:f7" in ran[2]
    # One job waits for all four; each of the four below for that alone.
    waits = [f"--dependency=afterok:{one}" for one in job.split(",")]
    assert [word for word in ran[3] if "--dep" in word] == waits
    waits = ["--dependency=afterok:f9", "--dependency=afterany:f4J24Twu"]
    assert ran[4] == ("flux", "submit", *said, "--job-name=smooth.wf:t3#{cc}", *waits, *command)
    assert ran[5:] == [("flux", "cancel", "f7")]


def test_each_copy_waits_for_its_own_in_one_command(tmp_path: Path) -> None:
    script = tmp_path / "x.sh"
    script.write_text("#!/bin/sh\n#flux: --job-name=n\n#flux: --cc=0-2\n#flux: --queue=long\n")
    copies = "".join(f"{one}\n" for _, one in ORDER[:3])
    named = json.dumps({"jobs": [row(ORDER[at][1], "DEPEND", f"n:t#{at}") for at in (2, 0, 1)]})
    adapter, ran = flux(copies, named)
    adapter.submit(script, [After("f1,,f3", "each"), After("f5", well=False)], token="t")
    assert ran[0] == (
        "flux", "bulksubmit", "--job-name=n", "--queue=long", "--job-name=n:t#{0}",
        "--dependency=afterany:f5", "--env=FLUX_JOB_CC={0}", "--dependency={1}",
        "sh", "-c", launch(script, ("/bin/sh",)), ":::", "0", "1", "2",
        ":::+", "afterok:f1", "afterany:f1", "afterok:f3",
    )  # fmt: skip


def test_what_another_process_submitted_held_is_let_go_by_its_gate() -> None:
    rows = [row("ƒ1", "SCHED", "hpcpipe-gate", 0), row("ƒ2", "DEPEND", "n:t", 16, "ƒ1")]
    adapter, ran = flux(json.dumps({"jobs": rows}), "")
    adapter.release(["ƒ2"])
    assert ran[1] == ("flux", "cancel", "f1")
    assert flux(json.dumps({"jobs": rows}))[0].find(["t"]) == {"t": "f2"}


def test_a_refused_submission_takes_its_gate_along(tmp_path: Path) -> None:
    script = tmp_path / "x.sh"
    script.write_text("#!/bin/sh\n")
    no = Done(("flux",), 1, "", (OUTPUTS / "flux_bad_queue.err").read_text())
    rows = [row("ƒ7", "SCHED", "hpcpipe-gate", 0), row("ƒ8", "DEPEND", "n:t", 16, "ƒ7")]
    adapter, ran = flux("ƒ7\n", "ƒ8\n", no, json.dumps({"jobs": rows}), "", "")
    job = adapter.submit(script, token="t", held=True)
    with pytest.raises(SchedulerError, match="'nosuch' is not a valid queue"):
        adapter.submit(script, token="u", held=True)
    adapter.cancel([job])
    assert ran[-2:] == [("flux", "cancel", "f8"), ("flux", "cancel", "f7")]


def test_a_gate_stays_while_anything_else_waits_for_it() -> None:
    gate = row("ƒ1", "SCHED", "hpcpipe-gate", 0)
    rows = [gate, *(row(one, "DEPEND", "n:t#0", 16, "ƒ1") for one in ("ƒ2", "ƒ3"))]
    adapter, ran = flux(json.dumps({"jobs": rows}), "")
    adapter.cancel(["f3"])
    assert ran[1:] == [("flux", "cancel", "f3")]


def test_a_gate_that_a_killed_client_left_is_cancelled_with_the_next_job() -> None:
    gates = [
        row("ƒ1", "SCHED", "hpcpipe-gate", 0) | {"t_submit": time.time() - age}
        for age in (60, 3600)
    ]
    gates[1]["jobid"] = "ƒ2"
    adapter, ran = flux(json.dumps({"jobs": [*gates, row("ƒ3")]}), "", "")
    adapter.cancel(["f3"])
    assert ran[1:] == [("flux", "cancel", "f3"), ("flux", "cancel", "f2")]


def test_a_gate_that_is_open_already_needs_no_opening() -> None:
    rows = [row("ƒ1", "SCHED", "hpcpipe-gate", 0), row("ƒ2", "DEPEND", "n:t", 16, "ƒ1")]
    gone = Done(("flux",), 1, "", "flux-cancel: ERROR: ƒ1: job is inactive")
    flux(json.dumps({"jobs": rows}), gone)[0].release(["ƒ2"])
    with pytest.raises(SchedulerError, match="not permitted"):
        flux(json.dumps({"jobs": rows}), gone._replace(stderr="not permitted"))[0].release(["ƒ2"])


def test_silence_is_not_an_answer() -> None:
    gone = Done(("flux",), 1, "", "Unable to connect to Flux: broker socket /x was not found")
    for answer in (gone, Done(("flux",), 0, "{")):
        with pytest.raises(SchedulerUnavailable):
            flux(answer)[0].poll(["ƒ1"])


def test_what_is_empty_is_left_out_and_nobody_stumbles() -> None:
    """Also of somebody else's job, which has no name."""
    text = (OUTPUTS / "jobs-empty-name.json").read_text()
    assert flux(text)[0].find(["t"]) == {}
    assert flux(text)[0].poll(["ƒBtB14uUT"])["fBtB14uUT"].state is State.HELD


@pytest.mark.parametrize(
    ("sample", "job", "told"),
    [
        ("flux_jobs_killed.json", "fPse7eJpo", (Reason.SIGNAL, None, 9)),
        ("flux_jobs_node.json", "fSY4dXW", (Reason.NODE, 1, None)),
    ],
)
def test_a_killed_shell_and_a_lost_node_are_told_apart(
    sample: str, job: str, told: tuple[Reason, int | None, int | None]
) -> None:
    end = ends_of(flux((OUTPUTS / sample).read_text())[0], job)[job]
    assert (end.reason, end.exit_code, end.signal) == told


@pytest.mark.parametrize("left", [False, True])
def test_an_array_refused_in_part_is_taken_back_with_its_gate(tmp_path: Path, left: bool) -> None:
    script = tmp_path / "x.sh"
    script.write_text("#!/bin/sh\n#flux: --job-name=n\n#flux: --cc=0-7\n")
    taken, words = (
        (OUTPUTS / f"submit-cc-partly-refused.{end}").read_text() for end in ("txt", "err")
    )
    rows = [row(taken.split()[0], "RUN")] if left else []
    partly = Done(("flux", "submit"), 1, taken, words)
    adapter, ran = flux("ƒ7\n", partly, "", json.dumps({"jobs": rows}), "")
    with pytest.raises(SchedulerError, match="max number of jobs") as raised:
        adapter.submit(script, token="t", held=True)
    assert isinstance(raised.value, SubmitUnclear) is left
    assert ran[2] == ("flux", "cancel", *taken.replace("ƒ", "f").split())
    assert (ran[-1] == ("flux", "cancel", "f7")) is not left


def test_a_gate_is_where_its_jobs_are(tmp_path: Path) -> None:
    script = tmp_path / "x.sh"
    script.write_text(
        "#!/bin/sh\n#flux: --queue=batch\n#flux: --time-limit=9s\n#flux: --requires=a\n"
    )
    adapter, ran = flux("ƒ7\n", "ƒ8\n")
    adapter.submit(script, token="t", held=True)
    assert {"--queue=batch", "--requires=a"} <= {*ran[0]}
    assert "--time-limit=9s" not in ran[0]


def test_the_ids_of_many_copies_are_short_on_a_screen() -> None:
    assert shown(",".join(f"f{nth}" for nth in range(1000))) == "f0,…,f999"
    assert shown("8-30,32-108") == "8-30,32-108"


CONFIG = {
    "policy": {
        "limits": {"duration": "2h"},
        "jobspec": {"defaults": {"system": {"queue": "batch", "duration": "30m"}}},
    },
    "queues": {
        "batch": {"requires": ["batch"]},
        "gpu": {"requires": ["gpu"], "policy": {"limits": {"duration": "1.5d"}}},
    },
}
RESOURCES = {
    "execution": {
        "R_lite": [
            {"rank": "0-2", "children": {"core": "0-7"}},
            {"rank": "3", "children": {"core": "0-15", "gpu": "0-3"}},
        ],
        "properties": {"batch": "0-2", "gpu": "3"},
    }
}


def test_a_probe_reads_the_queues_of_an_instance() -> None:
    said = {"version": "commands: 0.88.0", "config": json.dumps(CONFIG)}
    said["resource"] = json.dumps(RESOURCES)
    found = Probe().look(lambda argv, _: Done(tuple(argv), 0, said[argv[1]]))
    assert found.version == "0.88.0"
    assert found.settings["queues"] == [
        {"name": "batch", "default": True, "max_time": "2h", "default_time": "30m", "max_cpus": 8},
        {"name": "gpu", "max_time": "36h", "default_time": "30m", "max_cpus": 16, "max_gpus": 4,
         "min_gpus": 1},
    ]  # fmt: skip


def test_an_instance_may_have_no_queues() -> None:
    sample = (OUTPUTS / "flux_resource_R.json").read_text()
    said = {"version": "commands: 0.88.0", "config": "{}", "resource": sample}
    found = Probe().look(lambda argv, _: Done(tuple(argv), 0, said[argv[1]]))
    assert found.settings["queues"] == []
