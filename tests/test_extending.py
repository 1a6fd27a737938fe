"""docs/extending.md: each kind of thing is added to a copy of the package, and each example works from its own file."""

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import contrex
from contrex.cli import main
from contrex.explain.contract import check_contract
from contrex.ops import geometry
from contrex.outside import outside
from contrex.records import read_run
from explain.networks import images, network

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "docs" / "examples"
PAGE = ROOT / "docs" / "extending.md"
MOST_PLACES = 3
MOST_LINES = 80
"""Of an example, with its docstrings."""

SMALL = "--data.num-train 60 --data.num-val 10 --data.num-test 12 --training.epochs 1 --training.batch-size 12".split()  # noqa: SIM905


def part(example, name):
    """The source of one class or function of an example."""
    source = (EXAMPLES / example).read_text()
    node = next(node for node in ast.parse(source).body if getattr(node, "name", None) == name)
    first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    return "\n".join(source.splitlines()[first - 1 : node.end_lineno])


def imports(example):
    source = (EXAMPLES / example).read_text()
    lines = [ast.get_source_segment(source, node) for node in ast.parse(source).body
             if isinstance(node, (ast.Import, ast.ImportFrom))]  # fmt: skip
    return "\n".join(lines)


class Package:
    """A copy of the package, and which of its files are touched."""

    def __init__(self, folder):
        self.root = folder / "contrex"
        shutil.copytree(Path(contrex.__file__).parent, self.root, ignore=shutil.ignore_patterns("__pycache__"))
        self.touched = []

    def new(self, path, *parts):
        assert not (self.root / path).exists()
        (self.root / path).write_text("\n\n\n".join(parts) + "\n")
        self.touched.append(path)

    def change(self, path, change):
        file = self.root / path
        file.write_text(change(file.read_text()))
        self.touched.append(path)

    def name(self, path, module, name, within="__all__"):
        """Import a name and list it."""

        def change(text):
            text = re.sub(
                r"^from contrex", f"from {module} import {name}\nfrom contrex", text, count=1, flags=re.MULTILINE
            )
            entry = f'"{name}"' if within == "__all__" else name
            return re.sub(rf"^({within} = [\[(])", rf"\g<1>{entry}, ", text, count=1, flags=re.MULTILINE)

        self.change(path, change)


def add_explainer(package):
    file = "explain/activation/elementwise_grad_cam.py"
    package.new(file, (EXAMPLES / "elementwise_grad_cam.py").read_text())
    package.name("explain/__init__.py", "contrex.explain.activation.elementwise_grad_cam", "ElementwiseGradCAM")
    # the base class comes from its own file: the package is not whole yet
    package.root.joinpath(file).write_text(
        package.root.joinpath(file).read_text().replace("contrex.explain import", "contrex.explain.explainer import")
    )


def add_loss(package):
    code = imports("cosine_consistency.py")
    code = "\n".join(line for line in code.splitlines() if "torch" in line or "contrex.ops" in line)
    package.new("losses/cosine_consistency.py", code, part("cosine_consistency.py", "cosine_consistency_loss"))
    package.name("losses/__init__.py", "contrex.losses.cosine_consistency", "cosine_consistency_loss")


def add_metric(package):
    metric = part("gini_index.py", "GiniIndex").replace("self, group", "self, heatmaps")
    metric = metric.replace("group.explanation.heatmap", "heatmaps")
    code = imports("gini_index.py").replace("contrex.metrics import", "contrex.metrics.per_sample import")
    package.new("metrics/gini_index.py", code, part("gini_index.py", "gini_index"), metric)
    package.name("metrics/__init__.py", "contrex.metrics.gini_index", "GiniIndex")
    protocol = """

class GiniIndexOfLabel(Protocol):
    '''Gini index of the heatmap: how much of it lies in few cells.'''

    name = "gini_index"
    title = "Gini index of the heatmap"
    needs_heatmaps = True

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.metrics = [GiniIndex()]

    def judge(self, group: Group) -> Sequence[int]:
        self.metrics[0].update(group.explanation.heatmap)
        return group.indices

    def details(self) -> dict[str, Any]:
        return {**self.bench.shared_details(), "explained_class": "predicted"}
"""
    package.change(
        "evaluation/localisation.py",
        lambda text: text.replace("import ContentHeatmap,", "import GiniIndex, ContentHeatmap,") + protocol,
    )


