"""What a task's key is made of, and which tasks are left to run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hpcpipe import Workflow, each, task
from hpcpipe.errors import WorkflowError
from hpcpipe.graph.axes import label
from hpcpipe.graph.node import Node
from hpcpipe.keys.digest import Keyed
from hpcpipe.keys.fates import DONE, IN_FLIGHT, RUN, InFlight, Known
from hpcpipe.keys.plan import Plan, make_plan
from hpcpipe.resources import Resources

Keys = dict[str, str]  # by node/label


def normalize(source: Path, template: Any = "T2", options: Any = None) -> Any:
    return source, template, options


def smooth(image: Any, fwhm: int = 4) -> Any:
    return image, fwhm


def average(images: Any, other: Any = None) -> Any:
    return images, other


def anything(**inputs: Any) -> Any:
    return inputs


def names(plan: Plan) -> list[tuple[str, str, int]]:
    """Name every task, with its node and index."""
    return [
        (f"{name}/{label(node.node.axes, index)}".rstrip("/"), name, index)
        for name, node in plan.nodes.items()
        for index in range(len(node.fates))
    ]


def keys(wf: Workflow) -> Keys:
    plan = make_plan(wf)
    found = {task: plan.nodes[node].key(index) for task, node, index in names(plan)}
    assert len(set(found.values())) == len(found), "two tasks have one key"
    return found


def changed(one: Keys, other: Keys) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder of three images."""
    for subject in ("S1", "S2", "S3"):
        (tmp_path / f"{subject}.nii").write_text(subject)
    return tmp_path


def flow(
    study: Path,
    *,
    call: Callable[..., Any] = normalize,
    labels: Sequence[str] | None = None,
    subjects: Sequence[str] = ("S1", "S2"),
    fwhm: Any = (4, 8),
    gather: Sequence[str] = ("subject",),
    part: str | int | None = None,
    rest: Any = None,
    files: str = "content",
    name: str = "wf",
    more: Callable[[Workflow], Any] = lambda _: None,
    **options: Any,
) -> Workflow:
    """Build a small study: two subjects, two widths, a mean for each width."""
    wf = Workflow(name, base_dir=study, files=files)
    wf.source = __file__
    more(wf)
    images = [study / f"{subject}.nii" for subject in subjects]
    warped = wf.add(
        call, name="normalize", source=each(images, axis="subject", labels=labels), **options
    )
    image = warped if part is None else warped[part]
    smoothed = wf.add(smooth, image=image, fwhm=each(list(fwhm), axis="fwhm"))
    wf.add(average, images=smoothed.gather(*gather), other=rest)
    return wf


WARPS, SMOOTHS = (
    {"normalize/S1", "normalize/S2"},
    {f"smooth/S{s}/{f}" for s in (1, 2) for f in (4, 8)},
)
MEANS = {"average/4", "average/8"}
ALL = WARPS | SMOOTHS | MEANS


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"template": "T3"}, ALL),
        ({"options": {"a": [1, {2}]}}, ALL),
        ({"rest": (1, 2)}, MEANS),
        ({"fwhm": (4, 6)}, {"smooth/S1/8", "smooth/S2/8", "average/8"}
                          | {"smooth/S1/6", "smooth/S2/6", "average/6"}),
        ({"fwhm": (4, 8, 12)}, {"smooth/S1/12", "smooth/S2/12", "average/12"}),
        ({"part": "brain"}, SMOOTHS | MEANS),
        ({"subjects": ("S1", "S3"), "labels": ("S1", "S2")},
         {"normalize/S2", "smooth/S2/4", "smooth/S2/8", *MEANS}),
        ({"subjects": ("S1", "S2", "S3")},
         {"normalize/S3", "smooth/S3/4", "smooth/S3/8", *MEANS}),
        ({"subjects": ("S2", "S1")}, MEANS),  # the list they average has another order
        ({"gather": ("fwhm",)}, {*MEANS, "average/S1", "average/S2"}),
        ({"files": "stat"}, ALL),
        ({}, set()),
        ({"name": "another"}, set()),
        ({"call": task(cpus=8, memory="64G", time="1d", folder=True)(lambda source: source)}, ALL),
        ({"more": lambda wf: wf.add(anything, name="new", x=1)}, {"new"}),
    ],
)  # fmt: skip
def test_what_changes_a_key_and_whose(
    study: Path, options: dict[str, Any], expected: set[str]
) -> None:
    assert changed(keys(flow(study)), keys(flow(study, **options))) == expected


