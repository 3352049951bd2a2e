import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hpcpipe.errors import WorkflowError
from hpcpipe.frontends.map import find_missing, map_workflow, uncounted
from hpcpipe.frontends.parallel_syntax import Inputs, parse

FILES = {
    "ab.txt": "a\nb\n",
    "gaps.txt": "\ufeffa\r\n\r\nb c\x0c\r\n\r\n",
    "empty.txt": "\n",
    "-": "from stdin\n",
    "people.tsv": 'subject\tage\tnote\nS1\t20\t"x\nS2\t30\t\n',
    "people.csv": 'subject,note\nS1,"a, b"\nS2,"two\nlines"\n',
    "visits.tsv": "participant id\tsession\nS1\t1\nS1\t2\n",
    "ragged.tsv": "subject\tage\nS1\t20\nS2\n",
    "broken.csv": "subject\n" + '"' + "x" * 200_000,
    "header.tsv": "subject\tage\n",
    "twice.tsv": "subject\tsubject\nS1\tS2\n",
    "jobs.txt": "# made by hand\n\ngzip -k 'a b'; echo {}\n  # a note\nbet x.nii \\\n  y.nii\nls\n",
}
AWKWARD = ["a b", "it's", 'say "hi"', "$(id)", "new\nline", "*", "{}", "{1}", ";", "\\", "é", ""]


def open_fake(name: str) -> io.StringIO:
    if name not in FILES:
        raise FileNotFoundError(2, "No such file or directory", name)
    return io.StringIO(FILES[name])


def read(text: str, header: bool = False) -> Inputs:
    return parse(text.split(), header=header, open=open_fake)


def rendered(inputs: Inputs) -> list[str]:
    """Every task's command, its words joined by ``|`` and less the first."""
    return ["|".join(inputs.render(row)[1:]) for row in inputs]


# What GNU parallel 20221122 ran for each; {..} and {/..} with --plus.
@pytest.mark.parametrize(
    ("words", "commands"),
    [
        ("{} {.} {/} {//} {/.} ::: T1/a.nii.gz", ["T1/a.nii.gz|T1/a.nii|a.nii.gz|T1|a.nii"]),
        ("{..} {/..} ::: T1/a.nii.gz x.y", ["T1/a|a", "x.y|x.y"]),
        ("{.} {/} {//} {/.} ::: sub.dir/bar", ["sub.dir/bar|bar|sub.dir|bar"]),
        ("{.} {/} {//} {/.} ::: .hidden", ["|.hidden|.|"]),
        ("{.} {/} {//} {/.} ::: a//b/", ["a//b/||a|"]),
        ("{.} {/} {//} {/.} ::: /x.y", ["/x|x.y|/|x"]),
        ("{.} {/} {//} {/.} ::: /", ["/||/|"]),
        ("{1} {2.} {1/} {1/.} {1//} ::: d/a.nii ::: X/Y.z", ["d/a.nii|X/Y|a.nii|a|d"]),
        ("-{1/.}={2}- ::: d/a.nii ::: 4 8", ["-a=4-", "-a=8-"]),
        ("::: a b", ["a", "b"]),
        ("::: a b ::: 1 2", ["a|1", "a|2", "b|1", "b|2"]),
        ("{2} {1} ::: a b ::: 1 2", ["1|a", "2|a", "1|b", "2|b"]),
        ("-x {.} ::: a.x ::: b.y", ["-x|a|b"]),
        ("::: a b :::+ 1 2 ::: X Y :::+ 3 4", ["a|1|X|3", "a|1|Y|4", "b|2|X|3", "b|2|Y|4"]),
        ("::: 1 2 ::::+ ab.txt ab.txt", ["1|a|a", "2|b|b"]),
        (":::: ab.txt ab.txt", ["a|a", "a|b", "b|a", "b|b"]),
        (":::: - ::: 1", ["from stdin|1"]),
        (":::+ a b", ["a", "b"]),
        ("{a} { } {..x} ::: a.b", ["{a}|{|}|{..x}|a.b"]),
        ("{#} ::: a b", ["1", "2"]),
        ("{#}-{} {} ::: a.x b.x", ["1-a.x|a.x", "2-b.x|b.x"]),
        ("{1} {2} {#} ::: a b ::: 1 2", ["a|1|1", "a|2|2", "b|1|3", "b|2|4"]),
        ("{} {#} ::: a b :::+ 1 2", ["a|1|1", "b|2|2"]),
    ],
)
def test_commands_are_those_of_gnu_parallel(words: str, commands: list[str]) -> None:
    assert rendered(read("prog " + words)) == commands


@pytest.mark.parametrize(
    ("words", "commands"),
    [
        ("{subject} {age} {1} {-} :::: people.tsv", ["S1|20|S1|{-}", "S2|30|S2|{-}"]),
        (":::: people.tsv", ['S1|20|"x', "S2|30|"]),
        ("{note} :::: people.csv", ["a, b", "two\nlines"]),
        ("{image/.} {fwhm} ::: image T1/a.nii ::: fwhm 4 8", ["a|4", "a|8"]),
        ("{subject}-{x} :::: people.tsv :::+ x 1 2", ["S1-1", "S2-2"]),
    ],
)
def test_a_header_names_the_inputs(words: str, commands: list[str]) -> None:
    assert rendered(read("prog " + words, header=True)) == commands


