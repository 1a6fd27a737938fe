"""Completing records of version 1, which said little more of a metric than its name.

Version 2 also records the family's title and meaning, what sets a metric apart, and whether it is the mean of the
images' values. Here this follows from a metric's name, title and samples, as it did in the reports of version 1. Only
records from before version 2 come here; nothing is added for new metrics.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from contrex.records.record import PerImage, Samples

_WORDS: Mapping[str, tuple[str, str]] = {
    "top1": ("", "How often the most probable class is the right one."),
    "top5": ("", "How often the right class is among the five most probable ones."),
    "calibration": (
        "",
        "How far the network's confidence is from how often it is right, averaged over bins of equal confidence.",
    ),
    "fgsm": (
        "Accuracy under attack (FGSM)",
        "How often the most probable class is still the right one after every pixel took one small step, of the size "
        "given, against the network.",
    ),
    "content_heatmap": (
        "",
        "How much of the positive heatmap lies on the object, averaged over images: at 100 % the explanation looks at "
        "nothing but the object.",
    ),
    "pointing_game": (
        "Pointing game",
        "How often the heatmap's maximum lies on the object, or within the tolerance of it.",
    ),
    "stochastic_pointing_game": (
        "Stochastic pointing game",
        "How many of the points drawn from the positive heatmap, as if it were a distribution, lie on the object, or "
        "within the tolerance of it.",
    ),
    "relative_probability": (
        "Relative probability under masking",
        "The probability of one of the two most probable classes, t1 and t2, as if there were no others, when only the "
        "pixels that its own heatmap keeps are left of the image. Kept positive pixels should raise it above that of "
        "the whole image, kept negative ones lower it.",
    ),
    "gradient_sign": (
        "Gradient sign perturbation",
        "What changes when every pixel moves a little along the sign of the input gradient of a score: the class's "
        "logit alone (original), or against the other classes (mean, max, weighted). The logit's own gradient moves "
        "the logit most, the weighted contrast should move probability and accuracy most.",
    ),
    "insertion_auc": (
        "",
        "The mean probability while pixels return to an image without them, most important first: high when the "
        "heatmap found what the network needs.",
    ),
    "deletion_auc": (
        "",
        "The mean probability while pixels are removed, most important first: low when the heatmap found what the "
        "network uses.",
    ),
    "drop_increase": (
        "Drop and increase",
        "What happens to the probability of the predicted class when only the most salient pixels are kept: on how "
        "many images it falls or rises (percent), and by what share of itself (magnitude). Good explanations lose "
        "little and gain much.",
    ),
    "infidelity": (
        "",
        "How far the heatmap is from predicting how the network's answer changes when noise is taken off the image "
        "(mean squared error).",
    ),
    "max_sensitivity": (
        "",
        "How far the heatmap moves, relative to its size, under the worst of some tiny changes of the image. A "
        "constant map does not move at all, so read it beside the others.",
    ),
    "cgc_loss": (
        "",
        "How hard it is to find an image's heatmap, once cropped and flipped, among those of the other images of its "
        "batch: low when explanations move with the picture and tell images apart.",
    ),
    "equivariance": (
        "Equivariance error",
        "How far the heatmap of a cropped or flipped image is from the cropped or flipped heatmap of the image: 0 when "
        "the explanation moves with the picture, 1 when the two have nothing in common.",
    ),
    "parameter_randomization": (
        "Parameter randomisation",
        "How alike heatmaps stay when the network's parameters are drawn anew: an explanation that hardly changes does "
        "not depend on what the network has learnt.",
    ),
    "embedding": (
        "Features of an image and its views",
        "How near the features of an image are to those of its random view, and of the part of it that its heatmap "
        "keeps (cosine similarity).",
    ),
}
"""Title and meaning of each family. The meanings are true whatever the options were."""

_BASELINES = {"blur": "rest blurred", "zero": "rest zero", "mean": "rest mean colour"}

_Place = tuple[Mapping[str, str | float], Mapping[str, str]]
"""Dimensions, and the table, section or row."""


def completed(plain: Mapping[str, Any], samples: Samples) -> dict[str, Any]:
    """The plain values of a record of version 1, completed to those of version 2."""
    return {
        **plain,
        "metrics": [_metric(metric, samples) for metric in plain["metrics"]],
        "profiles": [{**profile, "chart": _chart(profile)} for profile in plain.get("profiles", ())],
    }


def _metric(metric: Mapping[str, Any], samples: Samples) -> dict[str, Any]:
    family = metric.get("family") or metric["name"]
    title, meaning = _WORDS.get(family, ("", ""))
    words = family.replace("_", " ")
    dims, place = _place(metric["name"], metric["title"])
    described = {"name": family, "title": title or words[:1].upper() + words[1:], "meaning": meaning, **place}
    return {**metric, "family": described, "dims": dims, "per_image": _per_image(metric, samples)}


def _place(name: str, title: str) -> _Place:
    """The dimensions of a metric and its place in the tables, from its name.

    Drop and increase are placed as in ExCon's Tables 3 to 8, relative probability as in Tables 1 to 3 of "Why Not Other
    Classes?", gradient signs with one explanation below the other.
    """
    if re.fullmatch(r"(drop|increase)_(percent|magnitude)_\d+(_\d+)?", name):
        direction, quantity, percent = name.split("_", 2)
        words, _, kept = title.partition(", ")
        dims: dict[str, str | float] = {
            "measure": f"{direction}_{quantity}",
            "share": float(percent.replace("_", ".")) / 100,
        }
        return dims, {"table": kept, "row": words}
    if match := re.fullmatch(r"relative_probability(?:_(positive|negative)_(\w+))?_(t1|t2)", name):
        sign, baseline, target = match.groups()
        if sign is None:
            return {"target": target}, {"section": "Whole image", "row": target}
        row = f"{_BASELINES.get(baseline, f'rest {baseline}')}, {target}"
        place = {"section": f"{sign.capitalize()} features kept", "row": row}
        return {"sign": sign, "baseline": baseline, "target": target}, place
    if match := re.fullmatch(r"gradient_sign_(\w+)_(accuracy|logit|probability)_([\d_]+)", name):
        explanation, quantity, size = match.groups()
        epsilon = size.replace("_", ".")
        place = {"section": f"Change of {quantity}, epsilon {epsilon}", "row": explanation.replace("_", " ")}
        return {"explanation": explanation, "quantity": quantity, "epsilon": float(epsilon)}, place
    return {}, {}


def _per_image(metric: Mapping[str, Any], samples: Samples) -> PerImage:
    """What the images' values are to the metric: tested by whether their mean, kept to six digits, is its value."""
    values = samples.values.get(metric["name"], np.empty(0))
    counted = values[~np.isnan(values)]
    value = metric["value"]
    if not len(counted) or value is None or not math.isclose(counted.mean(), value, rel_tol=1e-3, abs_tol=1e-6):
        return "none"
    return "shares" if metric["name"] == "ece" else "values"


def _chart(profile: Mapping[str, Any]) -> str:
    is_reliability = profile["x_title"].lower().startswith("confidence") and profile["y_title"].lower().startswith(
        "acc"
    )
    return "reliability" if is_reliability else "curve"