def test_a_label_is_in_the_keys_of_tasks_that_have_a_folder_only(study: Path) -> None:
    def values(**options: Any) -> set[str]:
        return {*keys(flow(study, **options)).values()}

    assert values() == values(labels=["S1", "B"])
    in_folders = task(folder=True)(lambda source: source)
    assert values(call=in_folders) != values(call=in_folders, labels=["S1", "B"])


def written(source: Any) -> Path:
    return Path(source)


INPUTS: dict[str, list[Any]] = {
    "files of one name": ["sub-02/T1.nii", "sub-01/T1.nii", "sub-03/T1.nii", "a/sub-01/T1.nii"],
    "files of one content": [Path(f"{name}/same.nii") for name in ("s1", "s2", "s3")],
    "dicts": [{"alpha": at / 10, "at": [at]} for at in range(11)],
    "equal values": [1, 1, 2, 1, "x"],
    "objects": [Keyed(name) for name in "abc"],
}


@pytest.mark.parametrize("call", [anything, written, "cat {source}"])
@pytest.mark.parametrize("inputs", INPUTS.values(), ids=INPUTS)
def test_one_more_input_changes_no_other_tasks_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: list[Any], call: Any
) -> None:
    def found(values: list[Any]) -> set[str]:
        wf = Workflow("wf")
        add = wf.command if isinstance(call, str) else wf.add
        add(call, name="node", source=each(values))
        return {*keys(wf).values()}

    monkeypatch.chdir(tmp_path)
    for path in inputs:
        if "/" in str(path):
            Path(path).parent.mkdir(parents=True)
            Path(path).write_text("same")
    for at in range(len(inputs)):
        assert len(found(inputs) - found([*inputs[:at], *inputs[at + 1 :]])) == 1


def test_resources_never_enter_a_key(study: Path) -> None:
    def call(source: Path) -> Path:
        return source

    before = keys(flow(study, call=call))
    task(cpus=8, memory="64G", time="1d", gpus=1, queue="long", account="me")(call)
    assert keys(flow(study, call=call)) == before
    plan = make_plan(flow(study, call=call), resources=Resources.parse(memory="1T"))
    assert [plan.nodes["normalize"].key(i) for i in (0, 1)] == [before[w] for w in sorted(WARPS)]


def test_a_demanded_version_of_software_enters_a_key_and_a_mere_name_does_not(study: Path) -> None:
    def keyed(*software: str) -> Mapping[str, str]:
        plan = make_plan(flow(study), resources=Resources.parse(software=software))
        return {name: node.key(0) for name, node in plan.nodes.items()}

    assert keyed("fsl", "spm12") == keyed()
    assert keyed("fsl>=6") == keyed("spm12", "fsl>=6")
    assert len({keyed(one)["normalize"] for one in ("fsl", "fsl>=6", "fsl>=7")}) == 3


class Two:
    """A workflow of two nodes, to build a third on."""

    def __init__(self) -> None:
        self.wf = Workflow("wf")
        self.a, self.b = self.wf.add(anything, name="a"), self.wf.add(anything, name="b")

    def any(self, name: str = "third", **options: Any) -> Node:
        return self.wf.add(anything, name=name, **options)

    def sh(self, words: str, **options: Any) -> Node:
        return self.wf.command(words, name="third", **options)


Build = Callable[[Two], Node]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda two: two.any(x=two.a, y=two.b), lambda two: two.any(x=two.b, y=two.a)),
        (lambda two: two.any(x=two.a), lambda two: two.any(y=two.a)),
        (lambda two: two.any(x=two.a), lambda two: two.any(x=[two.a])),
        (lambda two: two.any(x=[two.a]), lambda two: two.any(x=(two.a,))),
        (lambda two: two.any(x=two.a[0]), lambda two: two.any(x=two.a["0"])),
        (lambda two: two.any(x=two.a[0]), lambda two: two.any(x=two.a[0][0])),
        (lambda two: two.any(x=two.a), lambda two: two.any(x=1, after=two.a)),
        (lambda two: two.any(x=1), lambda two: two.any(x=1, after=two.b)),
        (lambda two: two.any(x=(1,)), lambda two: two.any(x=[1])),
        (lambda two: two.any(x={"k": (two.a, 1)}), lambda two: two.any(x={"k": (two.a, 2)})),
        (lambda two: two.any(x=each([1], axis="s")), lambda two: two.any(y=each([1], axis="s"))),
        (
            lambda two: two.any(x=each([1], axis="s"), y=each([2], axis="s", labels=["1"])),
            lambda two: two.any(x=each([1], axis="s"), y=each([2], axis="t", labels=["1"])),
        ),
        (lambda two: two.any(name="p"), lambda two: two.any(name="q")),
        (lambda two: two.any(images=1), lambda two: two.wf.add(average, name="third", images=1)),
        (lambda two: two.sh("x {a}", a=1), lambda two: two.sh("x {a}", a=2)),
        (lambda two: two.sh("x {a}", a=1), lambda two: two.sh("x -v {a}", a=1)),
        (lambda two: two.sh("x {a}", a="b c"), lambda two: two.sh("x {a}", a=["b", "c"])),
        (
            lambda two: two.sh("x {o}", outputs={"o": "p"}),
            lambda two: two.sh("x {o}", outputs={"o": "q"}),
        ),
    ],
)
def test_what_is_called_otherwise_has_another_key(one: Build, other: Build) -> None:
    def key(build: Build) -> str:
        two = Two()
        node = build(two)
        return make_plan(two.wf).nodes[node.name].key(0)

    assert key(one) != key(other)
    assert key(one) == key(one)


