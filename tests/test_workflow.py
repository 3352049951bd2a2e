from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hpcpipe import Output, Workflow, each, task
from hpcpipe.errors import WorkflowError
from hpcpipe.graph.axes import folder_name, label
from hpcpipe.graph.each import Each
from hpcpipe.graph.node import Node
from hpcpipe.resources import Resources

FILES = ["T1/SAD01.nii", "T1/SAD02.nii", "T1/SAD03.nii"]


@task(cpus=2, memory="2G", time="30m")
def normalize(source: Any, template: Any = None) -> Path:
    return Path(source, template)


def smooth(image: Any, fwhm: int = 4) -> Any:
    return image, fwhm


def average(images: Any) -> Any:
    return images


def anything(**inputs: Any) -> Any:
    return inputs


def shape(node: Node) -> dict[str, int]:
    return {axis.name: len(axis) for axis in node.axes}


def labels(node: Node) -> list[str]:
    return [label(node.axes, index) for index in range(node.size)]


@pytest.fixture
def wf() -> Workflow:
    return Workflow("wf")


# --- axes ---------------------------------------------------------------------------------------


def test_axes_flow_downstream_until_they_are_gathered(wf: Workflow) -> None:
    warped = wf.add(normalize, source=each(FILES, axis="subject"), template="T2.nii")
    smoothed = wf.add(smooth, image=warped, fwhm=each([4, 8]))
    mean = wf.add(average, images=smoothed.gather("subject"))
    total = wf.add(average, name="total", images=smoothed.gather())
    again = wf.add(average, name="again", images=[mean, {"of": warped}])
    assert shape(warped) == {"subject": 3}
    assert shape(smoothed) == {"subject": 3, "fwhm": 2}
    assert shape(mean) == {"fwhm": 2}
    assert shape(total) == {}
    assert shape(again) == {"fwhm": 2, "subject": 3}
    assert labels(smoothed) == [f"SAD0{subject}/{fwhm}" for subject in (1, 2, 3) for fwhm in (4, 8)]
    assert (total.size, labels(total)) == (1, [""])
    assert re.fullmatch("subject-SAD02-[0-9a-f]{6}_fwhm-8", folder_name(smoothed.axes, 3))
    assert list(wf.graph.edges) == [
        ("normalize", "smooth"),
        ("normalize", "again"),
        ("smooth", "average"),
        ("smooth", "total"),
        ("average", "again"),
    ]


def test_the_same_axis_is_gone_along_together(wf: Workflow) -> None:
    first = wf.add(normalize, source=each(FILES, axis="subject"))
    second = wf.add(anything, a=first, b=each([1, 2, 3], axis="subject", labels=labels(first)))
    assert shape(second) == {"subject": 3}
    gathered_twice = wf.add(smooth, image=second.gather("subject"), fwhm=first.gather())
    assert shape(gathered_twice) == {}


def test_gathering_step_by_step_is_gathering_at_once(wf: Workflow) -> None:
    node = wf.add(anything, a=each([1, 2]), b=each(["x", "y"]), c=each([1, 2, 3]))
    stepwise = node.gather("c").gather("a")
    assert stepwise.gathered == node.gather("a", "c").gathered == ("a", "c")
    assert shape(wf.add(average, images=stepwise)) == {"b": 2}


def test_after_waits_and_brings_its_axes_but_no_value(wf: Workflow) -> None:
    first = wf.add(normalize, source=each(FILES, axis="subject"))
    same = wf.add(smooth, image=1, after=[first])
    whole = wf.add(average, images=2, after=[first.gather(), same["part"]])
    single = wf.add(average, name="single", images=2, after=first.gather())
    assert shape(same) == shape(whole) == {"subject": 3}
    assert shape(single) == {}
    assert [output.node for output in whole.upstreams] == [first, same]


