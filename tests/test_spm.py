"""SPM: the batches of nipype's interfaces, read by a stand-in for SPM that real GNU Octave runs.

The stand-in, ``tests/spm``, checks a batch's shape and its files as SPM would, and writes the files
that SPM would, but computes nothing.
"""

from __future__ import annotations

import os
import shlex
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hpcpipe.spm
from hpcpipe import each
from hpcpipe.command import CommandFailed
from hpcpipe.errors import WorkflowError
from hpcpipe.octave import octave_words
from hpcpipe.spmcall import Engine, find_engine, told_by
from hpcpipe.workflow import Workflow

STAND_IN = Path(__file__).with_name("spm")
OCTAVE = f"{shlex.quote(sys.executable)} -m hpcpipe.octave"


def write_image(path: Path, cut: int = 0) -> Path:
    """Write a NIfTI image of 4 × 4 × 4 voxels, ``cut`` bytes short."""
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, 4, 4, 4, 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, 4, 16)
    struct.pack_into("<4f", head, 76, 1, 2, 2, 2)
    struct.pack_into("<f", head, 108, 352)
    head[344:348] = b"n+1\0"
    path.write_bytes((bytes(head) + bytes(128))[: 480 - cut])
    return path


@pytest.fixture
def octave() -> str:
    found = shutil.which("octave-cli")
    if not found:
        assert os.environ.get("HPCPIPE_TEST_STRICT") != "1", "missing: octave-cli"
        pytest.skip("needs GNU Octave: apt-get install octave")
    return found


@pytest.fixture
def run(
    octave: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Workflow], dict[str, Any]]:
    """Run the first task of a workflow's one node here, as a node would."""
    monkeypatch.setenv("PATH", f"{Path(octave).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HPCPIPE_SPM", f"octave {STAND_IN}")
    for name in ("MATLAB_PREFDIR", "MCR_CACHE_ROOT"):
        monkeypatch.setenv(name, "")  # a call sets them, as in the process of a task

    def run(workflow: Workflow) -> dict[str, Any]:
        [node] = workflow.nodes.values()
        arguments = {
            name: getattr(value, "values", [value])[0] for name, value in node.arguments.items()
        }
        folder = tmp_path / "here"
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        value: dict[str, Any] = node.call(**arguments)
        return value

    return run


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return [write_image(tmp_path / f"SAD0{n}.nii") for n in (1, 2)]


def made(value: dict[str, Any]) -> set[str]:
    """Name the files among a task's outputs."""
    paths = [one for item in value.values() for one in (item if type(item) is list else [item])]
    flat = [one for item in paths for one in (item if type(item) is list else [item])]
    return {path.name for path in flat}


def test_every_batch_is_one_that_spm_would_take(
    images: list[Path], tmp_path: Path, run: Callable[[Workflow], dict[str, Any]]
) -> None:
    t2 = write_image(tmp_path / "T2.nii")
    for workflow, files, batch in (
        (hpcpipe.spm.normalize(images, t2), {"wSAD01.nii", "SAD01_sn.mat"}, "normalize"),
        (hpcpipe.spm.normalize12(images, t2), {"wSAD01.nii", "y_SAD01.nii"}, "normalize12"),
        (hpcpipe.spm.coregister(images, t2), {"rSAD01.nii"}, "coregister"),
        (hpcpipe.spm.segment(images), {"c1SAD01.nii", "c2SAD01.nii"}, "newsegment"),
        (hpcpipe.spm.smooth(images, [4, 4, 6]), {"sSAD01.nii"}, "smooth"),
    ):
        assert files <= made(run(workflow))
        assert Path(f"pyscript_{batch}.m").is_file()
        assert [axis.labels for axis in workflow.nodes[workflow.name].axes] == [("SAD01", "SAD02")]
        assert images[0].stat().st_size == 480  # it was a copy that SPM wrote beside


