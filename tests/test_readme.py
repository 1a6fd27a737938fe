"""The README's Python runs, in order, as a reader would type it; its links lead somewhere."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

import contrex
from contrex.explain.contract import check_contract
from contrex.models.convnet import ConvNet
from contrex.ops.geometry import Crop, warp_images
from explain.networks import images as tensors
from explain.networks import network

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])


def test_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cat.jpg", "dog.jpg"):
        Image.new("RGB", (300, 260), "orange").save(name)
    torch.manual_seed(0)
    model = ConvNet(1000, widths=(6, 8), strides=(2, 2), pointwise=10).double().eval()
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    crop = Crop(*(torch.tensor([v] * 3) for v in (4, 0, 16, 24, True)), size=32)
    names = {
        "model": model,
        "network": model,
        "images": images,
        "labels": torch.tensor([0, 1, 2]),
        "crop": crop,
        "views": warp_images(images, crop),
        "mean": (0.5,),
        "std": (0.25,),
        "cross_entropy": cross_entropy,
    }
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["loss"].requires_grad
    assert Path("why.png").stat().st_size > 0


def test_python_of_the_other_pages_runs():
    """Blocks define things of one's own; each is whole but for `import contrex`."""
    found = [
        (page, block)
        for page in PAGES
        if page.name != "README.md" or page.parent != ROOT
        for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    ]
    assert found
    for page, block in found:
        names = {"contrex": contrex}
        exec(compile(block, str(page), "exec"), names)
        for kind in (value for value in names.values() if isinstance(value, type)):
            check_contract(kind, network("mlp"), tensors(), checks=["gives_what_it_promises"], tell=None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
