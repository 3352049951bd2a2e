"""BIDS in: subjects and images of a data set as axes, by the names of its folders and files."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from hpcpipe import Workflow, each
from hpcpipe.errors import WorkflowError
from hpcpipe.frontends.map import first_and_last, map_workflow


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Three subjects with anatomies and runs; the last of them missed the second session."""
    root = tmp_path / "study"
    root.mkdir()
    (root / "dataset_description.json").write_text('{"Name": "study", "BIDSVersion": "1.8.0"}')
    for subject in ("01", "02", "SAD07"):
        for session in ("pre", "post") if subject != "SAD07" else ("pre",):
            start = f"sub-{subject}_ses-{session}"
            for file in (
                "anat/{}_T1w.nii.gz", "anat/{}_T1w.json", "func/{}_task-nback_bold.nii.gz",
                "func/{}_task-rest_run-1_bold.nii", "func/{}_task-rest_run-2_bold.nii",
            ):  # fmt: skip
                path = root / f"sub-{subject}" / f"ses-{session}" / file.format(start)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    return root


PRE = {"session": "pre"}


@pytest.mark.parametrize(
    ("query", "labels"),
    [
        ({}, "01 02 SAD07"),
        ({"suffix": "T1w"}, "01_post 01_pre 02_post 02_pre SAD07_pre"),
        ({"suffix": "T1w", "session": "ses-pre"}, "01 02 SAD07"),
        ({"suffix": "T1w", "subject": ["02", "sub-SAD07"]}, "02_post 02_pre SAD07_pre"),
        ({"suffix": "bold", "subject": "01", **PRE}, "01_nback 01_rest_1 01_rest_2"),
        ({"suffix": "bold", "task": "rest", "run": 2, **PRE}, "01 02 SAD07"),
        ({"suffix": "bold", "per": "subject"}, "01 02 SAD07"),
        ({"suffix": "bold", "per": "session", "subject": "01"}, "01_post 01_pre"),
        ({"suffix": "bold", "per": "session", **PRE}, "01 02 SAD07"),
        ({"suffix": "bold", "per": "task", "subject": "SAD07"}, "SAD07_pre_nback SAD07_pre_rest"),
    ],
)  # fmt: skip
def test_a_task_is_named_by_what_tells_its_image_from_others(
    dataset: Path, query: dict[str, Any], labels: str
) -> None:
    mapped = each.bids(dataset, **query)
    assert mapped.axis is not None
    assert mapped.axis.name == "subject"
    assert " ".join(mapped.axis.labels) == labels


def test_values_are_the_images_or_lists_of_them(dataset: Path) -> None:
    [image, *_] = each.bids(dataset, "T1w", session="pre").values
    assert image == dataset / "sub-01/ses-pre/anat/sub-01_ses-pre_T1w.nii.gz"
    *_, runs = each.bids(dataset, "bold", per="subject").values
    assert [run.name.removeprefix("sub-SAD07_ses-pre_") for run in runs] == [
        "task-nback_bold.nii.gz", "task-rest_run-1_bold.nii", "task-rest_run-2_bold.nii",
    ]  # fmt: skip


def test_images_of_two_kinds_go_along_the_same_subjects(dataset: Path) -> None:
    wf = Workflow("study")

    def coregister(t1: Path, bold: Path) -> None: ...

    node = wf.add(
        coregister,
        t1=each.bids(dataset, "T1w", session="pre"),
        bold=each.bids(dataset, "bold", session="pre", task="nback"),
    )
    assert [axis.name for axis in node.axes] == ["subject"]
    assert node.size == 3


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"suffix": "t1w"}, r"no image 't1w'; did you mean T1w\?"),
        ({"suffix": "T1w", "subject": "03"}, r"no image 'T1w' with subject=03"),
        ({"suffix": "T1w", "subject": ["01", "SAD7"]}, r"subject=SAD7; did you mean SAD07\?"),
        ({"suffix": "T1w", "session": ["pre", "mid"]}, r"no image 'T1w' with session=mid"),
        ({"suffix": "bold", "taks": "rest"}, r"no entity 'taks'; did you mean task\?"),
        ({"suffix": "bold", "per": "subjects"}, r"per='subjects'; did you mean subject\?"),
        ({"task": "rest"}, r"give suffix="),
    ],
)
def test_a_query_that_finds_nothing_says_what_there_is(
    dataset: Path, query: dict[str, Any], words: str
) -> None:
    with pytest.raises(WorkflowError, match=words):
        each.bids(dataset, **query)


def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkflowError, match=r"has no folder sub-…"):
        each.bids(tmp_path)
    with pytest.raises(WorkflowError, match=r"study: No such file or directory"):
        each.bids(tmp_path / "study", "T1w")


def test_without_ancpbids_only_the_folders_can_be_asked(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("ancpbids"):
            raise ImportError(name)
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert len(each.bids(dataset, "bold", subject="01").values) == 6
    with pytest.raises(WorkflowError, match=r"task: needs ancpbids; pip install 'hpcpipe\[bids\]'"):
        each.bids(dataset, "bold", task="rest")


def test_map_runs_a_command_over_the_subjects_or_their_sessions(dataset: Path) -> None:
    words = ["bids-app", str(dataset), "out", "participant", "--participant-label", "{subject}"]
    texts: dict[str, str] = {}
    workflow = map_workflow(words, bids=str(dataset), texts=texts)
    [first, last] = first_and_last(workflow)
    assert (first[-1], last[-1]) == ("01", "SAD07")
    assert workflow.nodes["bids-app"].axes[0].labels == ("01", "02", "SAD07")
    (dataset / "sub-99").mkdir()  # after the submission: a retry means the same subjects
    assert map_workflow(words, bids=str(dataset), texts=texts).nodes["bids-app"].size == 3
    with pytest.raises(
        WorkflowError, match=r"sub-99: has no folder ses-…, so it has no .session.;"
    ):
        map_workflow(["app", "--session-id", "{session}"], bids=str(dataset))
    (dataset / "sub-99").rmdir()
    by_session = map_workflow(["echo", "{subject}", "{session}"], bids=str(dataset))
    assert by_session.nodes["echo"].axes[0].labels[:2] == ("01_post", "01_pre")
    with pytest.raises(WorkflowError, match=r"\{subjct\} refers to no input.*subject\?"):
        map_workflow(["echo", "{subjct}"], bids=str(dataset))