def test_parts_are_taken_by_name_or_position(wf: Workflow) -> None:
    node = wf.add(anything, a=each([1, 2]))
    assert node["brain"].select == ("brain",)
    assert node[0]["brain"].gather().select == (0, "brain")
    with pytest.raises(TypeError, match=r"anything: take its parts by name or position"):
        _image, _mask = node
    with pytest.raises(TypeError, match=r"anything: take its parts by name or position"):
        _image, _mask = node["both"]


# --- each ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "values", "names"),
    [
        (each(FILES), FILES, ("SAD01", "SAD02", "SAD03")),
        (each(Path(file) for file in FILES), list(map(Path, FILES)), ("SAD01", "SAD02", "SAD03")),
        (each({"young": 1, "old": 2}), [1, 2], ("young", "old")),
        (each({4: "x"}), ["x"], ("4",)),
        (each({"a": 1, "b": 2}.values(), labels=["A", "B"]), [1, 2], ("A", "B")),
        (each(range(2)), [0, 1], ("0", "1")),
        (each(["a/T1.nii", "b/T1.nii"], labels=["a", "b"]), ["a/T1.nii", "b/T1.nii"], ("a", "b")),
    ],
)
def test_each_takes_values_and_labels_them(
    given: Each, values: list[object], names: tuple[str, ...]
) -> None:
    assert list(given.values) == values
    assert given.labels == names


def test_an_axis_is_named_after_the_argument_unless_it_is_named(wf: Workflow) -> None:
    node = wf.add(anything, a=each([1, 2]), b=each([1], axis="second"))
    assert shape(node) == {"a": 2, "second": 1}


def test_zip_lets_arguments_go_together(wf: Workflow) -> None:
    zipped = each.zip("subject", t1=FILES, age=iter([20, 30, 40]))
    node = wf.add(anything, **zipped, fwhm=each([4, 8]))
    assert shape(node) == {"subject": 3, "fwhm": 2}
    assert labels(node)[::2] == ["SAD01/4", "SAD02/4", "SAD03/4"]
    assert {name: list(one.values) for name, one in zipped.items()} == {
        "t1": FILES,
        "age": [20, 30, 40],
    }
    assert each.zip("subject", labels=["a"], t1=["T1.nii"])["t1"].labels == ("a",)


def test_zip_pairs_mappings_by_their_keys() -> None:
    zipped = each.zip("subject", age=[20, 30], t1={"S1": 1, "S2": 2}, t2={"S2": 4, "S1": 3})
    assert {one.labels for one in zipped.values()} == {("S1", "S2")}
    assert [list(one.values) for one in zipped.values()] == [[20, 30], [1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: each([]), r"each\(\[\]\): no values; does the glob match any file\?"),
        (lambda: each(iter(()), axis="run"), "no values for axis 'run'"),
        (lambda: each("SAD01.nii"), r"a string is one value; write each\(\['SAD01.nii'\]\)"),
        (lambda: each([1, 2], labels=["a"]), "2 values but 1 labels"),
        (lambda: each([1, 2], axis="x", labels=["a", "a"]), "axis 'x': label 'a' is repeated"),
        (lambda: each([1], axis="x", labels=["a b"]), "axis 'x': label 'a b' contains ' '"),
        (lambda: each({"../up": 1}), r"label '\.\./up' contains '/'"),
        (lambda: each([1], axis="a b"), "axis name 'a b': start with a letter, then letters"),
        (lambda: each.zip("s"), r"each.zip\('s'\): give one or more"),
        (lambda: each.zip("s", a=[1], b=[1, 2]), "same number of values: a has 1, b has 2"),
        (lambda: each.zip("s", a=[1, 2, 3], b="xyz"), "a string is one value"),
        (lambda: each.zip("s", a=[], b=[]), "no values for axis 's'"),
        (lambda: each.zip("s", a={"x": 1}, b={"y": 1}), "'x' is not in every mapping"),
        (lambda: task(cpu=1)(smooth), r"smooth: unknown resource 'cpu'; did you mean cpus\?"),
        (lambda: task(memory="lots")(smooth), "smooth: memory 'lots' is not an amount"),
        (lambda: Workflow("a b"), "workflow name 'a b': start with a letter"),
        (lambda: Workflow("../up"), "workflow name '../up'"),
        (lambda: Workflow("x", files="hash"), "files='hash': write 'content' or 'stat'"),
    ],
)
def test_a_mistake_before_add_is_told_at_once(call: Callable[[], Any], complaint: str) -> None:
    with pytest.raises(WorkflowError, match=complaint):
        call()


