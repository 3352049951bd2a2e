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
    if not find_spec("dipy"):
        said = "the example's libraries (pip install -r examples/normalize/requirements.txt)"
        assert os.environ.get("HPCPIPE_TEST_STRICT") != "1", f"missing: {said}"
        pytest.skip(said)
    made = []
    for dialect in (LOCAL, slurm.dialect):
        home = tmp_path / dialect.name
        shutil.copytree(EXAMPLE, home, ignore=shutil.ignore_patterns("norm_workdir"))
        user = Cluster(dialect, home)
        try:
            user.hpcpipe("submit", "normalize.py")
            assert user.finish(seconds=400)["verdict"] == "all 23 tasks are good"
        finally:
            user.end()
        made.append(home / "norm_workdir")
        picture = home / "norm_workdir" / "normalizefa" / "picture" / "before_after.png"
        assert picture.read_bytes().startswith(b"\x89PNG")
    compared = subprocess.run(
        [sys.executable, EXAMPLE / "compare.py", *made],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert compared.returncode == 0, compared.stdout + compared.stderr
    assert compared.stdout.startswith("29 of 29 images are identical")
