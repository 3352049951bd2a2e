"""The example on real images: the same arrays from this machine's processes and a real Slurm."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from contract.dialects import LOCAL
from contract.harness import Cluster

EXAMPLE = Path(__file__).parents[2] / "examples" / "normalize"


@pytest.mark.slurm
def test_the_example_makes_identical_images_on_every_scheduler(
    slurm: Cluster, tmp_path: Path
) -> None:
    _need_libraries()
    made = []
    for dialect in (LOCAL, slurm.dialect):
        home = tmp_path / dialect.name
        shutil.copytree(EXAMPLE, home, ignore=shutil.ignore_patterns("norm_workdir"))
        user = Cluster(dialect, home)
        try:
            user.hpcpipe("submit", "normalize.py")
            assert user.finish(seconds=400)["verdict"] == "finished: all 23 tasks succeeded"
        finally:
            user.end()
        made.append(home / "norm_workdir")
        picture = home / "norm_workdir" / "normalizefa" / "picture" / "before_after.png"
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert _compared(*made) == "29 of 29 images are identical"


@pytest.mark.slurm
def test_registration_by_nipype_over_eight_subjects_is_the_same_in_series_and_on_slurm(
    slurm: Cluster, tmp_path: Path
) -> None:
    _need_libraries()
    for name in ("serial", "slurm"):
        shutil.copytree(EXAMPLE, tmp_path / name, ignore=shutil.ignore_patterns("norm_workdir"))
    script = [sys.executable, "with_nipype.py"]
    subprocess.run(script, cwd=tmp_path / "serial", check=True, capture_output=True, timeout=400)
    user = Cluster(slurm.dialect, tmp_path / "slurm")
    user.hpcpipe("submit", script[1])
    assert user.finish(seconds=400)["verdict"] == "finished: all 26 tasks succeeded"
    made = [tmp_path / name / "norm_workdir" for name in ("serial", "slurm")]
    assert _compared(*made) == "35 of 35 images are identical"


def _need_libraries() -> None:
    if not find_spec("dipy"):
        said = "the example's libraries (pip install -r examples/normalize/requirements.txt)"
        assert os.environ.get("HPCPIPE_TEST_STRICT") != "1", f"missing: {said}"
        pytest.skip(said)


def _compared(ours: Path, theirs: Path) -> str:
    """Compare all images of two runs, which must not differ; give the last line that is said."""
    done = subprocess.run(
        [sys.executable, EXAMPLE / "compare.py", ours, theirs],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]
