"""nipype's own tests of its engine and plugins, with their workflows run by hpcpipe.

``engine/redirected.txt`` lists those that run a workflow, ``engine/left_out.txt`` those that cannot
be run by other processes, and why. They are nipype's files, unmodified.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from contract.dialects import LOCAL, SLURM
from contract.harness import Cluster

ENGINE = Path(__file__).parent / "engine"
SHARES = 4  # processes at a time; the tests wait for the scheduler most of the time
LONGEST = 900.0  # seconds
# It takes a minute; what the plugin asks of Slurm, ``test_nipype.py`` tries there each time.
TRIED = [LOCAL.param, *([SLURM.param] if os.environ.get("HPCPIPE_TEST_ALL") else [])]


def listed(name: str) -> list[str]:
    """Read a list, less its comments."""
    lines = (ENGINE / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("either", TRIED, indirect=True)
def test_nipypes_own_tests_pass_with_their_workflows_run_by_hpcpipe(either: Cluster) -> None:
    tests = listed("redirected.txt")
    log = either.home / "redirected"
    running = []
    for share in range(SHARES):
        folder = either.home / f"share{share}"
        folder.mkdir()
        environ = {
            **either.environment,
            "NIPYPE_NO_ET": "1",
            "LOGNAME": "hpcpipe",
            "PYTHONPATH": str(ENGINE),
            "REDIRECTED": str(log),
            "PYTEST_ADDOPTS": "",  # ours
            "TMPDIR": str(folder),  # below which nipype makes a folder of a fixed name
        }
        words = ["-q", "-p", "no:cacheprovider", "-p", "redirect", "-W", "ignore", "--pyargs"]
        words += ["--basetemp", str(folder / "tmp"), "--rootdir", str(folder)]
        with (folder / "out").open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *words, *tests[share::SHARES]],
                cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        running.append((process, folder / "out"))
    try:
        for process, out_file in running:
            assert process.wait(LONGEST) == 0, out_file.read_text()
    finally:
        for process, _ in running:
            process.kill()
            process.wait()
    assert sorted(set(log.read_text().splitlines())) == sorted(tests)


def test_no_test_of_nipypes_is_both_redirected_and_left_out() -> None:
    left_out = {line.split()[0] for line in listed("left_out.txt")}
    assert left_out.isdisjoint(listed("redirected.txt"))