def add_protocol(package):
    text = (EXAMPLES / "heatmap_size.py").read_text()
    package.new(
        "evaluation/heatmap_size.py", text.replace("contrex.evaluation import", "contrex.evaluation.protocol import")
    )
    package.name("evaluation/protocols.py", "contrex.evaluation", "heatmap_size", within="_MODULES")


def add_method(package):
    settings = part("cosine_consistency.py", "CosineConsistency")
    settings = settings.replace('":Cosine', '"contrex.methods.cosine_consistency:Cosine')
    package.change("settings/method.py", lambda text: f"{text}\n\n{settings}\n")
    package.name("settings/__init__.py", "contrex.settings.method", "CosineConsistency")
    code = "\n".join(
        line for line in imports("cosine_consistency.py").splitlines() if "torch import" in line or "Batch" in line
    )
    more = "from contrex.losses import cosine_consistency_loss\nfrom contrex.methods.cgc import ConsistencyStep"
    step = part("cosine_consistency.py", "CosineConsistencyStep")
    package.new("methods/cosine_consistency.py", f"{code}\n{more}", step)


BEHIND = "# From globals"
"""What follows the data sets in settings/data.py."""


def add_data(package):
    settings = part("photos_by_name.py", "PhotosByName")
    settings = settings.replace(
        '":PhotosByNameImages"',
        '"contrex.data.readers.photos_by_name:PhotosByNameImages"\n'
        '    marks: ClassVar[Mapping[str, str]] = {"photos-by-name": ""}',
    )
    package.change("settings/data.py", lambda text: text.replace(BEHIND, f"{settings}\n\n\n{BEHIND}", 1))
    package.name("settings/__init__.py", "contrex.settings.data", "PhotosByName")
    reader = part("photos_by_name.py", "PhotosByNameImages")
    code = """
import numpy as np
from contrex.data.files.folders import ImageFiles, image_names
from contrex.data.sample import Annotation
from contrex.settings import PhotosByName
"""
    package.new("data/readers/photos_by_name.py", code, reader)


def add_recipe(package):
    recipe = part("cosine_consistency.py", "digits")
    text = f"\n\n@recipe\n{recipe}\n".replace("def digits", "def cosine_consistency")
    package.change(
        "recipes/digits.py", lambda before: before.replace("    CGC,\n", "    CGC,\n    CosineConsistency,\n", 1) + text
    )


KINDS = {
    "explainer": add_explainer,
    "loss": add_loss,
    "metric": add_metric,
    "protocol": add_protocol,
    "method": add_method,
    "data set": add_data,
    "recipe": add_recipe,
}

USE = """
import sys
from pathlib import Path
import contrex
from contrex.cli import main
from contrex.evaluation import PROTOCOLS
from contrex.methods import METHODS
from contrex.losses import cosine_consistency_loss
from contrex.metrics import GiniIndex
from contrex.recipes import RECIPES
from contrex.settings import DATA_PREFIXES, CosineConsistency, PhotosByName

assert Path(contrex.__file__).parents[1] == Path(sys.argv[1])
assert contrex.EXPLAINERS["elementwise_grad_cam"] is contrex.ElementwiseGradCAM
assert {"gini_index", "heatmap_size"} <= set(PROTOCOLS)
assert RECIPES["digits_cosine_consistency"]().method == CosineConsistency()
assert DATA_PREFIXES["photos-by-name"] is PhotosByName
small, run, photos = sys.argv[2].split(), sys.argv[3], sys.argv[4]
assert main(["train", "digits_cosine_consistency", "--folder", run, *small]) == 0
words = ["--metrics", "top1", "gini_index", "heatmap_size", "--explainer", "elementwise_grad_cam(power=2)"]
assert main(["evaluate", run, "--output", run + "-record", "--limit", "4", *words]) == 0
assert main(["data", f"photos-by-name:{photos}", "--split", "train"]) == 0
"""


@pytest.fixture
def photos(tmp_path):
    """Four photos whose class stands in their name."""
    folder = tmp_path / "photos" / "train"
    folder.mkdir(parents=True)
    for number, name in enumerate(("cat-1", "cat-2", "dog-1", "dog-2")):
        Image.new("RGB", (24, 20), (60 * number, 90, 30)).save(folder / f"{name}.png")
    return folder.parent


