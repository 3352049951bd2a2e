"""The images of the example: a real template, and six pseudo-subjects made from it.

Each subject is the MNI152 brain, moved, resized, unevenly lit and noisy. All of this comes from a
seed, the number of the subject, so that the images are the same on every machine.
"""

from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

MNI152 = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
VOXEL = 3.0  # mm
SHAPE = (68, 80, 68)  # voxels: the brain, and room for it to move
CORNER = (-102.0, -138.0, -96.0)  # mm, where the first voxel is


def prepare(folder: str | Path, count: int = 6) -> tuple[Path, list[Path]]:
    """Return the template and the subjects in a folder, after creating those that are missing.

    Existing files are kept, so that loading the workflow again costs nothing and changes no input.
    Delete the folder to create everything again.
    """
    folder = Path(folder).absolute()
    template = folder / "template.nii.gz"
    seeds = {folder / f"SAD{number:02}.nii.gz": number for number in range(1, count + 1)}
    missing = [path for path in (template, *seeds) if not path.exists()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        brain = read_brain()
        for path in missing:
            write(make_subject(brain, seeds[path]) if path in seeds else resample(brain), path)
    return template, list(seeds)


def read_brain() -> Any:
    """Return the T1 image that comes with nilearn, blurred to the voxels of the example."""
    import nibabel
    from nibabel.processing import smooth_image

    return smooth_image(nibabel.load(files("nilearn.datasets.data") / MNI152), VOXEL)


def resample(image: Any) -> Any:
    """Resample an image on the grid that the template and all subjects share."""
    import numpy
    from nibabel.processing import resample_from_to

    grid = numpy.diag([VOXEL, VOXEL, VOXEL, 1.0])
    grid[:3, 3] = CORNER
    return resample_from_to(image, (SHAPE, grid), order=1)


def make_subject(brain: Any, seed: int) -> Any:
    """Return a subject made from the brain: moved, resized, unevenly lit, with noise."""
    import numpy
    from nibabel import Nifti1Image
    from scipy.spatial.transform import Rotation

    random = numpy.random.default_rng(seed)
    turn = Rotation.from_euler("xyz", random.uniform(-15, 15, 3), degrees=True)
    move = numpy.eye(4)
    move[:3, :3] = turn.as_matrix() @ numpy.diag(random.uniform(0.9, 1.1, 3))
    move[:3, 3] = random.uniform(-12, 12, 3)
    moved = resample(Nifti1Image(brain.get_fdata(), move @ brain.affine))

    x, y, z = numpy.meshgrid(*(numpy.linspace(-1, 1, size) for size in SHAPE), indexing="ij")
    dx, dy, dz = random.uniform(-0.3, 0.3, 3)
    lit = moved.get_fdata() * (1 + dx * x + dy * y + dz * z)
    return Nifti1Image(lit + random.normal(0, 6, SHAPE), moved.affine)


def write(image: Any, path: Path) -> None:
    """Write an image atomically, one byte per voxel."""
    import nibabel

    voxels = image.get_fdata().round().clip(0, 255).astype("uint8")
    with TemporaryDirectory(dir=path.parent) as scratch:
        draft = Path(scratch, path.name)
        nibabel.save(nibabel.Nifti1Image(voxels, image.affine), draft)
        draft.replace(path)
