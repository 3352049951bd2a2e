# mypy: disable-error-code="empty-body"
"""Which annotations name files, and what text in an argument becomes by them."""

from __future__ import annotations

import os
import pathlib as pl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path, PurePath
from pathlib import Path as P
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, NewType, Optional, TypedDict

import pytest

from hpcpipe.graph.hints import as_files, each_path, hint_of, may_be_text, names_file

if TYPE_CHECKING:
    from decimal import Decimal

Image = NewType("Image", Path)


@dataclass
class Made:
    image: P
    width: int = 3


class Typed(TypedDict):
    image: Path


class Pair(NamedTuple):
    t1: Path
    name: str


@dataclass
class Looped:
    below: Optional[Looped] = None  # noqa: UP045


def path() -> Path: ...
def alias() -> P: ...
def module() -> pl.Path: ...
def text() -> "Path": ...  # noqa: UP037
def optional() -> Optional[Path]: ...  # noqa: UP045
def union() -> Path | None: ...
def lists() -> list[Path]: ...
def pair() -> tuple[Path, int]: ...
def many() -> tuple[Path, ...]: ...
def mapping() -> dict[str, list[Path]]: ...
def abstract() -> Mapping[str, Sequence[os.PathLike[str]]]: ...
def annotated() -> Annotated[Path, "an image"]: ...
def made() -> Made: ...
def typed() -> list[Typed]: ...
def named() -> Pair: ...
def new() -> Image: ...
def unresolved() -> dict[Path, Decimal]: ...
def unknown() -> dict[Absent, Path]: ...  # type: ignore[name-defined]  # noqa: F821
@wraps(path)
def wrapped(*args: Any) -> Any: ...


class Called:
    def __call__(self, source: Path) -> Path: ...

    def method(self) -> Path: ...


FILES: list[Any] = [
    path,
    alias,
    module,
    text,
    optional,
    union,
    lists,
    pair,
    many,
    mapping,
    abstract,
]
FILES += [annotated, made, typed, named, new, unresolved, unknown, wrapped]
FILES += [partial(path), partial(partial(path)), Called(), Called().method, Made]


@pytest.mark.parametrize("function", FILES, ids=str)
def test_a_function_makes_files_if_its_hint_has_a_path_in_it(function: Any) -> None:
    assert names_file(hint_of(function, "return"))


def number() -> int: ...
def strings() -> list[str]: ...
def looped() -> Looped: ...
def bare(): ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize("function", [number, strings, looped, bare, len, partial(bare), Looped])
def test_other_functions_make_none(function: Any) -> None:
    assert not names_file(hint_of(function, "return"))


@pytest.mark.parametrize(
    ("hint", "value", "read"),
    [
        (Path, "a", Path("a")),
        (Path | None, "a", Path("a")),
        (Path | None, None, None),
        (Image, "a", Path("a")),
        (PurePath, "a", Path("a")),
        (os.PathLike, "a", Path("a")),
        (os.PathLike[str] | None, "a", Path("a")),
        (str, "a", "a"),
        (Any, "a", "a"),
        (str | Path, "a", "a"),
        (list[Path], ["a", Path("b")], [Path("a"), Path("b")]),
        (list[Path] | None, ["a"], [Path("a")]),
        (Sequence[Path], ("a",), (Path("a"),)),
        (tuple[Path, ...], ("a", "b"), (Path("a"), Path("b"))),
        (tuple[str, Path], ("a", "b"), ("a", Path("b"))),
        (dict[str, Path], {"k": "a"}, {"k": Path("a")}),
        (dict[str, list[Path]], {"k": ["a"]}, {"k": [Path("a")]}),
        (Made, Made("a"), Made(Path("a"))),  # type: ignore[arg-type]
        (Typed, {"image": "a"}, {"image": Path("a")}),
    ],
)
def test_text_for_a_path_becomes_one(hint: Any, value: Any, read: Any) -> None:
    assert as_files(value, hint) == read


def test_text_that_may_be_a_path_or_not_is_left_for_the_key_to_look_at() -> None:
    assert may_be_text(str | Path)
    assert may_be_text(str | os.PathLike[str] | None)
    assert not any(map(may_be_text, (str, Path, Path | None, list[Path], int | str)))


def test_paths_are_changed_wherever_they_are_and_nothing_else_is_copied() -> None:
    deep = {"k": (Pair(Path("a"), "n"), [Made(Path("b"))], {Path("c")})}
    assert each_path(deep, lambda one: "/" / one) == {
        "k": (Pair(Path("/a"), "n"), [Made(Path("/b"))], {Path("/c")})
    }
    for plain in ([1, 2], {"a": [1]}, Made(3), Looped()):  # type: ignore[arg-type]
        assert each_path(plain, lambda one: "/" / one) is plain
