"""The same study as an ordinary nipype workflow, with eight subjects.

    python with_nipype.py           # by nipype itself: one node after another
    hpcpipe submit with_nipype.py   # all of it on the scheduler

Both produce the same arrays in ``norm_workdir/with_nipype``, as ``compare.py`` shows.
"""

import os

import nipype.pipeline.engine as pe
from nipype.interfaces.io import SelectFiles
from nipype.interfaces.utility import Function, IdentityInterface
from subjects import prepare

SUBJECTS = 8


def normalize(source, template):
    """Align an image with the template by the best affine transformation."""
    import os

    import nibabel
    from dipy.align import affine_registration
    from threadpoolctl import threadpool_limits

    target = nibabel.load(template)
    # Fewer iterations than in normalize.py, because this runs twice for comparison.
    steps = {"pipeline": ["center_of_mass", "affine"], "level_iters": [20, 10, 5]}
    with threadpool_limits(1):  # sums are always in the same order
        warped, _ = affine_registration(nibabel.load(source), target, **steps)
    nibabel.save(nibabel.Nifti1Image(warped.astype("float32"), target.affine), "warped.nii.gz")
    return os.path.abspath("warped.nii.gz")


def smooth(image, fwhm):
    """Blur an image with a Gaussian of a full width at half maximum in mm."""
    import os

    import nibabel
    from nibabel.processing import smooth_image

    nibabel.save(smooth_image(nibabel.load(image), fwhm), "smooth.nii.gz")
    return os.path.abspath("smooth.nii.gz")


def average(images):
    """Average images voxel by voxel."""
    import os

    import nibabel
    import numpy

    loaded = [nibabel.load(image) for image in images]
    mean = numpy.mean([image.get_fdata(dtype="float32") for image in loaded], axis=0)
    nibabel.save(nibabel.Nifti1Image(mean, loaded[0].affine), "mean.nii.gz")
    return os.path.abspath("mean.nii.gz")


template, files = prepare("norm_workdir/images", SUBJECTS)

subject = pe.Node(IdentityInterface(fields=["subject"]), name="subject")
subject.iterables = ("subject", [file.name.partition(".")[0] for file in files])
found = pe.Node(
    SelectFiles({"source": "{subject}.nii.gz"}, base_directory=str(template.parent)),
    name="found",
    run_without_submitting=True,  # needs no job of its own
)
warped = pe.Node(Function(function=normalize), name="normalize", mem_gb=1)
warped.inputs.template = str(template)
smoothed = pe.Node(Function(function=smooth), name="smooth", mem_gb=1)
smoothed.iterables = ("fwhm", [4, 8])
mean = pe.JoinNode(
    Function(function=average), joinsource="subject", joinfield="images", name="average", mem_gb=1
)

wf = pe.Workflow("with_nipype", base_dir=os.path.abspath("norm_workdir"))
wf.connect(subject, "subject", found, "subject")
wf.connect(found, "source", warped, "source")
wf.connect(warped, "out", smoothed, "image")
wf.connect(smoothed, "out", mean, "images")

if __name__ == "__main__":
    wf.run()