# What GNU parallel 20221122 ran with these options.
@pytest.mark.parametrize(
    ("words", "options", "commands"),
    [
        ("", {"files": ["ab.txt"]}, ["a", "b"]),
        ("{2}{1}", {"files": ["ab.txt", "ab.txt"]}, ["aa", "ba", "ab", "bb"]),
        ("::: 1 2", {"files": ["ab.txt"]}, ["a|1", "a|2", "b|1", "b|2"]),
        ("::: a b ::: 1 2", {"link": True}, ["a|1", "b|2"]),
        ("::: 1 2", {"link": True, "files": ["ab.txt"]}, ["a|1", "b|2"]),
        ("{2}-{1}", {"colsep": "\t", "files": ["visits.tsv"], "header": True}, ["1-S1", "2-S1"]),
        ("{2} ::: a,b c,d", {"colsep": ","}, ["b", "d"]),
    ],
)
def test_options_are_those_of_gnu_parallel(
    words: str, options: Mapping[str, Any], commands: list[str]
) -> None:
    inputs = parse(["prog", *words.split()], open=open_fake, **options)
    assert rendered(inputs) == commands


def test_what_does_not_split_or_pair_is_refused() -> None:
    with pytest.raises(WorkflowError, match=r"--colsep \(: not a regular expression"):
        parse(["prog", ":::", "a"], colsep="(", open=open_fake)
    with pytest.raises(WorkflowError, match=r"row 2 has 1 column, the first 2"):
        parse(["prog", ":::", "a,b", "c"], colsep=",", open=open_fake)
    with pytest.raises(WorkflowError, match=r"1 input to zip with 2 of ::: a ..."):
        parse(["prog", ":::", "a", "b", ":::", "c"], link=True, open=open_fake)


@pytest.mark.parametrize("template", ["{}", "--in={1}", "{1}{1}"])
@pytest.mark.parametrize("value", AWKWARD)
def test_an_input_stays_one_word_whatever_is_in_it(template: str, value: str) -> None:
    inputs = parse(["prog", template, ":::", value], open=open_fake)
    filled = template.replace("{1}", "{}").split("{}")
    assert inputs.render((value,)) == ("prog", value.join(filled))


def test_lines_of_a_file_lose_only_what_windows_adds_and_the_empty_end() -> None:
    assert rendered(read("prog :::: gaps.txt")) == ["a", "", "b c\x0c"]


@pytest.mark.parametrize(
    ("words", "header", "axes", "labels"),
    [
        ("::: T1/a.nii T1/b.nii", False, ["input1"], ["a b"]),
        ("::: x y ::: 4 8", False, ["input1", "input2"], ["x y", "4 8"]),
        (":::: people.tsv ::: fwhm 4 8", True, ["subject", "fwhm"], ["S1 S2", "4 8"]),
        (":::: visits.tsv", True, ["input1"], ["S1_1 S1_2"]),
        ("::: a b :::+ 1 2", False, ["input1"], ["a b"]),
    ],
)
def test_each_product_is_an_axis_and_its_rows_have_labels(
    words: str, header: bool, axes: list[str], labels: list[str]
) -> None:
    inputs = read("prog " + words, header=header)
    assert list(inputs.axes) == axes
    assert [" ".join(source.labels) for source in inputs.sources] == labels


def test_lines_are_shell_commands_named_by_themselves() -> None:
    inputs = parse([], lines="jobs.txt", open=open_fake)
    assert inputs.sources[0].labels == ("gzip_-k_a_b_echo", "bet_x.nii_y.nii", "ls")
    assert [inputs.render(row) for row in inputs] == [
        ("bash", "-c", "gzip -k 'a b'; echo {}"),
        ("bash", "-c", "bet x.nii \\\n  y.nii"),
        ("bash", "-c", "ls"),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "give a command and inputs"),
        ("prog {}", "give a command and inputs"),
        ("::: a b", "give a command and inputs"),
        ("prog :::", "nothing after :::; does the pattern match any file?"),
        ("prog ::: *.nii.none", "*.nii.none: no file matches"),
        ("prog ::: a :::+ sub-[0-9]/T1.nii", "sub-[0-9]/T1.nii: no file matches"),
        ("prog ::: a ::::", "nothing after ::::"),
        ("prog :::: empty.txt", ":::: empty.txt: no inputs"),
        ("prog :::: none.txt", "cannot read inputs from none.txt: No such file"),
        ("prog ::: a b c :::+ 1 2", ":::+ 1 ...: 2 inputs to zip with 3 of ::: a ..."),
        ("prog {3} ::: a ::: b", "{3} refers to no input; a task has 2"),
        ("prog {0} ::: a", "{0} refers to no input"),
        ("prog {%} ::: a", "{%} is the number of a job slot, which a scheduler does not have; {#}"),
        ("prog {#}{} ::: a ::: b", "{#}{}: 2 inputs per task; choose one"),
        ("prog {-1} ::: a", "{-1} refers to no input"),
        ("prog out_{}.txt ::: a ::: b", "out_{}.txt: 2 inputs per task; choose one"),
        ("prog {subject/.} :::: people.tsv", "{subject/.} is in the first line of the inputs; add"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: str, message: str) -> None:
    with pytest.raises(WorkflowError, match=re.escape(message)):
        read(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("prog {subjct} :::: people.tsv", "{subjct} refers to no input; a task has 3; did you"),
        ("prog {x} :::: people.tsv", "known: subject, age, note"),
        ("prog :::: header.tsv", "header.tsv: no inputs"),
        ("prog :::: empty.txt", "empty.txt: no inputs"),
        ("prog :::: ragged.tsv", "row 3 has 1 column, the first 2"),
        ("prog :::: broken.csv", "broken.csv: not a CSV table"),
        ("prog {subject} :::: twice.tsv", "{subject}: two columns have this name"),
        ("prog ::: fwhm", "no inputs"),
    ],
)
def test_a_table_that_does_not_fit_the_command_is_refused(words: str, message: str) -> None:
    with pytest.raises(WorkflowError, match=re.escape(message)):
        read(words, header=True)


