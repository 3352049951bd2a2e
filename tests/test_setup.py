"""Setup lines of a site: a task never runs without what they were to load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import Lab

from hpcpipe.jobs import JobEnd, Reason, State
from hpcpipe.run import Run
from hpcpipe.site import Environment, Software
from hpcpipe.worker.outcome import NOT_STARTED

LMOD = """module() {
  [ "$2" = known ] && return
  echo 'Lmod has detected the following error:  The following module(s) are unknown:' >&2
  echo '"fsl/9"' >&2
  return 1
}"""
MODULES_3 = """MODULE_VERSION=3.2.10 LOADEDMODULES=a:known/1
module() {
  [ "$2" = known ] || echo "ModuleCmd_Load.c:ERROR:105: Unable to locate a modulefile for $2" >&2
}"""
FAILS = {
    "lmod": ([*LMOD.splitlines(), "module load fsl/9"], 'unknown: "fsl/9" (exit 1: module load'),
    "modules 3": ([*MODULES_3.splitlines(), "module load fsl/9 -s"], "locate a modulefile for"),
    "no command": (["module load fsl/9"], " (exit 127: module load fsl/9"),
    "over two lines": (["true && \\", "  false # no"], "exit 1: true && false"),
    "sourced": (["source ./absent.sh"], "exit "),
    "a dot, which ends dash": ([". ./absent.sh"], "absent.sh"),
    "left": (["true; exit 0"], "exit 1: a line ended the script"),
    "unset": (["set -u", "echo $absent"], "absent"),
}
GOES_ON = [
    *LMOD.splitlines(),
    "# a comment",
    "module load known  # another",
    "[ -e absent ] && module load fsl/9",
    "if [ -e absent ]; then",
    "  module load fsl/9",
    "fi",
    "for one in 1 2; do false; done; true",
    "cat >/dev/null <<END",
    "false",
    "END",
    "false",
    "trap true EXIT",
]


def one() -> int:
    return 1


def site(lab: Lab, lines: list[str], software: bool) -> Any:
    if software:
        found = Software(setup=tuple(lines))
        return replace(lab.site, software={"fsl": found})
    return replace(lab.site, environment=Environment(prologue=tuple(lines)))


def add(lab: Lab, kind: str, software: bool) -> None:
    asked = {"software": "fsl"} if software else {}
    if kind == "python":
        from hpcpipe import task

        lab.workflow.add(task(**asked)(one), name="work")  # type: ignore[call-overload]
    else:
        lab.workflow.command("true", name="work", resources=asked)


@pytest.mark.parametrize("software", [False, True], ids=["prologue", "software"])
@pytest.mark.parametrize("kind", ["python", "command"])
@pytest.mark.parametrize(("lines", "words"), FAILS.values(), ids=FAILS)
def test_a_setup_that_fails_stops_the_task_and_is_told(
    lab: Lab, lines: list[str], words: str, kind: str, software: bool
) -> None:
    add(lab, kind, software)
    lab.site = site(lab, lines, software)
    lab.submit()
    done = lab.run("work")
    assert done.status == NOT_STARTED
    element = lab.find("work")
    (lab.rundir.logs / f"{element.batch}.out").write_text(done.err)
    lab.scheduler.says = {element.job: JobEnd("FAILED", Reason.EXIT, NOT_STARTED)}
    [told] = Run(lab.rundir.folder).report().tasks
    assert (told.state, told.reason) == (State.FAILED, Reason.START)
    assert words in told.words


@pytest.mark.parametrize("kind", ["python", "command"])
def test_what_may_fail_in_a_setup_does_not_stop_the_task(lab: Lab, kind: str) -> None:
    add(lab, kind, software=False)
    lab.site = site(lab, GOES_ON, software=False)
    lab.submit()
    assert lab.run("work").status == 0
    assert Path(lab.find("work").good).exists()
