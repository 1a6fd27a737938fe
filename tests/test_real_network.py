"""A real network on real photos: the command's numbers against a script that shares nothing with contrex."""

import csv
import json
from collections import defaultdict

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image

from conftest import shared
from contrex.cli import main

LIMIT = 100


def independent(root, weights, *, side):
    """Top-1 and content heatmap of the first photos: Pillow, timm, autograd and numpy, one image at a time."""
    network = timm.create_model("mobilenetv2_100", pad_type="same")
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.eval()
    boxes = defaultdict(list)
    for row in csv.DictReader((root / "boxes.csv").read_text().splitlines()):
        boxes[row["path"]].append([float(row[key]) for key in ("xmin", "ymin", "xmax", "ymax")])
    rows = sorted(csv.DictReader((root / "labels.csv").read_text().splitlines()), key=lambda row: row["path"])
    correct, shares = [], []
    for row in rows[:LIMIT]:
        with Image.open(root / row["path"]) as stored:
            image = stored.convert("RGB")
        label, (width, height) = int(row["class_index"]), image.size

        def resized(length, image=image, width=width, height=height):
            size = (round(width * length / min(width, height)), round(height * length / min(width, height)))
            return image.resize(size, Image.Resampling.BILINEAR)

        def tensor(picture):
            return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255 * 2 - 1

        large = resized(256)
        left, top = (large.width - 224) // 2, (large.height - 224) // 2
        with torch.no_grad():
            correct.append(int(network(tensor(large.crop((left, top, left + 224, top + 224)))).argmax()) == label)
        activation = network.forward_features(tensor(resized(side))).detach().requires_grad_()
        network.forward_head(activation)[0, label].backward()
        heatmap = (activation.grad.mean((2, 3), keepdim=True) * activation).sum(1).relu().detach()
        if heatmap.sum() == 0:
            continue
        full = F.interpolate(heatmap[None], (height, width), mode="bilinear", align_corners=False)[0, 0].numpy()
        inside = np.zeros((height, width), bool)
        y, x = np.mgrid[:height, :width] + 0.5
        for x0, y0, x1, y1 in boxes[row["path"]]:
            inside |= (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
        shares.append(100 * full[inside].sum() / full.sum())
    return 100 * np.mean(correct), np.mean(shares), len(shares)


@pytest.mark.slow
@pytest.mark.parametrize(("protocol", "side"), [("native", 224), ("published", 448)])
def test_mobilenet_on_imagenet_photos(tmp_path, protocol, side, monkeypatch):
    root, weights = shared("data", "imagenet_val_500"), shared("data", "weights", "mobilenetv2_100_timm_same.pth")
    command = [
        *("evaluate", "--model.name", "timm:mobilenetv2_100", "--model.options", "pad_type", "same"),
        *("--model.weights", weights, "--model.mean", "0.5", "--model.std", "0.5", "--data.path", root),
        *("--metrics", "top1", "content_heatmap", "--content-heatmap-protocol", protocol, "--limit", LIMIT),
        *("--limit-by", "order"),
        *("--output", tmp_path, "--num-bootstrap", 20),
    ]
    assert main([str(word) for word in command]) == 0
    metrics = {m["name"]: m for m in json.loads((tmp_path / "record.json").read_text())["metrics"]}
    accuracy, content, num_counted = independent(root, weights, side=side)
    assert metrics["top1"]["value"] == pytest.approx(accuracy)
    assert metrics["content_heatmap"]["num_counted"] == num_counted
    assert metrics["content_heatmap"]["value"] == pytest.approx(content, abs=0.1)
