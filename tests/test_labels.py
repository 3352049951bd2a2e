import re
from collections import Counter
from fractions import Fraction
from pathlib import Path, PurePosixPath
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcpipe.graph.labels import (
    MAX_BYTES,
    check_label,
    folders_for,
    label_of,
    label_of_line,
    labels_for,
    labels_for_rows,
    stem,
)

VALUES = st.text() | st.integers() | st.floats() | st.none() | st.tuples(st.text(), st.text())


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("T1/SAD07.nii", "SAD07"),
        ("SAD07.nii.gz", "SAD07"),
        ("SAD\n07.NII", "SAD_07"),
        ("v1.2.gz", "v1.2"),
        (PurePosixPath("/data/sub-01_ses-2.tar.gz"), "sub-01_ses-2"),
        ("lh.white.gii", "lh.white"),
        ("ds/sub-01/", "sub-01"),
        ("SAD07", "SAD07"),
        ("0.5", "0.5"),
        ("1.5mm", "1.5mm"),
        (4, "4"),
        (0.5, "0.5"),
        (1e-05, "1e-05"),
        (-4, "_4"),
        (Fraction(1, 2), "1_2"),
        (("S1", "rest.nii", 2), "S1_rest_2"),
        ("a b\n$(id)'\"", "a_b___id___"),
        ("-rf", "_rf"),
        (".hidden", "_hidden"),
        ("=ls", "_ls"),
        ("Zoë", "Zoë"),
        ("Zoe\u0308", "Zoë"),
        ("\udcff", "_"),
        ("x" * 300, "x" * MAX_BYTES),
        ("é" * 300, "é" * (MAX_BYTES // 2)),
    ],
)
def test_a_value_is_labelled_by_what_a_person_would_call_it(value: object, label: str) -> None:
    assert labels_for([value]) == (label,)


PATHS = {
    "SAD01/T1.nii": "SAD01",
    "data/SAD01/anat/T1w.nii.gz": "SAD01",
    "/data/ds/sub-01/anat/T1w.nii.gz": "sub-01",
    "ds/sub-01/ses-pre/func/bold.nii": "sub-01_ses-pre",
    "sub-01/func/run-2.nii": "sub-01_run-2",
    "ds/sub-01/anat/sub-01_T1w.nii.gz": "sub-01_T1w",
    "ds/sub-01/anat/mprage2.nii": "sub-01_mprage2",
    "data/T1.nii": "T1",
    "../S1/scan1.nii": "S1_scan1",
    "raw/left.nii": "left",
}


@pytest.mark.parametrize(("path", "label"), PATHS.items())
def test_a_path_is_labelled_by_what_names_the_subject(path: str, label: str) -> None:
    assert label_of(path) == label_of(PurePosixPath(path)) == label


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ({"fwhm": 4, "age": 20}, "age=20_fwhm=4"),
        ({"fwhm": 4, "at": object}, "at=object_fwhm=4"),
        (["S1/T1.nii", "S1/T2.nii"], "S1"),
        ((1, 2, 3, 4, 5), "1_2_3_4"),
        (None, "None"),
        (stem, "stem"),
        (re.I, "IGNORECASE"),
    ],
)
def test_values_of_every_kind_have_a_label_of_their_own(value: object, label: str) -> None:
    assert label_of(value) == label


@pytest.mark.parametrize(
    ("line", "label"),
    [
        ("echo 1", "echo_1"),
        ("bet T1/SAD01.nii b.nii", "bet_T1_SAD01.nii_b.nii"),
        ("FREQ=3 prog --in data/T1/SAD01.nii --out o", "T1_SAD01.nii_--out_o-"),
    ],
)
def test_a_command_line_is_labelled_by_itself_or_its_end(line: str, label: str) -> None:
    assert label_of_line(line).startswith(label)
    check_label(label_of_line(line))


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["a/x.nii", "b/x.nii", "c/y.nii"], ("a_x", "b_x", "y")),
        (["a/x.nii", "a/x.img"], ("a_x.nii", "a_x.img")),
        (["x", "x", "x-2"], ("x", "x-3", "x-2")),  # equal ones, and one that is called so
        (["S1/T1.nii", "S1/T2.nii", "S2/T1.nii"], ("S1_T1", "S1_T2", "S2")),
    ],
)
def test_values_that_share_a_label_are_spelled_out(
    values: list[str], labels: tuple[str, ...]
) -> None:
    assert labels_for(values) == labels


@pytest.mark.parametrize("values", [["T1", "t1"], ["x" * 80, "x" * 91], [1, "1"], [{1: 2}, {1: 3}]])
def test_a_digest_distinguishes_what_cannot_be_spelled_out(values: list[object]) -> None:
    labels = labels_for(values)
    assert len({label.casefold() for label in labels}) == 2
    assert labels_for(values[::-1]) == labels[::-1]


PARTS = st.sampled_from(["ab", "S1", "T1"])
THINGS = st.one_of(
    VALUES,
    st.builds(lambda folder, name: f"{folder}/{name}.nii", PARTS, PARTS),
    st.dictionaries(st.sampled_from("ab"), st.integers() | st.booleans() | st.binary()),
)


@given(st.lists(THINGS, max_size=12, unique_by=repr), st.randoms())
def test_a_folders_name_depends_on_its_value_alone(values: list[object], random: Random) -> None:
    alone = {repr(value): folders_for([value])[0] for value in values}
    random.shuffle(values)
    named = folders_for(values)
    folded = Counter(alone[repr(value)].casefold() for value in values)
    for value, name in zip(values, named, strict=True):
        if folded[alone[repr(value)].casefold()] == 1:  # not "A" beside "a"
            assert name == alone[repr(value)]


@given(st.lists(VALUES, max_size=30))
def test_labels_of_anything_are_safe_and_unique(values: list[object]) -> None:
    labels = labels_for(values)
    assert len({label.casefold() for label in labels}) == len(values)
    for label in labels:
        check_label(label)


@pytest.mark.parametrize(
    ("columns", "rows", "labels"),
    [
        (("id", "age"), [("S1", "20"), ("S2", "20")], ("S1", "S2")),
        (("id", "session"), [("S1", "pre"), ("S2", "pre")], ("S1_pre", "S2_pre")),
        (("id", "site"), [("S1", "a"), ("S1", "b"), ("S2", "a")], ("S1_a", "S1_b", "S2")),
        (("", ""), [("S1", "rest"), ("S1", "rest")], ("S1", "S1-2")),
        ((), [], ()),
    ],
)
def test_rows_are_labelled_by_subject_and_session(
    columns: tuple[str, ...], rows: list[tuple[str, ...]], labels: tuple[str, ...]
) -> None:
    assert labels_for_rows(rows, columns) == labels


@pytest.mark.parametrize(
    ("label", "named"),
    [
        ("", "empty"),
        ("a b", "' '"),
        ("a/b", "'/'"),
        ("a\n", r"'\\n'"),
        ("$x", r"'\$'"),
        ("-x", "starts with '-'"),
        ("..", r"starts with '\.'"),
        ("=ls", "starts with '='"),
        ("x" * 81, "81 bytes"),
    ],
)
def test_an_unsafe_label_is_refused_naming_what_is_wrong(label: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        check_label(label)


def test_folders_keep_their_names_where_a_study_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for root in ("/home/ada/study", "/scratch/study"):
        monkeypatch.setattr("hpcpipe.graph.labels.user_folder", lambda root=root: root)
        moved = [Path(root, "T1/SAD01.nii"), (Path(root, "a.nii"), 4), "/data/SAD02.nii"]
        found.append(folders_for(moved))
    assert found[0] == found[1]
