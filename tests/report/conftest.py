"""Two small runs, made by hand, that every test of the report varies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contrex.records import Gallery, MetricRecord, Record, RunRecord, Samples

PATHS = ["val/a.png", "val/b.png", "val/c.png", "val/d.png"]
MakeRun = Callable[..., RunRecord]


def make_metric(values: list[float | None], **changes: Any) -> MetricRecord:
    """Content heatmap over `values`; None is a skipped image."""
    counted = [value for value in values if value is not None]
    mean = float(np.mean(counted))
    metric = MetricRecord(
        "content_heatmap",
        "Content heatmap",
        mean,
        mean - 2.0,
        mean + 2.0,
        len(counted),
        len(values) - len(counted),
        "all-zero map",
        "%",
        True,
        {"split": "val"},
    )
    return replace(metric, **changes)


def make_gallery(paths: list[str], heatmap_scale: float = 1.0) -> Gallery:
    generator = np.random.default_rng(0)
    count = len(paths)
    return Gallery(
        [generator.integers(0, 256, (16, 24, 3), dtype=np.uint8) for _ in paths],
        [(heatmap_scale * generator.normal(size=(4, 6))).astype(np.float32) for _ in paths],
        [np.array([[2, 3, 12, 13]], np.float32) for _ in paths],
        paths,
        [0] * count,
        [1] * count,
        [0.75] * count,
    )


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    def make(
        name: str = "cross_entropy",
        values: list[float | None] | None = None,
        *,
        paths: list[str] = PATHS,
        gallery: Gallery | None = None,
        metric: dict[str, Any] | None = None,
        **changes: Any,
    ) -> RunRecord:
        values = values or [40.0, 50.0, 60.0, 70.0]
        record = Record(
            name,
            "2026-11-20T10:00:00+00:00",
            f"contrex train digits --name {name}",
            {
                "kind": "Recipe",
                "name": name,
                "model": {"kind": "Model", "name": "torchvision:resnet18"},
                "method": {"kind": "CGC" if "cgc" in name else "CrossEntropy"},
                "training": {"epochs": 15, "seed": changes.get("seed", 0)},
                "evaluation": {"split": "val", "explainer": "grad_cam"},
            },
            {"contrex": "0.1.0"},
            0,
            {"name": "digits", "num_train": 3900, "num_val": 4},
            ["cat", "dog"],
            [make_metric(values, **(metric or {}))],
            {"train_loss": [(1.0, 2.0), (2.0, 1.0), (3.0, 0.5)]},
        )
        numbers = np.array([math.nan if value is None else value for value in values])
        count = len(paths)
        samples = Samples(
            paths,
            np.zeros(count, np.int64),
            np.ones(count, np.int64),
            np.full(count, 0.75),
            {"content_heatmap": numbers},
        )
        return RunRecord(replace(record, **changes), samples, gallery if gallery is not None else make_gallery(paths))

    return make