def test_resources_stay_with_the_function_which_stays_plain(wf: Workflow) -> None:
    assert normalize(source="a", template="b") == Path("a/b")
    node = wf.add(normalize, source="a")
    assert node.resources == Resources(cpus=2, memory=2048, time=1800)
    command = wf.command("true", resources={"memory": "1G"})
    assert command.resources == Resources(memory=1024)


def test_a_function_that_returns_a_path_has_a_folder_unless_told_otherwise(wf: Workflow) -> None:
    assert wf.add(normalize, source=1).folder
    assert not wf.add(smooth, image=1).folder
    assert wf.add(task(folder=True)(average), images=1).folder
    assert not wf.command("true").folder
    assert wf.command("cp a {copy}", outputs={"copy": "a"}).folder


# --- mistakes told at add -----------------------------------------------------------------------


class Place(NamedTuple):
    x: int
    y: int


async def later(x: int) -> int:
    return x


def generating(x: int) -> Iterator[int]:
    yield x


async def generating_later(x: int) -> AsyncIterator[int]:
    yield x


def greet(name: str) -> str:
    return name


def by_position(x: int, /) -> int:
    return x


def grüße(x: int) -> int:
    return x


def elsewhere() -> Node:
    return Workflow("other").add(anything, name="far", a=each([1, 2]))


def axis(wf: Workflow, *values: int) -> Node:
    return wf.add(anything, name=f"over{len(values)}", v=each(values, axis="s"))


Mistake = Callable[[Workflow], Any]


