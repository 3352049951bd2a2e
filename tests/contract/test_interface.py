"""nipype's interfaces as nodes of our own workflows, on every scheduler."""

from __future__ import annotations

import gzip

from contract.harness import Cluster

FLOW = """
    import os
    from glob import glob
    from pathlib import Path

    from hpcpipe import Workflow, each, task
    from nipype.algorithms.misc import Gunzip
    from nipype.interfaces.base import CommandLine, CommandLineInputSpec, File, TraitedSpec

    class SortInput(CommandLineInputSpec):
        in_file = File(exists=True, mandatory=True, copyfile=True, argstr="%s", position=0)
        out_file = File("sorted.txt", usedefault=True, argstr="-o %s")

    class SortOutput(TraitedSpec):
        out_file = File(exists=True)
        in_file = File(exists=True)

    class Sort(CommandLine):
        _cmd = "sort -n"
        input_spec, output_spec = SortInput, SortOutput

        def _list_outputs(self):
            made = os.path.abspath(self.inputs.out_file)
            return {"out_file": made, "in_file": self.inputs.in_file}

    def first(files: list[Path]) -> list[str]:
        return [file.read_text().split()[0] for file in files]

    wf = Workflow("signals", base_dir="work")
    unpacked = wf.add(Gunzip(), in_file=each(sorted(glob("*.gz")), axis="subject"))
    ordered = wf.add(task(memory="500M", time="2m")(Sort()), in_file=unpacked["out_file"])
    wf.add(first, files=ordered["out_file"].gather())
"""


def test_interfaces_run_as_nodes_and_their_values_are_their_outputs(cluster: Cluster) -> None:
    cluster.write("flow.py", FLOW)
    for subject, numbers in (("SAD01", "3\n1\n2\n"), ("SAD02", "9\n8\n"), ("SAD03", "x\n5\n")):
        (cluster.home / f"{subject}.txt.gz").write_bytes(gzip.compress(numbers.encode()))
    cluster.hpcpipe("submit", "flow.py")
    assert cluster.finish()["verdict"] == "finished: all 7 tasks succeeded"
    assert cluster.hpcpipe("results", "first").stdout == "['1', '8', 'x']\n"
    [folder] = (cluster.home / "work/signals/sort").glob("subject-SAD01-*")
    assert (folder / "sorted.txt").read_text() == "1\n2\n3\n"
    # Its input says copyfile=True: it has a copy of its own, as in a workflow of nipype's.
    assert (folder / "SAD01.txt").is_file()
    assert not (folder / "SAD01.txt").is_symlink()
    assert "Nothing to submit" in cluster.hpcpipe("submit", "flow.py").stdout


def test_a_command_of_an_interface_that_fails_is_told_in_its_own_words(cluster: Cluster) -> None:
    cluster.write("flow.py", FLOW.replace('_cmd = "sort -n"', '_cmd = "sort --no-such-option"'))
    (cluster.home / "SAD01.txt.gz").write_bytes(gzip.compress(b"1\n"))
    cluster.hpcpipe("submit", "flow.py")
    [failure, blocked] = cluster.finish()["failures"]
    assert failure["task"] == "sort/SAD01"
    assert (failure["state"], failure["reason"], failure["exit"]) == ("failed", "exit", 2)
    assert failure["error"].startswith("exit 2: ")
    assert blocked["state"] == "blocked"
