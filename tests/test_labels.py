from fractions import Fraction
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcpipe.labels import MAX_BYTES, check_label, labels_for, labels_for_rows

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


def test_a_value_without_a_name_is_labelled_by_its_place() -> None:
    assert labels_for([object(), "x", None, ("x", None)]) == ("1", "x", "3", "4")
    assert labels_for([""] * 10)[::9] == ("01", "10")


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["a/T1.nii", "b/T1.nii", "c/T1.nii"], ("T1", "T1-2", "T1-3")),
        (["x", "x", "x-2"], ("x", "x-3", "x-2")),  # who is called so keeps the name
        (["T1", "t1"], ("T1", "t1-2")),
        (["x" * 80, "x" * 91], ("x" * 80, "x" * 78 + "-2")),
        (
            ["x" * 80 + "y", "x" * 80] + ["x" * 79 + "y"] * 2,
            ("x" * 80, "x" * 78 + "-2", "x" * 79 + "y", "x" * 78 + "-3"),
        ),
    ],
)
def test_doubles_are_numbered(values: list[str], labels: tuple[str, ...]) -> None:
    assert labels_for(values) == labels


@given(st.lists(VALUES, max_size=30))
def test_labels_of_anything_are_safe_and_unique(values: list[object]) -> None:
    labels = labels_for(values)
    assert len({label.casefold() for label in labels}) == len(values)
    for label in labels:
        check_label(label)


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        ([("S1", "20"), ("S2", "20")], ("S1", "S2")),
        ([("S1", "rest"), ("S1", "task"), ("S2", "rest")], ("S1_rest", "S1_task", "S2_rest")),
        ([("S1", "rest"), ("S1", "rest")], ("S1", "S1-2")),
        ([], ()),
    ],
)
def test_rows_are_labelled_by_as_many_columns_as_tell_them_apart(
    rows: list[tuple[str, ...]], labels: tuple[str, ...]
) -> None:
    assert labels_for_rows(rows) == labels


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