@pytest.mark.slow
def test_everything_is_added_to_the_package_in_three_places_at_most(tmp_path, photos):
    table = dict(re.findall(r"^\| \[(.+?)\]\(.+?\) \| (.+?) \|", PAGE.read_text(), re.MULTILINE))
    package = Package(tmp_path / "package")
    for kind, add in KINDS.items():
        package.touched = []
        add(package)
        assert sorted(package.touched) == sorted(re.findall(r"`(.+?)`", table[kind])), kind
        assert len(package.touched) <= MOST_PLACES, kind
    assert table.keys() == KINDS.keys()
    environment = {**os.environ, "PYTHONPATH": str(package.root.parent), "CONTREX_NO_CACHE": "1"}
    words = [str(package.root.parent), " ".join(SMALL), str(tmp_path / "run"), str(photos)]
    done = subprocess.run(
        [sys.executable, "-c", USE, *words], env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-2000:]
    record = read_run(tmp_path / "run-record").record
    assert {metric.name for metric in record.metrics} == {"top1", "gini_index", "cells_for_50", "cells_for_90"}
    assert record.metric("gini_index").protocol["explainer"] == "elementwise_grad_cam(power=2)"
    assert record.configuration["method"]["kind"] == "CosineConsistency"


# --- from a file of one's own ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_an_example_is_short_and_on_the_page(example):
    assert len((EXAMPLES / example).read_text().splitlines()) <= MOST_LINES
    assert f"(examples/{example})" in PAGE.read_text()


def test_the_explainer_keeps_its_promises_and_is_its_formula():
    kind = outside(f"{EXAMPLES}/elementwise_grad_cam.py:ElementwiseGradCAM", "it")
    net, x = network("mlp"), images()
    check_contract(kind, net, x)
    activation = net.act(net.features(x)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net.head(activation)[:, 1].sum(), activation)
    for power in (1, 2):
        found = kind(net, power=power)(x, target=1).heatmap
        torch.testing.assert_close(found, (activation * gradient).clamp(min=0).pow(power).sum(1).detach())


def test_the_loss_is_its_formula():
    loss = outside(f"{EXAMPLES}/cosine_consistency.py:cosine_consistency_loss", "it")
    maps, views = (torch.rand(3, 4, 4, dtype=torch.float64) - 0.2 for _ in range(2))
    crop = geometry.random_crop(3, 16, scale=(0.3, 1), ratio=(0.8, 1.2), flip=0.5, generator=np.random.default_rng(0))
    expected = []
    for number in range(3):
        cells = (one[number].clamp(min=0)[None, None] for one in (maps, views))
        plain, other = (F.interpolate(one, (16, 16), mode="bilinear") for one in cells)
        moved = geometry.warp_images(plain, crop[number : number + 1])
        expected.append(1 - (moved * other).sum() / (moved.norm() * other.norm()))
    torch.testing.assert_close(loss(maps, views, crop, size=16), torch.stack(expected).mean())


def test_the_examples_train_and_are_measured_from_their_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    run = str(tmp_path / "run")
    assert main(["train", "docs/examples/cosine_consistency.py:digits", "--folder", run, *SMALL]) == 0
    explainer = "docs/examples/elementwise_grad_cam.py:ElementwiseGradCAM(power=2)"
    metric = "docs/examples/gini_index.py:GiniIndex"
    words = ["--metrics", metric, "--explainer", explainer, "--output", f"{run}-record", "--limit", "4"]
    assert main(["evaluate", run, *words]) == 0
    record = read_run(Path(f"{run}-record")).record
    assert record.configuration["method"]["kind"].endswith("docs/examples/cosine_consistency.py:CosineConsistency")
    assert record.metric("gini_index").protocol["explainer"] == explainer
    assert "Gini index" in capsys.readouterr().out.replace("\n", " ")


def test_the_commands_of_the_page_name_what_there_is():
    for example, name in re.findall(r"docs/examples/(\w+\.py):(\w+)", PAGE.read_text()):
        found = outside(f"{EXAMPLES / example}:{name}", "it")
        assert inspect.isclass(found) or callable(found)