def test_a_line_is_for_bash_unless_another_shell_is_asked_for() -> None:
    assert parse([], lines="jobs.txt", open=open_fake).render(("x",))[:2] == ("bash", "-c")
    assert parse([], lines="jobs.txt", shell="sh", open=open_fake).render(("x",))[:2] == (
        "sh",
        "-c",
    )
    with pytest.raises(WorkflowError, match="--shell is for --lines"):
        parse(["gzip", ":::", "a"], shell="bash", open=open_fake)


@pytest.mark.parametrize(
    ("words", "lines", "header"),
    [(["prog", ":::", "a"], "jobs.txt", False), ([], "jobs.txt", True), ([], "empty.txt", False)],
)
def test_lines_stand_alone(words: list[str], lines: str, header: bool) -> None:
    with pytest.raises(WorkflowError, match="--lines"):
        parse(words, lines=lines, header=header, open=open_fake)


@pytest.mark.parametrize("shell", ["sh", "/bin/bash", "env zsh"])
def test_an_input_never_becomes_shell_code(shell: str) -> None:
    words = [*shell.split(), "-c", "gzip -k {}", ":::", "a.nii"]
    assert parse(words, open=open_fake).render(("a.nii",))[-1] == "gzip -k a.nii"
    with pytest.raises(WorkflowError, match=r"-c would read '\$\(id\)' as code; to use a shell"):
        parse([*words, "$(id)"], open=open_fake)
    handed = parse(
        [*shell.split(), "-c", 'gzip "${1}"', "sh", "{}", ":::", "$(id)"], open=open_fake
    )
    assert handed.render(("$(id)",))[-3:] == ('gzip "${1}"', "sh", "$(id)")


def test_a_quoted_command_line_is_not_taken_for_a_program() -> None:
    with pytest.raises(WorkflowError, match=r"'gzip -k \{\}' is one word, which names a program"):
        parse(["gzip -k {}", ":::", "a"], open=open_fake)
    assert parse(["./my prog", ":::", "a"], open=open_fake).render(("a",)) == ("./my prog", "a")


def test_what_does_not_count_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    Path("a.nii").touch()
    Path("jobs").write_text("bet a.nii>log\n")
    notes = [*uncounted(map_workflow(["app", "out", "-o=out", "a.nii", ":::", "out"]))]
    assert notes == ["changes in out do not count"]
    notes = [*uncounted(map_workflow([], lines="jobs"))]
    assert notes == ["changes of files in the lines, such as a.nii, do not count"]
    notes = [*uncounted(map_workflow(["sh", "-c", "cat a.nii>/dev/null; id", "{}", ":::", "1"]))]
    assert notes == ["changes of files within a word, such as a.nii, do not count"]
    assert not [*uncounted(map_workflow(["bet", "{}", ":::", "a.nii", "out"]))]


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        ("::: a.txt b.txt c.nii d", "b.txt"),
        ("::: S1/a.nii S2/a.nii S3/b.txt S1/x", "S2/a.nii"),
        ("::: S1/scan S1/lost S2/lost", "S1/lost"),
        (":::: list", "b.txt"),
        ("::: 1 2 list lost", ""),  # words, some of which files happen to have for a name
        ("::: x.txt y/z.txt", ""),  # nothing like them is there
        ("{1} {2} ::: a.txt :::+ b.txt", ""),  # what a task makes
        ("{1} {2} ::: a.txt ::: b.txt c.txt", ""),
    ],
)
def test_an_input_that_is_missing_beside_files_is_told(
    words: str, missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("S1").mkdir()
    for name in ("a.txt", "S1/a.nii", "S1/scan", "1", "list"):
        Path(name).write_text("a.txt\nb.txt\n")
    assert find_missing(map_workflow(["wc", *words.split()])) == missing.split()
    if missing == "b.txt":
        made = map_workflow(["wc", "{}", ":::", "a.txt", "b.txt"], makes=["{}"])
        assert find_missing(made) == []
