"""SPM as a job array on every scheduler, through real GNU Octave and the stand-in for SPM."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from test_spm import STAND_IN, octave, write_image

from contract.harness import PATIENCE, Cluster
from hpcpipe.store.ledger import Ledger
from hpcpipe.store.rundir import RunDir

__all__ = ["octave"]  # a fixture

FLOW = """
    from glob import glob
    import hpcpipe

    wf = hpcpipe.spm.normalize(
        sorted(glob("SAD*.nii")), template="T2.nii", memory="600M", time="5m", base_dir="work"
    )
"""
SITE = """
    extends = "{site}"

    [software.spm]
    version = "12"
    setup = "export HPCPIPE_SPM='octave {folder}'"
    at_once = 2
"""


POSTER = Path(__file__).parents[2] / "examples" / "poster"


@pytest.fixture
def user(cluster: Cluster, octave: str) -> Cluster:
    """A user with the images of three subjects, of which one was not copied whole."""
    assert octave
    site = cluster.environment["HPCPIPE_SITE"]
    cluster.write("lab.toml", SITE.format(site=site, folder=STAND_IN))
    for name in ("T2", "SAD01", "SAD02", "SAD03"):
        write_image(cluster.home / f"{name}.nii", cut=9 if name == "SAD02" else 0)
    return replace(cluster, changed={"HPCPIPE_SITE": "./lab.toml"})


def test_one_subject_that_spm_cannot_read_fails_alone_in_spms_words(user: Cluster) -> None:
    user.write("flow.py", FLOW)
    user.hpcpipe("submit", "flow.py")
    report = user.finish()
    assert report["nodes"] == {"normalize": {"all": 3, "done": 2, "failed": 1}}
    [failure] = report["failures"]
    assert failure["task"] == "normalize/SAD02"
    words = "Failed 'Old Normalise: Estimate & Write': spm_vol: File too small."
    assert failure["error"] == words
    folder = user.home / "work/normalize"
    assert len(Ledger(RunDir(folder).ledger).read().submissions) == 1
    for subject in ("SAD01", "SAD03"):
        made = {file.name for file in folder.glob(f"normalize/subject-{subject}-*/*")}
        assert {f"w{subject}.nii", f"{subject}_sn.mat", "pyscript_normalize.m"} <= made
    log = user.hpcpipe("logs", "normalize/SAD02").stdout
    assert "Running 'Old Normalise" in log
    assert "Traceback" not in log
    # The image is mended: that subject runs again, and no other.
    write_image(user.home / "SAD02.nii")
    assert "1 task to run, 2 done" in user.hpcpipe("submit", "flow.py").stdout
    assert user.finish()["verdict"] == "finished: all 3 tasks succeeded"


def test_the_posters_direct_distribution(user: Cluster) -> None:
    words = [sys.executable, str(POSTER / "direct.py")]
    done = subprocess.run(
        words, cwd=user.home, env=user.environment, capture_output=True, text=True, check=True,
        timeout=PATIENCE,
    )  # fmt: skip
    first, second, third = [line for line in done.stdout.splitlines() if line.startswith("SAD")]
    folder = user.home / "hpcpipe_runs/direct/normalize"
    assert first == f"SAD01.nii {folder}/call-SAD01/wSAD01.nii"
    assert third == f"SAD03.nii {folder}/call-SAD03/wSAD03.nii"
    assert second.startswith(
        "SAD02.nii Failed 'Old Normalise: Estimate & Write': spm_vol: File too"
    )
    assert (folder / "call-SAD01" / "pyscript_normalize.m").is_file()
    assert len(Ledger(RunDir(folder.parent).ledger).read().submissions) == 1
