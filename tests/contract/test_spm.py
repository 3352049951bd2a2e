"""SPM as a job array on every scheduler, through real GNU Octave and the stand-in for SPM."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_spm import STAND_IN, octave, write_image

from contract.harness import Cluster
from hpcpipe.ledger import Ledger
from hpcpipe.rundir import RunDir

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

    [environment]
    variables = {{ HPCPIPE_SPM = "octave '{folder}'" }}
"""


@pytest.mark.usefixtures("octave")
def test_one_subject_that_spm_cannot_read_fails_alone_in_spms_words(cluster: Cluster) -> None:
    site = cluster.environment["HPCPIPE_SITE"]
    cluster.write("lab.toml", SITE.format(site=site, folder=STAND_IN))
    user = replace(cluster, changed={"HPCPIPE_SITE": "./lab.toml"})
    user.write("flow.py", FLOW)
    for name in ("T2", "SAD01", "SAD02", "SAD03"):
        write_image(user.home / f"{name}.nii", cut=9 if name == "SAD02" else 0)
    user.hpcpipe("submit", "flow.py")
    report = user.finish()
    assert report["nodes"] == {"normalize": {"all": 3, "done": 2, "failed": 1}}
    [failure] = report["failures"]
    assert failure["task"] == "normalize/SAD02"
    assert failure["error"].startswith("Failed 'Old Normalise: Estimate & Write': Error using spm")
    folder = user.home / "work/normalize"
    assert len(Ledger(RunDir(folder).ledger).read().submissions) == 1
    for subject in ("SAD01", "SAD03"):
        made = {file.name for file in (folder / "normalize" / f"subject-{subject}").iterdir()}
        assert {f"w{subject}.nii", f"{subject}_sn.mat", "pyscript_normalize.m"} <= made
    assert "File too small" in user.hpcpipe("logs", "normalize/SAD02").stdout
    # The image is mended: that subject runs again, and no other.
    write_image(user.home / "SAD02.nii")
    assert "1 task to run, 2 done" in user.hpcpipe("submit", "flow.py").stdout
    assert user.finish()["verdict"] == "all 3 tasks are good"
