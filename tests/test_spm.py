"""SPM: the batches of nipype's interfaces, read by a stand-in for SPM that real GNU Octave runs.

The stand-in, ``tests/spm``, checks a batch's shape and its files as SPM would, and writes the files
that SPM would, but computes nothing.
"""

from __future__ import annotations

import gzip
import os
import shlex
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from contract.harness import PATIENCE, Cluster

import hpcpipe.cli
import hpcpipe.spm
from hpcpipe import each
from hpcpipe.errors import WorkflowError
from hpcpipe.graph.command import CommandFailed
from hpcpipe.graph.workflow import Workflow
from hpcpipe.keys.plan import freeze
from hpcpipe.nipype.octave import octave_words
from hpcpipe.nipype.spmcall import Engine, engine_of, find_engine, told_by
from hpcpipe.probes.node_check import look_around

STAND_IN = Path(__file__).with_name("spm")
OCTAVE = f"{shlex.quote(sys.executable)} -m hpcpipe.nipype.octave"


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


@pytest.mark.parametrize(
    ("call", "job"),
    [
        (hpcpipe.spm.normalize, "Old Normalise: Estimate & Write"),
        (lambda images, _: hpcpipe.spm.smooth(images), "Smooth"),  # leaves an image of 348 bytes
        (partial(hpcpipe.spm.coregister, jobtype="estimate"), "Coregister: Estimate"),
    ],
)
def test_spm_that_fails_is_quoted(
    call: Callable[..., Workflow],
    job: str,
    images: list[Path],
    run: Callable[[Workflow], dict[str, Any]],
) -> None:
    write_image(images[0], cut=100)
    with pytest.raises(CommandFailed) as failed:
        run(call(images, images[1]))
    assert failed.value.words == f"Failed '{job}': spm_vol: File too small."
    assert not list(Path.cwd().glob(".hpcpipe-spm-*"))


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("echo no MEX files; exit 7", "SPM: exit 7: no MEX files"),
        ("echo gone; kill -9 $$", "SPM: exit 137: Killed"),
    ],
)
def test_spm_that_exits_with_another_code_than_0_has_failed(
    end: str,
    words: str,
    images: list[Path],
    tmp_path: Path,
    run: Callable[[Workflow], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "octave-cli").write_text(f"#!/bin/sh\ncp SAD01.nii sSAD01.nii\n{end}\n")
    (tmp_path / "octave-cli").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(CommandFailed) as failed:
        run(hpcpipe.spm.smooth(images))
    assert failed.value.words == words


def test_what_an_earlier_attempt_left_is_no_result(
    images: list[Path], run: Callable[[Workflow], dict[str, Any]]
) -> None:
    run(hpcpipe.spm.normalize(images, images[1]))
    write_image(images[0], cut=100)
    with pytest.raises(CommandFailed):
        run(hpcpipe.spm.normalize(images, images[1]))
    assert not Path("wSAD01.nii").exists()


FAILED = """\
28-Nov-2026 22:32:40 - Running job #1
28-Nov-2026 22:32:40 - Failed  'Smooth'
spm_conv_vol: File too small.
In file "/opt/spm12/spm_smooth.m" (v4419), function "spm_smooth>smooth1" at line 107.

The following modules did not run:
Failed: Smooth

fatal: caught signal Segmentation fault -- stopping myself...
"""
FAILED_IN_MATLAB = """\
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
        (FAILED, "Failed 'Smooth': spm_conv_vol: File too small."),
        (
            FAILED_IN_MATLAB,
            "Failed 'Segment': Error using spm_preproc_run (line 5): Not enough memory",
        ),
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


def test_the_matlab_that_a_workflow_sets_counts_before_the_sites(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from nipype.interfaces import spm
    from nipype.interfaces.matlab import MatlabCommand

    monkeypatch.setenv("HPCPIPE_SPM", "octave /opt/spm12")
    monkeypatch.setattr(MatlabCommand, "_default_paths", [str(STAND_IN)])
    assert engine_of(spm.Smooth()) == Engine(OCTAVE, "/opt/spm12")
    assert engine_of(spm.Smooth(matlab_cmd="mat8")) == Engine("mat8", str(STAND_IN))
    monkeypatch.setattr(MatlabCommand, "_default_matlab_cmd", "mat9")
    assert engine_of(spm.Smooth()) == Engine("mat9", str(STAND_IN))


@pytest.mark.parametrize("said", ["", "octave", "scilab /opt/spm12", "standalone"])
def test_without_an_engine_it_is_told_what_to_write(said: str) -> None:
    with pytest.raises(CommandFailed, match=r"export HPCPIPE_SPM='octave /opt/spm12'"):
        find_engine({"HPCPIPE_SPM": said, "PATH": "/nowhere"})


@pytest.mark.parametrize(
    ("engine", "mex", "fails", "found"),
    [
        ("octave {spm}", "spm_vol.mex", False, "SPM12 7771, run by octave-cli"),
        ("matlab {spm}", "spm_vol.mexa64", False, "SPM12 7771, run by matlab"),
        ("standalone run_spm.sh {spm}", "", False, "standalone SPM: run_spm.sh, MATLAB Runtime: "),
        ("octave {spm}", "spm_vol.mexa64", True, "SPM12 is not compiled for Octave: no MEX files"),
        ("octave {spm}/nowhere", "", True, "no SPM in"),
        ("standalone run_spm.sh /nowhere", "", True, "/nowhere: no MATLAB Runtime: no such folder"),
        ("standalone run_spm25.sh {spm}", "", True, "run_spm25.sh: not found, or not executable"),
    ],
)
def test_the_doctor_looks_into_the_spm_that_a_site_names(
    engine: str, mex: str, fails: bool, found: str, tmp_path: Path
) -> None:
    spm, bin_ = tmp_path / "spm", tmp_path / "bin"
    shutil.copytree(STAND_IN, spm)
    bin_.mkdir()
    for program in ("octave-cli", "matlab", "run_spm.sh"):
        (bin_ / program).write_text("#!/bin/sh\n")
        (bin_ / program).chmod(0o755)
    if mex:
        (spm / mex).touch()
    export = f"export PATH={bin_}:$PATH HPCPIPE_SPM='{engine.format(spm=spm)}'"
    said = look_around(0, str(tmp_path), (), {"spm": export, "sh": "true"})
    status, words = said["software"]["spm"]
    assert found in words
    assert bool(status) is fails
    assert said["software"]["sh"] == (0, "")


def test_the_version_is_read_without_a_start(tmp_path: Path) -> None:
    assert Engine("matlab", str(STAND_IN)).version == ("SPM12", "7771")
    assert Engine("run.sh", standalone=True).version == ("SPM12", "7771")
    with pytest.raises(CommandFailed, match=r"no SPM in .*: No such file or directory"):
        Engine("matlab", str(tmp_path)).version  # noqa: B018


@pytest.mark.parametrize(("cut", "fails"), [(0, False), (100, True)])
def test_a_batch_of_the_users_own_runs_and_fails(
    cut: int, fails: bool, octave: str, tmp_path: Path
) -> None:
    image = write_image(tmp_path / "SAD01.nii", cut)
    (tmp_path / "job.m").write_text(
        f"matlabbatch{{1}}.spm.spatial.smooth.data = {{'{image},1'}};\n"
        "matlabbatch{1}.spm.spatial.smooth.fwhm = [8 8 8];\n"
        "matlabbatch{1}.spm.spatial.smooth.prefix = 's';\n"
    )
    code = f"run('{tmp_path}/job.m'); spm_jobman('run', matlabbatch)"
    ran = subprocess.run(
        [sys.executable, "-m", "hpcpipe.nipype.octave", "-batch", code],
        env={
            **os.environ,
            "HPCPIPE_SPM": f"octave {STAND_IN}",
            "PATH": f"{Path(octave).parent}:{os.environ['PATH']}",
        },
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert bool(ran.returncode) is fails, ran.stderr
    assert ("Failed  'Smooth'" in ran.stdout) is fails


def test_matlabs_words_become_octaves() -> None:
    words = octave_words(["-nodesktop", "-nosplash", "-singleCompThread", "-r", "x = 1; exit"])
    assert words[0] == "octave-cli"
    assert words[-1].endswith("x = 1; exit")
    with pytest.raises(ValueError, match="no -r CODE in: -nodesktop"):
        octave_words(["-nodesktop"])


def test_what_spm_cannot_do_is_told_when_it_is_written(images: list[Path]) -> None:
    with pytest.raises(WorkflowError, match=r"smooth: no input 'fwmh'; did you mean fwhm\?"):
        hpcpipe.spm.smooth(images, fwmh=8)
    for files, base_dir in (([*images, Path("Ada's.nii")], "."), (images, "Ada's")):
        with pytest.raises(WorkflowError, match=r"SPM cannot be given .*Ada's"):
            hpcpipe.spm.smooth(files, base_dir=base_dir)


def test_a_nipype_workflow_that_spm_cannot_be_given_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        write_image(tmp_path / f"SAD0{number}.nii")
    (tmp_path / "study.py").write_text(STUDY.replace('"work"', '"Ada\'s"') + "wf.run()\n")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(hpcpipe.cli.hpcpipe, ["plan", "--site", "local", "study.py"])
    assert isinstance(done.exception, WorkflowError) or "SPM cannot be given" in done.output


def test_compressed_images_are_unpacked_on_the_node(
    images: list[Path], tmp_path: Path, run: Callable[[Workflow], dict[str, Any]]
) -> None:
    (tmp_path / "T2").mkdir()
    packed = []
    for image in (images[0], write_image(tmp_path / "T2/SAD01.nii")):  # of the same name
        packed.append(image.with_suffix(".nii.gz"))
        packed[-1].write_bytes(gzip.compress(image.read_bytes()))
        image.unlink()
    workflow = hpcpipe.spm.normalize(packed[:1], packed[1])
    assert workflow.nodes["normalize"].axes[0].labels == ("SAD01",)
    assert made(run(workflow)) == {"wSAD01.nii", "SAD01_sn.mat"}
    assert [len([*place.iterdir()]) for place in Path.cwd().glob("unpacked-*")] == [1]  # the T2
    whole = packed[0].read_bytes()
    packed[0].write_bytes(whole[:-9])
    with pytest.raises(CommandFailed, match=r"SAD01.nii.gz: cannot be unpacked: Compressed file"):
        run(hpcpipe.spm.smooth(packed[:1]))


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


def test_images_need_not_be_read_for_a_plan(images: list[Path], tmp_path: Path) -> None:
    before = images[0].stat()

    def key(files: str) -> str:
        workflow = hpcpipe.spm.smooth(images, base_dir=tmp_path, files=files)
        return freeze(workflow).nodes["smooth"].key(0)

    keys = {files: key(files) for files in ("content", "stat")}
    images[0].write_bytes(bytes(before.st_size))
    os.utime(images[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert key("stat") == keys["stat"]
    assert key("content") != keys["content"]


# An unmodified workflow of nipype: a node over subjects, and a MapNode whose lists a node makes.
STUDY = """
import os
import nipype.pipeline.engine as pe
from nipype.interfaces import spm
from nipype.interfaces.utility import Function

def listed(image):
    return [image]

wf = pe.Workflow("study", base_dir=os.path.abspath("work"))
smooth = pe.Node(spm.Smooth(fwhm=[4, 4, 4]), name="smooth")
smooth.iterables = [("in_files", [os.path.abspath(f"SAD0{n}.nii") for n in (1, 2)])]
lists = pe.Node(Function(function=listed, input_names=["image"], output_names=["images"]), "lists")
again = pe.MapNode(spm.Smooth(fwhm=[8, 8, 8]), iterfield=["in_files"], name="again")
wf.connect(smooth, "smoothed_files", lists, "image")
wf.connect(lists, "images", again, "in_files")
"""
RUN = """
from hpcpipe.nipype import Plugin
wf.run(plugin=Plugin(site="lab.toml"))
"""


def test_spm_in_an_unmodified_workflow(either: Cluster, octave: str) -> None:
    starts = either.home / "starts"
    (either.home / "bin").mkdir()
    spy = either.write("bin/octave-cli", f'#!/bin/sh\necho start >> {starts}\nexec {octave} "$@"\n')
    spy.chmod(0o755)
    either.write(
        "lab.toml",
        f"""
        extends = "{either.dialect.site}"
        [environment.variables]
        HPCPIPE_SPM = "octave {STAND_IN}"
        PATH = "{spy.parent}:{os.environ["PATH"]}"
        """,
    )
    user = replace(either, changed={"HPCPIPE_SITE": "./lab.toml", "NIPYPE_NO_ET": "1"})
    script = user.write("study.py", STUDY + RUN)
    for number in (1, 2):
        write_image(user.home / f"SAD0{number}.nii", cut=100 if number == 1 else 0)
    words = "Failed 'Smooth': spm_vol: File too small."
    ran = subprocess.run(
        [sys.executable, script], cwd=user.home, env=user.environment, text=True,
        capture_output=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-2:][0].endswith(f"SpmFailed: {words}"), ran.stderr
    [failure] = [one for one in user.status()["failures"] if one["state"] == "failed"]
    assert (failure["task"], failure["error"]) == ("smooth/SAD01", words)
    assert words in user.hpcpipe("explain", failure["task"]).stdout
    assert "Traceback" not in user.hpcpipe("logs", failure["task"]).stdout
    assert len(starts.read_text().split()) == 3  # one for each SPM that ran
    write_image(user.home / "SAD01.nii")
    user.hpcpipe("retry")
    assert user.finish()["verdict"] == "finished: all 6 tasks succeeded"
    assert len(starts.read_text().split()) == 5
