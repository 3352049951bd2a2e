"""Compare the arrays of two finished runs: ``python compare.py A B``.

A and B are folders with images anywhere below them, such as two ``norm_workdir``. Exit status: 0 if
both have the same images, equal in every voxel; 1 if not; 2 if a folder is missing.
"""

import sys
from pathlib import Path

import nibabel
import numpy


def main(arguments: list[str]) -> int:
    """Print each image that differs, and return the exit status."""
    if len(arguments) != 2 or not all(Path(argument).is_dir() for argument in arguments):
        print("usage: python compare.py A B     (the folders of two finished runs)")
        return 2
    ours, theirs = (images(Path(argument)) for argument in arguments)
    if not ours and not theirs:
        print("There are no images in either folder: have the runs finished?")
        return 1
    names = sorted(ours.keys() | theirs.keys())
    found = {name: difference(ours.get(name), theirs.get(name)) for name in names}
    differing = {name: what for name, what in found.items() if what}
    for name, what in differing.items():
        print(f"{name}: {what}")
    print(f"{len(names) - len(differing)} of {len(names)} images are identical")
    return 1 if differing else 0


def images(run: Path) -> dict[str, Path]:
    """Return the images of a run, by their relative paths."""
    return {path.relative_to(run).as_posix(): path for path in run.rglob("*.nii.gz")}


def difference(ours: Path | None, theirs: Path | None) -> str | None:
    """Return how two images differ, and in which voxel most; None if they are identical."""
    if ours is None or theirs is None:
        return f"only in {'B' if ours is None else 'A'}"
    a, b = nibabel.load(ours), nibabel.load(theirs)
    x, y = numpy.asanyarray(a.dataobj), numpy.asanyarray(b.dataobj)
    if (x.shape, x.dtype) != (y.shape, y.dtype):
        return f"{x.shape} {x.dtype} in A, {y.shape} {y.dtype} in B"
    if not numpy.array_equal(a.affine, b.affine):
        return "same shape, at another place (affine)"
    unequal = (x != y) & ~((x != x) & (y != y))  # NaN counts as equal to NaN
    if not unequal.any():
        return None
    gap = numpy.nan_to_num(numpy.abs(x.astype(float) - y), nan=numpy.inf)
    worst = numpy.argmax(numpy.where(unequal, gap, -1))
    most = tuple(int(place) for place in numpy.unravel_index(worst, x.shape))
    return f"{unequal.sum()} of {x.size} voxels; most in {most}: {x[most]} in A, {y[most]} in B"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
