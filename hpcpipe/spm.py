"""SPM over many subjects, as one array: ``hpcpipe.spm.normalize(files, template="T2.nii").run()``.

Each function makes a workflow of one node, mapped over its sources along the axis ``subject``. What
it does not name itself are inputs of nipype's interface of SPM, or resources. In a workflow of your
own the same interfaces are nodes: ``wf.add(spm.Normalize(template=…), source=each(files))``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from hpcpipe.mapped import Each, each
from hpcpipe.model import Resources
from hpcpipe.node import task
from hpcpipe.spmcall import Engine, known
from hpcpipe.workflow import Workflow

File = str | os.PathLike[str]
_AXIS = "subject"
Files = Iterable[File] | Mapping[str, File] | Each


def normalize(sources: Files, template: File, **options: Any) -> Workflow:
    """Warp images to a template, as SPM's old normalisation does, and write them as ``w…``.

    ``options`` are inputs of the interface, resources as of `task`, and ``name`` and ``base_dir``
    of the workflow. Raises WorkflowError where one of them is unknown, or an image is compressed.
    """
    return _workflow("normalize", "Normalize", {"source": sources}, template=template, **options)


def normalize12(sources: Files, tpm: File | None = None, **options: Any) -> Workflow:
    """Warp images to SPM12's tissue probability maps, or those of ``tpm``; as `normalize`."""
    given: dict[str, Any] = {} if tpm is None else {"tpm": tpm}
    return _workflow("normalize12", "Normalize12", {"image_to_align": sources}, **given, **options)


def coregister(sources: Files, target: File | Files, **options: Any) -> Workflow:
    """Align images with one target, or each with its own; write them as ``r…``; as `normalize`."""
    if isinstance(target, str | os.PathLike):
        return _workflow("coregister", "Coregister", {"source": sources}, target=target, **options)
    return _workflow("coregister", "Coregister", {"source": sources, "target": target}, **options)


def segment(sources: Files, **options: Any) -> Workflow:
    """Segment images into tissues, ``c1…``, ``c2…`` and so on; as `normalize`."""
    return _workflow("segment", "NewSegment", {"channel_files": sources}, **options)


def smooth(sources: Files, fwhm: Any = 8, **options: Any) -> Workflow:
    """Smooth images by a width in mm, three of them, or `each` of several; as `normalize`."""
    return _workflow("smooth", "Smooth", {"in_files": sources}, fwhm=fwhm, **options)


def _workflow(
    called: str,
    kind: str,
    files: Mapping[str, Any],
    *,
    name: str | None = None,
    base_dir: File = ".",
    **options: Any,
) -> Workflow:
    """Make a workflow of one interface, mapped over files that go together."""
    from nipype.interfaces import spm

    resources = {key: options.pop(key) for key in Resources._fields if key in options}
    given: dict[str, Any] = {key: value for key, value in files.items() if isinstance(value, Each)}
    rest = {key: value for key, value in files.items() if key not in given}
    mapped: dict[str, Any] = each.zip(_AXIS, **rest) if rest else {}
    workflow = Workflow(name or called, base_dir)
    with known(Engine("matlab")):  # some interfaces would start it here to ask for its version
        interface = task(**resources)(getattr(spm, kind)())
    workflow.add(interface, name=called, **given, **mapped, **options)
    return workflow
