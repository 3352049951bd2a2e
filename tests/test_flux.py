"""Flux: its adapter against what flux-core 0.88 printed (tests/golden/outputs/flux)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hpcpipe.errors import SchedulerError, SchedulerUnavailable
from hpcpipe.model import After, Reason, State
from hpcpipe.schedulers.base import Done
from hpcpipe.schedulers.flux import Flux

OUTPUTS = Path(__file__).parent / "golden" / "outputs" / "flux"
JOBS = (OUTPUTS / "flux_jobs_json.json").read_text()
NAMES = {row["name"]: row["jobid"] for row in json.loads(JOBS)["jobs"]}


def flux(*answers: str | Done) -> tuple[Flux, list[Sequence[str]]]:
    """Make an adapter whose commands get these answers, in turn; and note the commands."""
    left, ran = list(answers), []

    def run(argv: Sequence[str], cwd: Path | None) -> Done:
        del cwd
        ran.append(argv)
        answer = left.pop(0)
        return Done(tuple(argv), 0, answer) if isinstance(answer, str) else answer

    return Flux(run), ran


def row(jobid: str, state: str = "SCHED", name: str = "n", urgency: int = 16, *waits: str) -> Any:
    return {
        "id": int(jobid[1:]), "jobid": jobid, "name": name, "state": state, "urgency": urgency,
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
        "toobig": (Reason.REFUSED, None, None),
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
        "ƒ2": State.HELD,
        "ƒ3": State.QUEUED,
        "ƒ4": State.RUNNING,
        "ƒ5": State.UNKNOWN,
    }


def test_all_that_is_held_waits_for_one_gate(tmp_path: Path) -> None:
    script = tmp_path / "x.sh"
    script.write_text("#!/bin/sh\n#flux: --job-name=smooth.wf\n#flux: --cc=0-3\n")
    copies = (OUTPUTS / "flux_submit_cc.txt").read_text()
    adapter, ran = flux("ƒ7\n", copies, "ƒ8\n", "ƒ9\n", "")
    job = adapter.submit(script, token="t1", held=True)
    assert job == "ƒ4J24Twu,ƒ4J24Twv,ƒ4J3YTEF,ƒ4J52SWb"
    assert [adapter.element(job, index) for index in (0, 3)] == ["ƒ4J24Twu", "ƒ4J52SWb"]
    adapter.submit(script, token="t2", held=True)
    adapter.submit(script, [After(job), After(job, element=1, well=False)], token="t3")
    adapter.release([job, "ƒ8"])
    said = ("--job-name=smooth.wf", "--cc=0-3")
    command = ("/bin/sh", f"{tmp_path.name}/x.sh")
    assert "--urgency=hold" in ran[0]
    held = ("--job-name=smooth.wf:t1", "--dependency=afterany:ƒ7")
    assert ran[1] == ("flux", "submit", *said, *held, *command)
    assert "--dependency=afterany:ƒ7" in ran[2]
    waits = [*(f"--dependency=afterok:{one}" for one in job.split(","))]
    waits.append("--dependency=afterany:ƒ4J24Twv")
    assert ran[3] == ("flux", "submit", *said, "--job-name=smooth.wf:t3", *waits, *command)
    assert ran[4:] == [("flux", "job", "urgency", "ƒ7", "16")]


def test_what_another_process_submitted_held_is_let_go_by_its_gate() -> None:
    rows = [row("ƒ1", "SCHED", "hpcpipe-gate", 0), row("ƒ2", "DEPEND", "n:t", 16, "ƒ1")]
    adapter, ran = flux(json.dumps({"jobs": rows}), "")
    adapter.release(["ƒ2"])
    assert ran[1] == ("flux", "job", "urgency", "ƒ1", "16")
    assert flux(json.dumps({"jobs": rows}))[0].find(["t"]) == {"t": "ƒ2"}


def test_a_refused_submission_takes_its_gate_along(tmp_path: Path) -> None:
    script = tmp_path / "x.sh"
    script.write_text("#!/bin/sh\n")
    no = Done(("flux",), 1, "", (OUTPUTS / "flux_bad_queue.err").read_text())
    adapter, ran = flux("ƒ7\n", "ƒ8\n", no, "")
    job = adapter.submit(script, token="t", held=True)
    with pytest.raises(SchedulerError, match="'nosuch' is not a valid queue"):
        adapter.submit(script, token="u", held=True)
    adapter.cancel([job])
    assert ran[-1] == ("flux", "cancel", "ƒ8", "ƒ7")


def test_silence_is_not_an_answer() -> None:
    gone = Done(("flux",), 1, "", "Unable to connect to Flux: broker socket /x was not found")
    for answer in (gone, Done(("flux",), 0, "{")):
        with pytest.raises(SchedulerUnavailable):
            flux(answer)[0].poll(["ƒ1"])
