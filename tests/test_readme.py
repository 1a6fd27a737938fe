"""The README's Python runs, in order, as a reader would type it; its links lead somewhere."""

import re
import tomllib
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy

from contrex.cli import COMMANDS
from contrex.evaluation import PROTOCOLS
from contrex.explain import EXPLAINERS
from contrex.methods import METHODS
from contrex.models.convnet import ConvNet
from contrex.models.named import LIBRARIES
from contrex.models.zero_shot import ZeroShot
from contrex.ops.geometry import Crop, warp_images


class Scores(nn.Module):
    """A network with something beside the images, and its logits among other things."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images, metadata):
        return {"scores": self.model(images) + metadata[:, :1], "metadata": metadata}


def stub(library, network, monkeypatch):
    """The library serves this network instead of what it would download."""
    monkeypatch.setattr(type(LIBRARIES[library]), "pretrained", lambda self, name, arguments: network)


ROOT = Path(__file__).resolve().parents[1]
DOCS = [page for page in ROOT.glob("docs/**/*.md") if "_build" not in page.parts]
PAGES = sorted(
    [*(ROOT / name for name in ("llms.txt", "ARCHITECTURE.md", "CONTRIBUTING.md")), *ROOT.glob("README*.md"), *DOCS]
)


def test_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cat.jpg", "dog.jpg"):
        Image.new("RGB", (300, 260), "orange").save(name)
    torch.manual_seed(0)
    model = ConvNet(1000, widths=(6, 8), strides=(2, 2), pointwise=10).double().eval()
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    torch.save(torchvision.models.resnet18(num_classes=2).state_dict(), "mine.pth")
    stub("timm", timm.create_model("test_resnet").eval(), monkeypatch)
    texts = torch.randn(2, 1000)
    clip = ZeroShot(model, texts, torch.tensor(1.0), classes=("a photo of a tabby", "a photo of a tiger cat")).eval()
    stub("open_clip", clip, monkeypatch)
    told = {"names": clip.classes, "image_size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    monkeypatch.setattr(type(LIBRARIES["open_clip"]), "told", lambda *_, **__: told)
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
        "two_inputs": Scores(model),
        "metadata": torch.zeros(3, 2),
    }
    blocks = python_of("README.md")
    assert len(blocks) == 7
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["loss"].requires_grad
    assert names["classifier"].names[281] == "tabby"
    assert names["odd"].logits.shape == (3, 1000)
    assert names["why"].names == clip.classes
    assert Path("why.png").stat().st_size > 0


def python_of(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def test_python_for_assistants_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (300, 260), "orange").save("cat.jpg")
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18(num_classes=2).state_dict(), "mine.pth")
    names = {"model": ConvNet(6, widths=(6, 8), strides=(2, 2)).eval(), "images": torch.randn(2, 3, 32, 32)}
    for block in python_of("llms.txt"):
        exec(compile(block, "llms.txt", "exec"), names)
    assert names["trained"].heatmap.requires_grad
    assert Path("why.png").stat().st_size > 0


def names_in(start):
    """What a line of llms.txt lists."""
    (line,) = re.findall(rf"^{re.escape(start)}[^\n]*: (`.*)\.$", (ROOT / "llms.txt").read_text(), re.MULTILINE)
    return re.findall(r"`(\w+)`", line)


def test_assistants_are_told_all_names():
    assert names_in("Explainers") == list(EXPLAINERS)
    assert names_in("Metrics") == list(PROTOCOLS)
    assert names_in("Training methods") == list(METHODS)
    assert names_in("Commands") == list(COMMANDS)


COMMENT = re.compile(r"\s*#\s.*")


def skeleton(page):
    """What of a page is the same in each language: levels of headings, code and commands without comments, links, and
    the figures of tables."""
    text = page.read_text(encoding="utf-8")
    code = python_of(page)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^    .*$", "", text, flags=re.MULTILINE)
    return {
        "headings": re.findall(r"^(#+) ", prose, re.MULTILINE),
        "python": [[COMMENT.sub("", line) for line in block.splitlines() if '"""' not in line] for block in code],
        "commands": [COMMENT.sub("", line) for line in re.findall(r"^    (\S.*)$", text, re.MULTILINE)],
        "links": sorted(re.findall(r"\]\(([^)\s]+)\)", prose)),
        "figures": [re.findall(r"[-+]?\d+(?:\.\d+)?", row) for row in re.findall(r"^\|.*$", prose, re.MULTILINE)],
    }


def test_the_chinese_readme_says_the_same():
    english, chinese = skeleton(ROOT / "README.md"), skeleton(ROOT / "README.zh.md")
    english["links"].remove("README.zh.md")
    chinese["links"].remove("README.md")
    for part in english:
        assert chinese[part] == english[part], part


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_links_lead_somewhere_from_the_package_index():
    """What the build puts into the package's description: no link that only a clone has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    text = (ROOT / "README.md").read_text(encoding="utf-8") + "\n![why](docs/why.png)\n"
    for one in project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(one["pattern"], one["replacement"], text)
    home = project["project"]["urls"]["Homepage"]
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    assert len(links) > 10
    for link in links:
        assert link.startswith(("https://", "#")), link
        place = link.removeprefix(f"{home}/blob/main/")
        assert place == link or (ROOT / place.partition("#")[0]).exists(), link
    assert "![why](https://raw.githubusercontent.com/" in text
