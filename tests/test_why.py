"""What is in a key, and which part of one has changed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

FLOW = """
from pathlib import Path
from hpcpipe import Workflow, each
import helpers

def smooth(image: Path, width, mask: Path):
    return helpers.scale(width)

def mean(images):
    return images

wf = Workflow("flow")
images = sorted(Path().glob("S*/T1.nii"))
smoothed = wf.add(smooth, image=each(images), width=4, mask=Path("mask.nii"))
wf.add(mean, images=smoothed.gather())
wf.command("echo a.txt {n}", name="echo", n=each([1, 2]))
"""
FILES = {
    "flow.py": FLOW,
    "helpers.py": "def scale(width): return width * 2\n",
    "mask.nii": "mask",
    "a.txt": "a",
    **{f"S{at}/T1.nii": f"{at}" for at in (1, 2, 3)},
}


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Type a command of hpcpipe in the folder of a study that was submitted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPCPIPE_LOCAL", str(tmp_path / "spool"))
    for name, text in FILES.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)

    def type_in(*words: str) -> str:
        words = (sys.executable, "-m", "hpcpipe", *words)
        ran = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    type_in("run", "--site", "local", "flow.py")
    return type_in


EDITS: Mapping[str, tuple[dict[str, tuple[str, str]], list[str]]] = {
    "nothing": ({}, []),
    "a helper": (
        {"helpers.py": ("* 2", "* 3")},
        ["code of smooth: helpers.py (smooth/S1 and 2 others)", "mean takes from smooth (mean)"],
    ),
    "a helper and an image": (
        {"helpers.py": ("* 2", "* 3"), "S2/T1.nii": ("2", "two")},
        [
            "code of smooth: helpers.py (smooth/S1 and 1 other)",
            "code of smooth: helpers.py; input T1.nii (smooth/S2)",
            "mean takes from smooth (mean)",
        ],
    ),
    "an argument": (
        {"flow.py": ("width=4", "width=5")},
        ["input width (smooth/S1 and 2 others)", "mean takes from smooth (mean)"],
    ),
    "a shared file": (
        {"mask.nii": ("mask", "other")},
        ["input mask (smooth/S1 and 2 others)", "mean takes from smooth (mean)"],
    ),
    "a command": ({"flow.py": ("echo a.txt", "echo -n a.txt")}, ["command (echo/1 and 1 other)"]),
    "a file of a command": ({"a.txt": ("a", "b")}, ["file a.txt (echo/1 and 1 other)"]),
}


def test_the_plan_names_the_part_that_changed(said: Callable[..., str]) -> None:
    for name, (edits, reasons) in EDITS.items():
        for file, (old, new) in edits.items():
            Path(file).write_text(FILES[file].replace(old, new))
        lines = said("plan", "--site", "local", "flow.py").splitlines()
        start = lines.index("Changed since the last run:") + 1 if edits else len(lines)
        assert [line[2:] for line in lines[start : start + len(reasons)]] == reasons, name
        assert ("Changed since the last run:" in lines) is bool(edits)
        for file in edits:
            Path(file).write_text(FILES[file])


def test_explain_key_lists_what_is_in_it(said: Callable[..., str]) -> None:
    lines = said("explain", "smooth/S2", "--key").splitlines()
    digest = re.compile(r"  [0-9a-f]{16}$")
    assert re.fullmatch("smooth/S2  key [0-9a-f]{32}", lines[0])
    assert [digest.sub("", line).strip() for line in lines[1:]] == [
        "code flow.py",
        "code helpers.py",
        "each of image",
        "input mask",
        "input width",
        "name and folder",
        f"file {Path.cwd()}/mask.nii",
        f"file {Path.cwd()}/S2/T1.nii",
    ]
    assert said("explain", "mean", "--key").count("after smooth/S") == 3
