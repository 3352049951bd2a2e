"""The poster's "indirect distribution" with today's hpcpipe: SPM's normalisation over subjects.

One nipype workflow, one array on the cluster. From Python::

    TEMPLATE=/templates/T2.nii python indirect.py

or from the command line: ``hpcpipe submit indirect.py``.
"""

from __future__ import annotations

import os
from glob import glob
from typing import Any

from nipype.interfaces.spm import Normalize
from nipype.pipeline.engine import Node, Workflow


def over_files(interface: Any, field: str, files: list[str]) -> Workflow:
    """Run any nipype interface once for each file."""
    normalize = Node(interface, name="normalize")
    normalize.iterables = (field, files)
    workflow = Workflow(name="normalizefa", base_dir=os.path.abspath("norm_workdir"))
    workflow.add_nodes([normalize])
    return workflow


template = os.environ.get("TEMPLATE", "/templates/T2.nii")
normworkflow = over_files(
    Normalize(template=template), "source", sorted(glob(os.path.abspath("SAD*.nii")))
)

if __name__ == "__main__":
    from hpcpipe.nipype import Plugin

    normworkflow.run(plugin=Plugin())