@pytest.mark.parametrize("engine", ["octave", "matlab", "standalone"])
def test_matlab_is_started_once_whichever_it_is(
    engine: str,
    octave: str,
    images: list[Path],
    tmp_path: Path,
    run: Callable[[Workflow], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    spied = f'echo "$MATLAB_PREFDIR $MCR_CACHE_ROOT" >> {tmp_path}/starts\n'
    for name, body in {
        "octave-cli": f'{spied if engine == "octave" else ""}exec {octave} "$@"',
        "matlab": f'{spied}exec {OCTAVE} "$@"',
        # As SPM's own: the Runtime's folder, the word "script", and the batch.
        "run_spm12.sh": f'{spied}test "$1 $2" = "/opt/mcr script" && SPM_PATH={STAND_IN} '
        f'exec {OCTAVE} -r "run $3"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    words = {"standalone": f"{programs}/run_spm12.sh /opt/mcr"}.get(engine, str(STAND_IN))
    monkeypatch.setenv("HPCPIPE_SPM", f"{engine} {words}")
    for _ in range(2):
        assert made(run(hpcpipe.spm.smooth(images))) == {"sSAD01.nii"}
    starts = (tmp_path / "starts").read_text().split()
    assert len(set(starts)) == len(starts) == 4  # folders of their own, for each of two starts
    assert not any(Path(folder).exists() for folder in starts)


def test_spm_that_fails_is_quoted(
    images: list[Path], run: Callable[[Workflow], dict[str, Any]]
) -> None:
    write_image(images[0], cut=100)
    with pytest.raises(CommandFailed) as failed:
        run(hpcpipe.spm.normalize(images, images[1]))
    assert failed.value.words.startswith(
        "Failed 'Old Normalise: Estimate & Write': Error using spm_vol (line 1): File too small: "
    )


def test_what_an_earlier_attempt_left_is_no_result(
    images: list[Path], run: Callable[[Workflow], dict[str, Any]]
) -> None:
    run(hpcpipe.spm.smooth(images))
    write_image(images[0], cut=100)
    with pytest.raises(CommandFailed):
        run(hpcpipe.spm.smooth(images))
    assert not Path("sSAD01.nii").exists()


FAILED = """\
Running job #1
Failed  'Segment'
Error using spm_preproc_run (line 5)
Not enough memory
In file "spm_preproc_run.m" (v1), function "x" at line 5.
"""


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("Running job #1\nDone\n", ""),
        (FAILED, "Failed 'Segment': Error using spm_preproc_run (line 5): Not enough memory"),
        ("MATLAB code threw an exception:\nSPM not in matlab path\n", "SPM not in matlab path"),
        ("License checkout failed.\nLicense Manager Error -4\n", "License checkout failed."),
        ("error: 'spm_jobman' undefined\n", "error: 'spm_jobman' undefined"),
    ],
)
def test_spms_own_words_are_found(output: str, words: str) -> None:
    assert told_by(output) == words


@pytest.mark.parametrize(
    ("environment", "engine"),
    [
        ({"HPCPIPE_SPM": "octave '/opt/spm 12'"}, Engine(OCTAVE, "/opt/spm 12")),
        ({"HPCPIPE_SPM": "matlab /opt/spm12"}, Engine("matlab -nodesktop -nosplash", "/opt/spm12")),
        ({"HPCPIPE_SPM": "matlab"}, Engine("matlab -nodesktop -nosplash")),
        (
            {"HPCPIPE_SPM": "standalone /s/run_spm12.sh /mcr"},
            Engine("/s/run_spm12.sh /mcr script", standalone=True),
        ),
        (
            {"FORCE_SPMMCR": "1", "SPMMCRCMD": "run.sh /mcr script"},
            Engine("run.sh /mcr script", standalone=True),
        ),
        ({"MATLABCMD": "mat", "SPM_PATH": "/opt/spm12"}, Engine("mat", "/opt/spm12")),
    ],
)
def test_the_site_says_what_runs_spm(environment: dict[str, str], engine: Engine) -> None:
    assert find_engine(environment) == engine


@pytest.mark.parametrize("said", ["", "octave", "scilab /opt/spm12", "standalone"])
def test_without_an_engine_it_is_told_what_to_write(said: str) -> None:
    with pytest.raises(CommandFailed, match=r"export HPCPIPE_SPM='octave /opt/spm12'"):
        find_engine({"HPCPIPE_SPM": said, "PATH": "/nowhere"})


def test_the_version_is_read_without_a_start(tmp_path: Path) -> None:
    assert Engine("matlab", str(STAND_IN)).version == ("SPM12", "7771")
    assert Engine("run.sh", standalone=True).version == ("SPM12", "7771")
    with pytest.raises(CommandFailed, match=r"no SPM in .*: No such file or directory"):
        Engine("matlab", str(tmp_path)).version  # noqa: B018


def test_matlabs_words_become_octaves() -> None:
    words = octave_words(["-nodesktop", "-nosplash", "-singleCompThread", "-r", "x = 1; exit"])
    assert words[0] == "octave-cli"
    assert words[-1].endswith("x = 1; exit")
    with pytest.raises(ValueError, match="no -r CODE in: -nodesktop"):
        octave_words(["-nodesktop"])


def test_what_spm_cannot_do_is_told_when_it_is_written(images: list[Path]) -> None:
    with pytest.raises(WorkflowError, match=r"source: SPM cannot read SAD01.nii.gz, .*Gunzip"):
        hpcpipe.spm.normalize(["SAD01.nii.gz"], "T2.nii")
    with pytest.raises(WorkflowError, match=r"smooth: no input 'fwmh'; did you mean fwhm\?"):
        hpcpipe.spm.smooth(images, fwmh=8)


def test_resources_and_axes_are_given_as_everywhere(images: list[Path], tmp_path: Path) -> None:
    wf = hpcpipe.spm.smooth(
        images, each([4.0, 8.0], axis="fwhm"), memory="2G", base_dir=tmp_path, name="study"
    )
    assert (wf.folder, [axis.name for axis in wf.nodes["smooth"].axes]) == (
        tmp_path / "study",
        ["subject", "fwhm"],
    )
    assert wf.nodes["smooth"].resources.memory == 2048
    pairs = hpcpipe.spm.coregister(images, target=images[::-1]).nodes["coregister"]
    assert pairs.size == 2
