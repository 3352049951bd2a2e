"""SPM over many subjects, as one array: ``hpcpipe.spm.normalize(files, template="T2.nii").run()``.

Each function returns a workflow of one node, mapped over its sources along the axis ``subject``.
Other keyword arguments are inputs of nipype's SPM interface, or resources. In your own workflow the
same interfaces are nodes: ``wf.add(spm.Normalize(template=…), source=each(files))``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from hpcpipe.graph.each import Each, each
from hpcpipe.graph.node import task
from hpcpipe.graph.workflow import Workflow
from hpcpipe.nipype.spmcall import Engine, known
from hpcpipe.resources import Resources

File = str | os.PathLike[str]
_AXIS = "subject"
Files = Iterable[File] | Mapping[str, File] | Each


def normalize(sources: Files, template: File, **options: Any) -> Workflow:
    """Warp images to a template with SPM's old normalisation, and write them as ``w…``.

    ``options`` are inputs of the interface, resources as for `task`, and ``name``, ``base_dir`` and
    ``files`` of the workflow. Images may be compressed. Raises WorkflowError if an option is
    unknown, or there is a ``'`` in the name of a file.
    """
    return _workflow("normalize", "Normalize", {"source": sources}, template=template, **options)


def normalize12(sources: Files, tpm: File | None = None, **options: Any) -> Workflow:
    """Warp images to SPM12's tissue probability maps, or to ``tpm``; see `normalize`."""
    given: dict[str, Any] = {} if tpm is None else {"tpm": tpm}
    return _workflow("normalize12", "Normalize12", {"image_to_align": sources}, **given, **options)


def coregister(sources: Files, target: File | Files, **options: Any) -> Workflow:
    """Align images with one target, or each with its own, and write ``r…``; see `normalize`."""
    if isinstance(target, str | os.PathLike):
        return _workflow("coregister", "Coregister", {"source": sources}, target=target, **options)
    return _workflow("coregister", "Coregister", {"source": sources, "target": target}, **options)


def segment(sources: Files, **options: Any) -> Workflow:
    """Segment images into tissues, ``c1…``, ``c2…`` and so on; see `normalize`."""
    return _workflow("segment", "NewSegment", {"channel_files": sources}, **options)


def smooth(sources: Files, fwhm: Any = 8, **options: Any) -> Workflow:
    """Smooth images by a width in mm, one per dimension, or `each` of several; see `normalize`."""
    return _workflow("smooth", "Smooth", {"in_files": sources}, fwhm=fwhm, **options)


def _workflow(
    called: str,
    kind: str,
    sources: Mapping[str, Any],
    *,
    name: str | None = None,
    base_dir: File = ".",
    files: str = "content",
    **options: Any,
) -> Workflow:
    """Return a workflow of one interface, mapped over files that belong together."""
    from nipype.interfaces import spm

    resources = {key: options.pop(key) for key in Resources._fields if key in options}
    given: dict[str, Any] = {
        key: value for key, value in sources.items() if isinstance(value, Each)
    }
    rest = {key: value for key, value in sources.items() if key not in given}
    mapped: dict[str, Any] = each.zip(_AXIS, **rest) if rest else {}
    workflow = Workflow(name or called, base_dir, files=files)
    with known(Engine("matlab")):  # else some interfaces start SPM here to ask its version
        interface = task(**resources)(getattr(spm, kind)())
    workflow.add(interface, name=called, **given, **mapped, **options)
    return workflow