@pytest.mark.parametrize(
    ("mistake", "complaint"),
    [
        (lambda wf: wf.add(smooth, imag=1), r"smooth: no input 'imag'; did you mean image\?"),
        (lambda wf: wf.add(smooth, q=1), "smooth: no input 'q'; known: image, fwhm"),
        (lambda wf: wf.add(smooth, fwhm=1), "smooth: input 'image' is missing; write image=…"),
        (lambda wf: wf.add(greet, name="x"), "x: add takes name= for itself; rename that input"),
        (lambda wf: wf.add(by_position), "by_position: input 'x' has no name; wrap it in a fun"),
        (
            lambda wf: wf.add(anything, a=axis(wf, 1, 2), b=each([1, 2, 3], axis="s")),
            r"anything: axis 's' has 2 \(1 2\) by a=over2 but 3 \(1 2 3\) by b; use each.zip",
        ),
        (
            lambda wf: wf.add(anything, a=axis(wf, 1, 2), b=[axis(wf, 1, 2, 3, 4)]),
            r"anything: axis 's' has 2 \(1 2\) by a=over2 but 4 \(1 2 3 …\) by b=over4",
        ),
        (
            lambda wf: wf.add(anything, a=each([1]), after=[axis(wf, 1), axis(wf, 2, 3)]),
            "axis 's' has .* by after=over1 but .* by after=over2",
        ),
        (
            lambda wf: (wf.add(smooth, image=1), wf.add(smooth, image=2)),
            "smooth: a node of this name exists already; give name=",
        ),
        (lambda wf: wf.add(lambda x: x, x=1), "a lambda or partial has no name .*; give name="),
        (lambda wf: wf.add(partial(smooth, image=1)), "partial has no name .*; give name="),
        (lambda wf: wf.add(smooth, name="a b", image=1), "node name 'a b': start with a letter"),
        (lambda wf: wf.add(smooth, name="../x", image=1), r"node name '\.\./x'"),
        (lambda wf: wf.add(grüße, x=1), "node name 'grüße': .*; give name="),
        (lambda wf: wf.add(3), r"add\(3\): not a function; for a command use wf.command"),
        (lambda wf: wf.add("bet a"), r"add\('bet a'\): not a function; for a command use wf.com"),
        (lambda wf: wf.add(smooth, image=elsewhere()), "smooth: 'far' is a node of another"),
        (
            lambda wf: wf.add(smooth, image={"a": [elsewhere()["b"]]}),
            "smooth: 'far' is a node of another workflow",
        ),
        (lambda wf: wf.add(smooth, image=1, after=[elsewhere()]), "smooth: 'far' is a node of"),
        (
            lambda wf: wf.add(smooth, image=1, after=["prep"]),
            r"smooth: after='prep' is not a node; write after=\[",
        ),
        (lambda wf: wf.add(smooth, image=1, after="prep"), "smooth: after='prep' is not a node"),
        (lambda wf: wf.add(smooth, image=each([])), r"each\(\[\]\): no values"),
        (
            lambda wf: wf.add(smooth, image=[each([1])]),
            r"smooth: image: each\(...\) must be the whole argument",
        ),
        (
            lambda wf: wf.add(smooth, image={"a": ({"b": each([1])},)}),
            r"smooth: image: each\(...\) must be the whole argument",
        ),
        (
            lambda wf: wf.add(anything, größe=each([1])),
            "größe: give axis=.* name 'größe'",
        ),
        (lambda wf: each(axis(wf, 1), labels=["a"]), "leave out labels=: how many there are"),
        (lambda wf: each(axis(wf, 1).gather()), "pass the node itself"),
        (lambda wf: each(wf.command("true", name="smooth")), "a command returns no list"),
        (lambda wf: each(axis(wf, 1))["part"], r"select before: each\(node\['part'\]\)"),
        (lambda wf: each.zip("x", image=axis(wf, 1)), "takes values; map over a node"),
        (
            lambda wf: wf.add(smooth, image=each([axis(wf, 1)["part"], 1])),
            "takes values; pass a node directly: its axes are kept",
        ),
        (lambda wf: axis(wf, 1, 2).gather("subject"), r"over2.gather\('subject'\): no such axis"),
        (lambda wf: wf.add(average, images=1).gather(), "average.*no axis to gather over"),
        (lambda wf: wf.add(later, x=1), "later: async functions are not supported"),
        (lambda wf: wf.add(generating, x=1), "generating: a generator .*; return a list"),
        (lambda wf: wf.add(generating_later, x=1), "generating_later: async functions"),
        (
            lambda wf: wf.command("bet {image}", imag=1),
            r"{image} .* is unknown; did you mean imag\?",
        ),
        (
            lambda wf: wf.command("bet", resources={"mem": "1G"}),
            r"bet: unknown resource 'mem'; did you mean memory\?",
        ),
    ],
)
def test_a_mistake_is_told_at_add_and_leaves_no_node(mistake: Mistake, complaint: str) -> None:
    wf = Workflow("wf")
    with pytest.raises(WorkflowError, match=complaint):
        mistake(wf)
    assert set(wf.nodes) <= {"over1", "over2", "over3", "over4", "smooth", "average"}


def test_what_has_no_signature_or_takes_anything_is_left_to_the_call(wf: Workflow) -> None:
    assert wf.add(anything, whatever=1).arguments == {"whatever": 1}
    assert wf.add(dict, name="made", a=1).arguments == {"a": 1}
    assert wf.add(partial(smooth, image=1), name="part", fwhm=2).arguments == {"fwhm": 2}


def test_arguments_arrive_as_they_were_given(wf: Workflow) -> None:
    lock = threading.Lock()
    first = wf.add(average, images=Place(1, 2))
    second = wf.add(anything, a=[lock, (first,)], b={"k": first[0]}, c=Place(3, 4))
    assert first.arguments["images"] == Place(1, 2)
    assert isinstance(second.arguments["c"], Place)
    held, (output,) = second.arguments["a"]
    assert held is lock
    assert isinstance(output, Output)
    assert len(list(second.upstreams)) == 2
