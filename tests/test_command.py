"""Commands: words filled in with values, each value one word, whatever is in it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcpipe.errors import WorkflowError
from hpcpipe.graph.command import CommandFailed, make_command

NASTY = ["a b", "it's", '"q"', "two\nlines", "$(touch pwned)", "`id`", "*", "-rf", "Zoë", "", "{x}"]
ECHO = [sys.executable, "-c", "import json, sys; json.dump(sys.argv[1:], open(sys.argv[1], 'w'))"]


def argv(words: Any, outputs: Any = None, folder: str = "/run", **values: Any) -> list[str]:
    return make_command(words, outputs, values).argv(values, folder)


@pytest.mark.parametrize(
    ("words", "values", "filled"),
    [
        ("bet {image} -f {frac}", {"image": "a.nii", "frac": 0.5}, ["bet", "a.nii", "-f", "0.5"]),
        (["bet", "{image}"], {"image": Path("T1/a.nii")}, ["bet", "T1/a.nii"]),
        ([Path("/opt/bet"), "-v"], {}, ["/opt/bet", "-v"]),
        ("x --in={image}", {"image": "a b"}, ["x", "--in=a b"]),
        ("x '{image} {{}}' \"it's\"", {"image": "a"}, ["x", "a {}", "it's"]),
        ("x {i.stem}", {"i": Path("T1/SAD07.nii.gz")}, ["x", "SAD07"]),
        ("x {i.stem}.{i.name} {i.parent}", {"i": "T1/a.nii"}, ["x", "a.a.nii", "T1"]),
        ("mean {images} -o m", {"images": ["a b", Path("c")]}, ["mean", "a b", "c", "-o", "m"]),
        ("mean {images}", {"images": ()}, ["mean"]),
        ("mean --in={images}", {"images": ["a", "b"]}, ["mean", "--in=a b"]),
        ("{program} {program}", {"program": "bet"}, ["bet", "bet"]),
        (["sh", "-c", 'gzip < "$1" > x', "sh", "{i}"], {"i": "a"}, None),
    ],
)
def test_words_are_filled_in(words: Any, values: dict[str, Any], filled: list[str] | None) -> None:
    assert argv(words, **values) == (filled or [*words[:-1], "a"])


@pytest.mark.parametrize("text", NASTY)
def test_a_value_is_one_word_whatever_is_in_it(text: str) -> None:
    assert argv("cat {one} -{one}- {many}", one=text, many=[text, text]) == [
        *("cat", text, f"-{text}-", text, text)
    ]


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_any_text_arrives_as_it_is(text: str) -> None:
    assert argv(["cat", "{x}", "={x}"], x=text) == ["cat", text, f"={text}"]


def test_what_cannot_be_a_word_is_refused() -> None:
    with pytest.raises(WorkflowError, match="cannot hold a NUL"):
        argv("cat {x}", x="a\0b")


# --- outputs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "outputs", "filled", "value"),
    [
        ("true", None, ["true"], None),
        (
            "bet {image} {brain} -m {mask}",
            {"brain": "{image.stem}_brain.nii", "mask": "mask.nii"},
            ["bet", "T1/a.nii", "/run/a_brain.nii", "-m", "/run/mask.nii"],
            {"brain": Path("/run/a_brain.nii"), "mask": Path("/run/mask.nii")},
        ),
        (
            "sort {image} -o {output}",
            "sorted {image.stem}.txt",
            ["sort", "T1/a.nii", "-o", "/run/sorted a.txt"],
            Path("/run/sorted a.txt"),
        ),
        (
            "tool {out.parent} {out.stem}",
            {"out": "sub/x.nii.gz"},
            ["tool", "/run/sub", "x"],
            {"out": Path("/run/sub/x.nii.gz")},
        ),
    ],
)
def test_outputs_lie_in_the_tasks_folder_and_are_what_it_returns(
    words: str, outputs: str | Mapping[str, str] | None, filled: list[str], value: Any
) -> None:
    values = {"image": "T1/a.nii"} if "image" in words else {}
    command = make_command(words, outputs, values)
    assert command.argv(values, "/run") == filled
    assert command.value(values, "/run") == value


@pytest.mark.parametrize("path", ["/data/a.nii", "../a.nii", "sub/../../a.nii", "", "."])
def test_an_output_elsewhere_is_refused(path: str) -> None:
    command = make_command("cp {x} {copy}", {"copy": "{x}"}, {"x": path})
    with pytest.raises(WorkflowError, match=r"output 'copy' would be .* not a file in the task's"):
        command.argv({"x": path}, "/run")


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "outputs", "inputs", "complaint"),
    [
        ("", None, {}, "command: no words"),
        ([], None, {}, "command: no words"),
        ("bet {imag}", None, {"image": 1}, r"bet: \{imag\} in .* is unknown; did you mean image"),
        ("bet {}", None, {"image": 1}, r"bet: \{\} in .* is unknown; known: image"),
        ("bet {image[0]}", None, {"image": 1}, r"bet: \{image\[0\]\} in .* is unknown"),
        ("awk {print}", None, {}, r"awk: \{print\} .*\(write \{\{ and \}\} for braces"),
        ("bet {image.suffix}", None, {"image": 1}, r"\{image.suffix\}: .* stem, name, parent"),
        ("bet {frac:.2f}", None, {"frac": 1}, r"'\{frac:.2f\}': .*formats are not"),
        ("bet {frac!r}", None, {"frac": 1}, r"'\{frac!r\}': .*formats are not"),
        ("bet {", None, {}, "'{'"),
        ("bet 'a", None, {}, 'command "bet \'a": No closing quotation'),
        ("bet {a}", {"b": "x"}, {"a": 1, "c": 2}, r"bet: input 'c' is not used; write \{c\}"),
        ("bet {a}", None, {"a": 1, "memory": "2G"}, "'memory' is not used.*by resources="),
        ("cp {a} {b}", {"b": "{c}"}, {"a": 1}, r"cp: \{c\} in .* is unknown"),
        ("cp {a} {b}", {"b": "x", "c": "{b}.bak"}, {"a": 1}, r"cp: \{b\} in '\{b\}.bak'"),
        ("cp {a}", {"a": "x"}, {"a": 1}, "cp: 'a' is both an input and an output"),
        ("cp {output}", "x", {"output": 1}, "cp: 'output' is both an input and an output"),
        (
            "cp {a} {output}",
            "/tmp/x",
            {"a": 1},
            "cp: output 'output' would be '/tmp/x', not a file",
        ),
    ],
)
def test_a_mistake_is_told_when_the_command_is_made(
    words: Any, outputs: Any, inputs: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(WorkflowError, match=complaint):
        make_command(words, outputs, inputs)


@pytest.mark.parametrize(
    "text",
    [
        *("sort {x} | uniq", "sort {x}|uniq", "sort {x} > out", "sort {x} >out", "sort {x}>>out"),
        *("sort < {x}", "sort {x} 2> err", "sort {x} 2>&1", "a {x} && b", "a {x}; b", "a {x} &"),
    ],
)
def test_a_shells_words_are_refused(text: str) -> None:
    with pytest.raises(
        WorkflowError, match=r"no shell runs it; quote it, or write \['sh', '-c', '…'\]"
    ):
        make_command(text, None, {"x": 1})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("awk '$1 > 2 {{print}}' {x}", ["awk", "$1 > 2 {print}", "1"]),
        ("grep 'a|b;c' {x}", ["grep", "a|b;c", "1"]),
        ("awk -F '|' {x}", ["awk", "-F", "|", "1"]),
        ("find {x} -exec rm {{}} \\;", ["find", "1", "-exec", "rm", "{}", ";"]),
        ("fslmaths {x} -thr 1 # no comment", ["fslmaths", "1", "-thr", "1", "#", "no", "comment"]),
        ("find {x} ( -name a )", ["find", "1", "(", "-name", "a", ")"]),
    ],
)
def test_quoted_they_are_words_like_others(text: str, words: list[str]) -> None:
    assert argv(text, x=1) == words


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("/opt/fsl/bin/bet x", "bet"),
        ("./prep.sh", "prep"),
        ("antsRegistration --version", "antsRegistration"),
        (["my tool"], "my_tool"),
        ("größe.sh", "gr__e"),
        ("3dSkullStrip", "_3dSkullStrip"),
        ("{program}", "_program_"),
        ("_x", "_x"),
    ],
)
def test_a_node_is_named_after_the_program(words: Any, name: str) -> None:
    assert make_command(words, None, {"program": 1} if "{" in words else {}).default_name == name


# --- running ------------------------------------------------------------------------------------


def test_it_runs_without_a_shell(tmp_path: Path) -> None:
    values = {"x": NASTY}
    command = make_command([*ECHO, "{out}", "{x}"], {"out": "said.json"}, values)
    made = command(str(tmp_path / "task"), **values)
    assert json.loads(made["out"].read_text()) == [str(made["out"]), *NASTY]
    assert [path.name for path in tmp_path.iterdir()] == ["task"]


@pytest.mark.parametrize(
    ("words", "outputs", "code", "complaint"),
    [
        (["sh", "-c", "exit 3"], None, 3, "exit 3: sh -c 'exit 3'"),
        (["/absent/program"], None, 127, "/absent/program: No such file or directory"),
        (["true"], {"out": "x"}, None, "ended well but did not make .*/x"),
    ],
)
def test_how_it_failed_is_told(
    tmp_path: Path, words: list[str], outputs: Any, code: int | None, complaint: str
) -> None:
    with pytest.raises(CommandFailed, match=complaint) as caught:
        make_command(words, outputs, {})(str(tmp_path))
    assert caught.value.exit_code == code
