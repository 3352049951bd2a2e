"""An example of everything a workflow can do."""

from pathlib import Path

from hpcpipe import Workflow, each, task

wf = Workflow("study", base_dir="work")
images = sorted(Path("T1").glob("*.nii"))


# 1
@task(time="10m")
def measure(image: Path, fraction: float) -> dict[str, float]:
    """Measure an image."""
    return {"voxels": image.stat().st_size * fraction, "bytes": image.stat().st_size}


measured = wf.add(measure, image=each(images, axis="subject"), fraction=each([0.3, 0.5]))


# 2
def scale(low: float, high: float) -> float:
    """Return the distance between two limits."""
    return high - low


scales = wf.add(scale, **each.zip("range", labels=["narrow", "wide"], low=[2, 0], high=[3, 9]))


# 3
def ratio(voxels: float, size: float) -> float:
    """Divide one by the other."""
    return voxels / max(1, size)


ratios = wf.add(ratio, voxels=measured["voxels"], size=measured["bytes"])


# 4
def total(ratios: list[float]) -> Path:
    """Write down a sum."""
    Path("total.txt").write_text(f"{sum(ratios)}\n")
    return Path("total.txt")


totals = wf.add(total, ratios=ratios.gather("subject"))  # axis: fraction


# 5
stripped = wf.command(
    "cp {image} {brain}",
    name="strip",
    image=each(images, axis="subject"),
    outputs={"brain": "{image.stem}_brain.nii"},
    resources={"time": "5m", "memory": "500M"},
)
wf.command("cat {brains}", brains=stripped["brain"].gather())

# 6
wf.command("echo all is measured", after=[totals.gather()])