# --- files --------------------------------------------------------------------------------------


def test_editing_one_file_runs_only_it_and_its_dependents(study: Path) -> None:
    good = keys(flow(study))
    os.utime(study / "S1.nii")
    (study / "S2.nii").write_text("another")
    plan = make_plan(flow(study), known(good))
    left = {name for name, node, i in names(plan) if plan.nodes[node].fates[i] == RUN}
    assert left == {"normalize/S2", "smooth/S2/4", "smooth/S2/8", *MEANS}
    (study / "S2.nii").write_text("S2")
    assert make_plan(flow(study), known(good)).count(DONE) == len(ALL)


def test_where_files_are_known_by_their_time_no_file_is_read(study: Path) -> None:
    before = keys(flow(study, files="stat"))
    image = study / "S1.nii"
    stat = image.stat()
    image.write_text("T1")
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert keys(flow(study, files="stat")) == before
    os.utime(image, (1, 1))
    assert {"normalize/S1"} < changed(before, keys(flow(study, files="stat")))


def takes_path(file: Path) -> Any:
    return file


def takes_text(file: str) -> Any:
    return file


def takes_either(file: str | Path) -> Any:
    return file


def takes_many(file: dict[str, list[Path]] | None) -> Any:
    return file


@pytest.mark.parametrize(
    ("add", "counts"),
    [
        (lambda wf, file: wf.add(takes_path, file=file), True),
        (lambda wf, file: wf.add(takes_path, file=str(file)), True),
        (lambda wf, file: wf.add(takes_path, file=each([str(file)])), True),
        (lambda wf, file: wf.add(takes_text, file=file), True),
        (lambda wf, file: wf.add(takes_either, file=str(file)), True),
        (lambda wf, file: wf.add(takes_many, file={"in": [str(file)]}), True),
        (lambda wf, file: wf.add(takes_many, file=each([{"in": [str(file)]}])), True),
        (lambda wf, file: wf.add(partial(takes_path), name="part", file=str(file)), True),
        (lambda wf, file: wf.add(anything, file={"in": [file]}), True),
        (lambda wf, file: wf.add(takes_text, file=str(file)), False),
        (lambda wf, file: wf.command("cat {file}", file=file), True),
        (lambda wf, file: wf.command("cat {file}", file=str(file)), True),
        (lambda wf, file: wf.command("cat {file}", file=each([str(file)])), True),
        (lambda wf, file: wf.command("cat {file}", file=[str(file)]), True),
        (lambda wf, file: wf.command("ls {file}", file=each([str(file.parent)])), True),
        (lambda wf, file: wf.command(["ls", str(file.parent)]), False),
        (lambda wf, file: wf.command([str(file)], name="run"), True),
        (lambda wf, file: wf.command(["sh", str(file)], name="run"), True),
        (lambda wf, file: wf.command("echo {file}", file=f"--in={file}"), True),
        (lambda wf, file: wf.command("echo {file}", file=f"--out={file}"), False),
        (lambda wf, file: wf.command("echo {file}", file=f"host:{file}"), False),
    ],
)
def test_which_inputs_are_files(
    tmp_path: Path, add: Callable[[Workflow, Path], Any], counts: bool
) -> None:
    file = tmp_path / "input.txt"

    def key(text: str) -> str:
        file.write_text(text)
        os.utime(file, (0, sum(text.encode())))  # by which a folder's files count
        wf = Workflow("wf")
        node = add(wf, file)
        return make_plan(wf).nodes[node.name].key(0)

    assert (key("one") != key("two")) is counts
    assert key("one") == key("one")


# --- fates --------------------------------------------------------------------------------------


