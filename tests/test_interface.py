"""nipype's interfaces as nodes: what is checked when they are added, and what their keys see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nipype.algorithms.misc import Gunzip
from nipype.interfaces import freesurfer, fsl, spm
from nipype.interfaces.utility import Function, Merge

from hpcpipe import Workflow, each, task
from hpcpipe.errors import WorkflowError
from hpcpipe.keys.plan import make_plan
from hpcpipe.nipype.resources import software_of

BET = fsl.BET


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "SAD01.nii"
    file.write_bytes(b"image")
    return file


def key(tmp_path: Path, interface: Any, **inputs: Any) -> str:
    wf = Workflow("study", tmp_path)
    wf.add(interface, name="node", **inputs)
    return make_plan(wf).nodes["node"].key(0)


def test_an_interface_is_a_node_with_the_axes_of_its_inputs(image: Path, tmp_path: Path) -> None:
    wf = Workflow("study", tmp_path)
    node = wf.add(BET(frac=0.5), in_file=each([str(image)], axis="subject"))
    smooth = wf.add(fsl.IsotropicSmooth(), in_file=node["out_file"], fwhm=each([4.0, 6.0]))
    assert node.name == "bet"
    assert [axis.name for axis in smooth.axes] == ["subject", "fwhm"]
    assert smooth.folder
    assert smooth.resources.software == ("fsl",)
    own = wf.add(task(software=[])(BET()), name="own", in_file=str(image))
    assert own.resources.software == ()


def test_a_key_depends_on_settings_and_the_content_of_files_and_nothing_else(
    image: Path, tmp_path: Path
) -> None:
    before = key(tmp_path, BET(frac=0.5), in_file=str(image))
    assert key(tmp_path, BET(frac=0.5), in_file=image) == before
    assert key(tmp_path, BET(frac=0.5, in_file=str(image))) != ""  # set before: still read
    assert key(tmp_path, BET(frac=0.6), in_file=image) != before
    image.write_bytes(b"other")
    assert key(tmp_path, BET(frac=0.5), in_file=image) != before
    assert key(tmp_path, Merge(2), in1=1, in2=2) != key(tmp_path, Merge(3), in1=1, in2=2)


def test_what_is_wrong_with_inputs_and_outputs_is_told_when_they_are_written(
    image: Path, tmp_path: Path
) -> None:
    wf = Workflow("study", tmp_path)
    with pytest.raises(WorkflowError, match=r"bet: no input 'in_fil'; did you mean in_file\?"):
        wf.add(BET(), in_fil=str(image))
    with pytest.raises(WorkflowError, match=r"bet: input 'in_file' is missing; write in_file=…"):
        wf.add(BET(frac=0.5))
    node = wf.add(BET(), in_file=str(image))
    with pytest.raises(WorkflowError, match=r"bet: no output 'outfile'; did you mean out_file\?"):
        node["outfile"]
    with pytest.raises(WorkflowError, match=r"bet: a node of this name exists already"):
        wf.add(BET(), in_file=str(image))


def double(x: int) -> int:
    return 2 * x


def test_resources_come_from_the_interface_and_from_task(image: Path, tmp_path: Path) -> None:
    wf = Workflow("study", tmp_path)
    recon = freesurfer.ReconAll(subject_id="SAD01", openmp=4)
    assert wf.add(task(memory="8G", cpus=4)(recon), T1_files=[image]).resources.memory == 8192
    function = Function(["x"], ["y"], double)
    assert wf.add(function, name="double", x=each([1, 2]))["y"].node.size == 2


@pytest.mark.parametrize(
    ("interface", "software"),
    [
        (spm.Smooth, "spm"),
        (fsl.BET, "fsl"),
        (freesurfer.ReconAll, "freesurfer"),
        (Gunzip, None),
    ],
)
def test_the_software_is_that_of_the_interfaces_module(interface: Any, software: str) -> None:
    assert software_of(interface()) == software
