"""Register six brains to a template, smooth them at two widths, average, and draw a picture.

    hpcpipe run normalize.py        # submit and wait; a picture is drawn at the end
    hpcpipe submit normalize.py     # only submit

The steps are plain functions. They import their libraries inside, so that submitting stays quick
and a task imports only what it uses. A function that returns a Path runs in its own folder.
"""

from pathlib import Path

from subjects import prepare

from hpcpipe import Workflow, each, task


@task(cpus=1, memory="1G", time="10m")
def normalize(source: Path, template: Path) -> Path:
    """Align an image with the template by the best affine transformation."""
    import nibabel
    from dipy.align import affine_registration
    from threadpoolctl import threadpool_limits

    target = nibabel.load(template)
    steps = {"pipeline": ["center_of_mass", "affine"], "level_iters": [100, 50, 10]}
    with threadpool_limits(1):  # one cpu is requested; and sums are always in the same order
        warped, _ = affine_registration(nibabel.load(source), target, **steps)
    nibabel.save(nibabel.Nifti1Image(warped.astype("float32"), target.affine), "warped.nii.gz")
    return Path("warped.nii.gz")


@task(memory="1G", time="5m")
def smooth(image: Path, fwhm: float) -> Path:
    """Blur an image with a Gaussian of a full width at half maximum in mm."""
    import nibabel
    from nibabel.processing import smooth_image

    nibabel.save(smooth_image(nibabel.load(image), fwhm), "smooth.nii.gz")
    return Path("smooth.nii.gz")


@task(memory="1G", time="5m")
def average(images: list[Path]) -> Path:
    """Average images voxel by voxel."""
    import nibabel
    import numpy

    loaded = [nibabel.load(image) for image in images]
    mean = numpy.mean([image.get_fdata(dtype="float32") for image in loaded], axis=0)
    nibabel.save(nibabel.Nifti1Image(mean, loaded[0].affine), "mean.nii.gz")
    return Path("mean.nii.gz")


@task(memory="1G", time="5m")
def picture(
    template: Path, unaligned: Path, aligned: Path, smoothed: list[Path], widths: list[int]
) -> Path:
    """Draw each mean beside the template, with the template's edges over all of them."""
    import nibabel
    import numpy
    from matplotlib.figure import Figure

    columns = {"template": template, "mean before": unaligned, "mean after": aligned}
    for width, image in zip(widths, smoothed, strict=True):
        columns[f"after, smoothed {width} mm"] = image
    images = {title: nibabel.load(path).get_fdata() for title, path in columns.items()}
    target = images["template"]
    cuts = numpy.s_[33, 6:-6], numpy.s_[:, 39], numpy.s_[:, 6:-6, 35]  # all are square

    figure = Figure(figsize=(12, 8), facecolor="black", layout="compressed")
    figure.suptitle("orange: edges of the template,  r: correlation with it", color="orange")
    axes = figure.subplots(len(cuts), len(images))
    for (title, image), column in zip(images.items(), axes.T, strict=True):
        alike = numpy.corrcoef(image.ravel(), target.ravel())[0, 1]
        column[0].set_title(f"{title}\nr = {alike:.3f}", color="white")
        for cut, panel in zip(cuts, column, strict=True):
            panel.imshow(image[cut].T, cmap="gray", origin="lower", interpolation="bilinear")
            panel.contour(target[cut].T, levels=[110], colors="orange", linewidths=0.9)
            panel.axis("off")
    figure.savefig("before_after.png", dpi=110)
    return Path("before_after.png")


template, files = prepare("norm_workdir/images")
widths = [4, 8]

wf = Workflow("normalizefa", base_dir="norm_workdir")
warped = wf.add(normalize, source=each(files, axis="subject"), template=template)
smooth_ = wf.add(smooth, image=warped, fwhm=each(widths, axis="fwhm"))  # axes: subject × fwhm
mean = wf.add(average, images=smooth_.gather("subject"))  # axis: fwhm

unaligned = wf.add(average, name="unaligned", images=files)
aligned = wf.add(average, name="aligned", images=warped.gather("subject"))
wf.add(
    picture,
    template=template,
    unaligned=unaligned,
    aligned=aligned,
    smoothed=mean.gather("fwhm"),
    widths=widths,
)