def known(good: Keys, flying: Keys | None = None) -> dict[str, Known]:
    found: dict[str, tuple[list[str], dict[str, InFlight]]] = {}
    for name, key in good.items():
        found.setdefault(name.partition("/")[0], ([], {}))[0].append(key)
    for at, (name, key) in enumerate((flying or {}).items()):
        found.setdefault(name.partition("/")[0], ([], {}))[1][key] = InFlight(
            "b", "77", at, begun=True
        )
    return {node: Known(done, going) for node, (done, going) in found.items()}


def test_the_good_are_done_the_live_are_waited_for_the_rest_run(study: Path) -> None:
    all_ = keys(flow(study))
    good = {name: all_[name] for name in ("normalize/S1", "smooth/S1/8")}
    flying = {name: all_[name] for name in ("normalize/S2", "smooth/S1/8", "average/4")}
    plan = make_plan(flow(study), known(good, flying))
    fates = {name: plan.nodes[node].fates[i] for name, node, i in names(plan)}
    assert {name for name, fate in fates.items() if fate == DONE} == good.keys()
    assert {name for name, fate in fates.items() if fate == IN_FLIGHT} == {
        "normalize/S2",
        "average/4",
    }
    assert plan.nodes["normalize"].in_flight == {1: InFlight("b", "77", 0, begun=True)}
    assert [list(node.to_run) for node in plan.nodes.values()] == [[], [0, 2, 3], [1]]
    assert [plan.count(fate) for fate in (RUN, DONE, IN_FLIGHT)] == [4, 2, 2]


def test_results_of_another_node_or_another_time_are_no_results(study: Path) -> None:
    all_ = keys(flow(study))
    wrong = {"smooth/S1/4": all_["normalize/S1"], "normalize/S1": "00" * 16}
    assert make_plan(flow(study), known(wrong)).count(RUN) == len(ALL)


def test_a_task_asks_for_its_nodes_resources_the_plans_and_what_was_raised(study: Path) -> None:
    wf = flow(study, call=task(cpus=2, memory="2G", time="1h")(takes_any))
    key = make_plan(wf).nodes["normalize"].key(1)
    raised = {"normalize": Known(raised={key: Resources(memory=4096, time=60)})}
    plan = make_plan(wf, raised, resources=Resources(time=7200, queue="long"))
    node = plan.nodes["normalize"]
    assert plan.asked(node) == plan.asked(node, 0)
    assert plan.asked(node, 0) == Resources(cpus=2, memory=2048, time=7200, queue="long")
    assert plan.asked(node, 1) == Resources(cpus=2, memory=4096, time=7200, queue="long")


def takes_any(source: Path) -> Any:
    return source


# --- mistakes -----------------------------------------------------------------------------------


def test_an_empty_workflow_is_refused() -> None:
    with pytest.raises(WorkflowError, match=r"workflow 'wf' has no nodes; add some with wf.add"):
        make_plan(Workflow("wf"))


def test_a_value_without_a_key_is_named_with_its_node_and_argument() -> None:
    wf = Workflow("wf")
    wf.add(anything, name="first", rows=each([1, (n for n in [1])]))
    with pytest.raises(WorkflowError, match=r"first: rows: a generator cannot be pickled"):
        make_plan(wf)
    wf = Workflow("wf")
    wf.add(anything, name="first", options={"rows": [1], "it": (n for n in [1])})
    with pytest.raises(WorkflowError, match=r"first: options: a generator cannot be pickled"):
        make_plan(wf)


def test_a_task_may_be_known_to_be_done_without_an_outcome() -> None:
    wf = Workflow("known")
    node = wf.add(anything, name="node", x=each([1, 2, 3]))
    wf.nodes["node"] = replace(node, done={1})
    assert list(make_plan(wf).nodes["node"].fates) == [RUN, DONE, RUN]


def test_outcomes_of_another_sweep_do_not_count() -> None:
    wf = Workflow("sweeps")
    wf.add(anything, name="node", x=each([1, 2]))
    before = keys(wf)
    wf.sweep = 2
    assert changed(before, keys(wf)) == {"node/1", "node/2"}


def test_a_value_that_says_its_key_is_nothing_more_to_the_plan() -> None:
    def with_value(value: Keyed) -> Keys:
        wf = Workflow("keyed")
        wf.add(anything, name="node", x=value)
        return keys(wf)

    class Odd(Keyed):
        """Holds what no digest could be made of."""

        lock = threading.Lock()

    assert with_value(Odd("one")) == with_value(Keyed("one"))
    assert with_value(Odd("one")) != with_value(Odd("other"))
