"""Odd names and paths on real schedulers: they run or are refused, and no shell reads them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract.harness import Cluster

VALUES = [
    "two  words",
    'it\'s "quoted"',
    "$(touch pwned)",
    "`touch pwned`; touch pwned | touch pwned & touch pwned",
    "a\nnewline\n",
    "ünïcode ✓ 日本",
    "-rf",
    "*",
    "~",
    "$HOME",
    "back\\slash",
    "100 %a",
    "{braces}",
    "#SBATCH --array=7",
    " ",
]
FLOW = """
    import os
    from pathlib import Path
    from hpcpipe import Workflow, each, task

    ASKED = dict(cpus=1, memory="100M", time="5m")
    VALUES = {values!r}

    @task(**ASKED)
    def say(text, where):
        return text, os.getcwd()

    @task(folder=True, **ASKED)
    def write(text):
        Path("it's \\n $(touch pwned)").write_text(text)
        return Path("it's \\n $(touch pwned)")

    @task(**ASKED)
    def read(written):
        return written.read_text()

    wf = Workflow("odd", base_dir={base!r})
    texts = each(VALUES, axis="text")
    wf.add(say, text=texts, where=Path.cwd())
    wf.add(read, written=wf.add(write, text=texts))
    # It writes down its words, NUL-separated, as the node got them.
    script = 'made=$1; shift; printf "%s\\\\0" "$@" > "$made"'
    words = wf.command(
        ["sh", "-c", script, "sh", "{{made}}", "{{text}}", "a {{text}}"],
        name="words", outputs={{"made": "w $(touch pwned).txt"}}, resources=ASKED, text=texts,
    )
    wf.command(["cp", "--", "{{made}}", "{{copy}}"],
        name="copy", outputs={{"copy": "c.txt"}}, resources=ASKED, made=words["made"])
"""


@pytest.fixture
def odd(cluster: Cluster) -> Iterator[Cluster]:
    """A user whose folder has a name that no shell should read."""
    home = cluster.home / cluster.odd
    home.mkdir()
    yield replace(cluster, home=home)
    assert not [*cluster.home.rglob("pwned")], "something was executed"


def test_odd_folders_values_and_words_arrive_as_they_are(odd: Cluster) -> None:
    odd.write("flow.py", FLOW.format(values=VALUES, base=odd.odd))
    odd.hpcpipe("submit", "flow.py")
    report = odd.finish()
    assert report["failures"] == []

    def results(node: str) -> list[Any]:
        return [*json.loads(odd.hpcpipe("results", node, "--json").stdout).values()]

    assert results("say") == [[text, str(odd.home.resolve())] for text in VALUES]
    assert results("read") == VALUES
    for node, name in (("words", "made"), ("copy", "copy")):
        made = [Path(one[name]).read_text() for one in results(node)]
        assert made == [f"{text}\0a {text}\0" for text in VALUES]


def test_a_map_over_odd_files_runs_on_each(odd: Cluster) -> None:
    (odd.home / "in").mkdir()
    names = [*VALUES, "no UTF-8: \udcff"]
    for name in names:
        (odd.home / "in" / name).write_bytes(os.fsencode(name))
    words = ("map", "--time", "5m", "--memory", "50M", "--name", "copy", "--")
    odd.hpcpipe(*words, "cp", "--", "{}", "out {/}", ":::", *(f"in/{name}" for name in names))
    assert odd.finish()["failures"] == []
    made = {path.name: os.fsdecode(path.read_bytes()) for path in odd.home.glob("out *")}
    assert made == {f"out {name}": name for name in names}
    odd.hpcpipe("logs", "copy/two__words")
    odd.hpcpipe("retry")


@pytest.mark.parametrize("word", ["100 %a", "back\\slash", "%%", "$JOB_ID", "a\nline"])
def test_a_folder_that_a_scheduler_misreads_is_refused_and_any_other_runs(
    cluster: Cluster, word: str
) -> None:
    words = ("map", "--base-dir", word, "--name", "it", "--time", "5m", "--", "echo", ":::", "a")
    if not re.search(cluster.dialect.capabilities.no_path, word):
        cluster.hpcpipe(*words)
        assert cluster.finish()["nodes"] == {"it": {"all": 1, "done": 1}}
        return
    refused = cluster.hpcpipe(*words, status=2).stderr
    folder = cluster.home.resolve() / word / "it"
    assert refused.startswith(f"hpcpipe: {folder}: {cluster.dialect.name} gives ")
    assert not (cluster.home / word).exists()


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (("--account", "$(touch pwned)"), 2),
        (("--queue", "a\n#SBATCH --array=0-9"), 2),
        (("--name", "$(touch pwned)"), 2),
        (("--name", "../up"), 2),
        (("--time", "5m; touch pwned"), 2),
        (("--site", "$(touch pwned)"), 3),
    ],
)
def test_an_odd_option_is_refused_in_words(
    cluster: Cluster, options: tuple[str, str], status: int
) -> None:
    said = cluster.hpcpipe("map", *options, "--", "echo", ":::", "a", status=status).stderr
    assert repr(options[1])[1:-1] in said
    assert not [*cluster.home.rglob("pwned")]
    assert not (cluster.home / "hpcpipe_runs").exists()
