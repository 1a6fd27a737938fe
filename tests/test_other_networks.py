"""The networks that a run's maps are compared with, by name."""

import pytest
import torch
from PIL import Image

from contrex.cli import main
from contrex.errors import ArgumentError
from contrex.experiment.others import other_networks
from contrex.models import Classifier
from contrex.records import read_run
from contrex.training import load_trained, train
from training.runs import quiet, tiny

FILE = """
import torch
from contrex.models import Classifier
from contrex.models.convnet import ConvNet

def larger():
    torch.manual_seed(1)
    return Classifier(ConvNet(10, widths=(4, 8), strides=(2, 2)), (0.5,) * 3, (0.25,) * 3)

def nothing():
    return 3
"""


@pytest.mark.slow
def test_a_run_is_compared_with_a_run_and_a_file(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(FILE)
    for seed in (0, 1):
        recipe = tiny(epochs=1, seed=seed)
        train(recipe, tmp_path / f"run{seed}", console=quiet())
    others = [str(tmp_path / "run1"), f"{tmp_path}/mine.py:larger"]
    words = ["--metrics", "repeatability", "--others", *others, "--limit", "4", "--output", str(tmp_path / "record")]
    assert main(["evaluate", str(tmp_path / "run0"), *words]) == 0
    record = read_run(tmp_path / "record").record
    assert [metric.name for metric in record.metrics][::2] == ["repeatability_ssim", "reproducibility_ssim"]
    assert set(record.metrics[0].protocol["others"]) == set(others)
    assert record.configuration["evaluation"]["others"] == others
    assert "verdict:" in capsys.readouterr().out
    with pytest.raises(ArgumentError, match=r"run0 was trained on other classes"):
        other_networks([str(tmp_path / "run0")], ["cat", "dog"])
    folder, model = tmp_path / "photos", ["--model", "contrex:convnet", "--model.weights", str(tmp_path / "own.pth")]
    for label in range(10):
        (folder / "val" / f"class{label}").mkdir(parents=True)
        Image.new("RGB", (32, 32), (25 * label,) * 3).save(folder / "val" / f"class{label}" / "a.png")
    _, classifier, _ = load_trained(tmp_path / "run0")
    torch.save(classifier.network.state_dict(), tmp_path / "own.pth")
    model += ["--model.options", "widths", "(4,6)", "strides", "(2,2)", "--data", f"folder:{folder}"]
    assert main(["evaluate", *model, "--metrics", "repeatability", "--others", str(tmp_path / "run1")]) == 2
    assert "run1 was trained on other classes: name runs of the same ones" in capsys.readouterr().err


def test_names_that_mean_nothing_are_refused(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    assert isinstance(other_networks([f"{tmp_path}/mine.py:larger"], []).popitem()[1], Classifier)
    with pytest.raises(ArgumentError, match=r"mine.py:nothing must be a function that gives a Classifier, got 3"):
        other_networks([f"{tmp_path}/mine.py:nothing"], [])
    with pytest.raises(
        ArgumentError, match=r"`evaluation.others` must be folders of runs, names such as timm:resnet50"
    ):
        other_networks(["nowhere"], [])
    with pytest.raises(ArgumentError, match=r"`evaluation.others` timm:resnet1: "):
        other_networks(["timm:resnet1"], [])
