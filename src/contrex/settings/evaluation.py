"""The settings of an evaluation: which metrics, and how each is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from contrex.errors import ArgumentError
from contrex.settings.explainer import read_explainer
from contrex.settings.ranges import check, check_at_least, check_positive

Task = Literal["multiclass", "binary", "multilabel"]
"""What a classifier's logits are: a softmax over several, a sigmoid of one, or a sigmoid of each."""

Baseline = Literal["blur", "reflected_blur", "zero", "mean", "road"]
"""What removed pixels become: blurred as in RISE (11x11 pixels, sigma 5), blurred as in "Why Not Other Classes?" (sigma
15), zero (the data set's mean colour), the image's mean colour, or imputed with noise (ROAD)."""


@dataclass(frozen=True)
class Pointing:
    """The pointing game and the stochastic one."""

    tolerance: float = 15.0
    """A point is a hit when it is less than this many pixels away from the object."""
    num_samples: int = 100
    """Points drawn from each heatmap in the stochastic game."""

    def __post_init__(self) -> None:
        check_at_least(0, "evaluation.pointing", tolerance=self.tolerance)
        check_at_least(1, "evaluation.pointing", num_samples=self.num_samples)


@dataclass(frozen=True)
class Infidelity:
    """Infidelity (Yeh et al. 2019) under Gaussian noise."""

    num_samples: int = 10
    noise_std: float = 0.1
    """Standard deviation of the noise, in units of the normalised input."""
    output: Literal["logit", "probability"] = "probability"
    """What the heatmap is to predict: the logit or the probability of the explained class."""
    normalise: bool = True
    """Scale each heatmap to its best fit first, as the scale of a heatmap is arbitrary."""

    def __post_init__(self) -> None:
        check_at_least(1, "evaluation.infidelity", num_samples=self.num_samples)
        check_positive("evaluation.infidelity", noise_std=self.noise_std)


@dataclass(frozen=True)
class MaxSensitivity:
    """Max-sensitivity (Yeh et al. 2019)."""

    num_samples: int = 10
    radius: float = 0.02
    """Of the ball that changes are drawn from, in units of the normalised input."""

    def __post_init__(self) -> None:
        check_at_least(1, "evaluation.max_sensitivity", num_samples=self.num_samples)
        check_positive("evaluation.max_sensitivity", radius=self.radius)


@dataclass(frozen=True)
class RelativeProbability:
    """Relative probability of the two most probable classes under masking ("Why Not Other Classes?", section 5.2)."""

    protocol: Literal["same-area", "paper", "published-code"] = "same-area"
    """Which pixels the two maps keep: equally many (same-area), each those of its own sign (paper), or what the
    published code keeps, which also draws the blur's sigma from 10 to 20."""
    threshold: float = 0.1
    """An image counts if the probability of its second class is above this."""
    baselines: tuple[Literal["blur", "zero", "mean"], ...] = ("blur", "zero", "mean")
    """What pixels that are not kept become. `blur` is the paper's, which elsewhere is called `reflected_blur`."""
    sigma: float = 15.0
    """The sigma of that blur, in pixels."""
    against: Literal["original", "mean", "max", "weighted"] | None = None
    """The maps to compare with. None is the weighted contrast for original maps, and the original for contrasts."""

    def __post_init__(self) -> None:
        check(0 <= self.threshold < 1, "evaluation.relative_probability.threshold", self.threshold, "in 0..1, below 1")
        check(bool(self.baselines), "evaluation.relative_probability.baselines", self.baselines, "one or more")
        check_positive("evaluation.relative_probability", sigma=self.sigma)
        if self.protocol == "published-code" and self.sigma != 15.0:
            raise ArgumentError(
                f"`evaluation.relative_probability.sigma` {self.sigma:g}: the protocol published-code draws it from 10 "
                "to 20. Leave it out, or take another protocol."
            )
        if self.protocol == "paper" and self.against is not None:
            raise ArgumentError(
                f"`evaluation.relative_probability.against` {self.against}: by the protocol paper each map keeps the "
                "pixels of its own sign, whatever the other is. Leave it out, or take another protocol."
            )


@dataclass(frozen=True)
class GradientSign:
    """Gradient sign perturbation by the four scores ("Why Not Other Classes?", section 5.1)."""

    epsilons: tuple[float, ...] = (1e-3, 3e-3)
    """Sizes of the perturbation, for pixel values in [0, 1]."""
    num_steps: int = 1

    def __post_init__(self) -> None:
        rising = all(0 < one < next_ for one, next_ in pairwise((*self.epsilons, math.inf)))
        check(bool(self.epsilons) and rising, "evaluation.gradient_sign.epsilons", self.epsilons, "rising, above 0")
        check_at_least(1, "evaluation.gradient_sign", num_steps=self.num_steps)


@dataclass(frozen=True)
class GridPointing:
    """The grid pointing game (Boehle et al. 2021): grids of images that the classifier is right and sure about."""

    size: int = 3
    """Images on each side of a grid, each of another class."""
    num_grids: int = 500
    """How many grids are made; fewer where the images do not suffice."""
    least_confidence: float = 0.5
    """An image may be used if its class is predicted with at least this probability."""
    cells: Literal["whole", "shrunk"] = "whole"
    """What the network sees: a picture `size` times as high and wide (whole), or that picture made as small as one
    image, for networks of one input size (shrunk)."""
    resized: bool = False
    """Resize heatmaps to the picture before their heat is counted, as Rao et al. (2022) do."""

    def __post_init__(self) -> None:
        check_at_least(2, "evaluation.grid_pointing", size=self.size)
        check_at_least(1, "evaluation.grid_pointing", num_grids=self.num_grids)
        least = self.least_confidence
        check(0 <= least < 1, "evaluation.grid_pointing.least_confidence", least, "in 0..1, below 1")


@dataclass(frozen=True)
class SingleDeletion:
    """The single deletion score (IDSDS, Hesse et al. 2024)."""

    grid: int = 4
    """Cells on each side of the grid of which one after the other is deleted."""
    baseline: Literal["blur", "reflected_blur", "zero", "mean"] = "zero"
    """What deleted pixels become."""
    output: Literal["logit", "probability"] = "logit"
    """What the heat is compared with: the change of the logit, or of the probability, of the label."""

    def __post_init__(self) -> None:
        check_at_least(2, "evaluation.single_deletion", grid=self.grid)


@dataclass(frozen=True)
class HumanMaps:
    """Maps of what people found important, such as those of ClickMe."""

    path: Path | None = None
    """The folder with the maps, NAME.npy or NAME.png for an image, perhaps in the folders that the images are in."""
    ceiling: float | None = None
    """How well one person's map predicts another's (Spearman), such as 0.66 for ClickMe; the alignment is then also
    given as a share of it."""

    def __post_init__(self) -> None:
        told = "a correlation, above 0 and up to 1"
        check(self.ceiling is None or 0 < self.ceiling <= 1, "evaluation.human.ceiling", self.ceiling, told)


@dataclass(frozen=True)
class Randomization:
    """Parameter randomisation (Adebayo et al. 2018)."""

    similarity: Literal["spearman", "spearman_abs", "ssim"] = "spearman"
    """How maps are compared: by the ranks of signed values, of absolute ones, or by structural similarity."""
    order: Literal["cascading", "independent"] = "cascading"
    """Randomise ever more stages from the top, or each stage alone."""


@dataclass(frozen=True)
class Embedding:
    """The t-SNE picture of the features, and how near views are to their image."""

    num_classes: int = 5
    """How many classes are in the picture, evenly spread over the labels."""
    num_images: int = 20
    """How many images of each class are in the picture."""

    def __post_init__(self) -> None:
        check_at_least(1, "evaluation.embedding", num_classes=self.num_classes, num_images=self.num_images)


LATER = ("grid_pointing", "human", "arcc_fractions", "single_deletion", "randomization", "others")
"""Settings that the first records do not have: only where they are not as ever, a record has them."""


@dataclass(frozen=True)
class Evaluation:
    """What to measure, and how."""

    metrics: tuple[str, ...] = ("top1", "top5", "content_heatmap", "cgc_loss", "insertion_auc", "deletion_auc")
    """What to measure: names (contrex metrics lists them), or FILE.py:NAME for your own."""
    split: str = "val"
    explainer: str = "grad_cam"
    """A name (contrex explainers lists them), FILE.py:CLASS or MODULE:CLASS. Options stand in brackets:
    "rise(num_masks=500, seed=1)"."""
    explainers: tuple[str, ...] = ()
    """Measure each of these instead of `explainer`. Images are read once, and each explainer has its own record."""
    layer: str | None = None
    """The layer to explain; None is the last feature map."""
    contrast: str | None = None
    """How to explain a class against the others: None (not at all), "mean", "max", "weighted" or "nearest", with
    options as in "weighted(strength=0.5)" and "nearest(k=3, alpha=0.6)"."""
    task: Task | None = None
    """What the logits are: a softmax over the classes (multiclass), one logit for two classes (binary), or one for each
    label (multilabel). None is binary for a classifier with one logit, else multiclass."""
    content_heatmap_protocol: Literal["native", "published", "square"] = "native"
    """What is explained for the content heatmap and the pointing games: the whole image, its shorter side resized to
    the network's size (native) or to 448 (published), or the central square that is classified, with boxes cut at its
    border (square)."""
    equal_spread: float = 0.25
    """The share of their cells that maps are spread over when the content heatmap is measured at equal spread."""
    region: Literal["boxes", "mask"] = "boxes"
    """What tells where the object is: its boxes, or its mask."""
    pointing: Pointing = Pointing()
    grid_pointing: GridPointing = GridPointing()
    human: HumanMaps = HumanMaps()
    insertion_step: int | None = None
    """Pixels per step of the insertion and deletion curves; None is 8 rows of the image (224 * 8 at 224)."""
    insertion_baseline: Baseline = "blur"
    """The image that insertion starts from."""
    deletion_baseline: Baseline = "zero"
    """The image that deletion ends with."""
    drop_fractions: tuple[float, ...] = (0.15, 0.30, 0.45)
    """Shares of the pixels to keep for drop and increase."""
    arcc_fractions: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    """Shares of the pixels that ROAD removes for ARCC."""
    single_deletion: SingleDeletion = SingleDeletion()
    infidelity: Infidelity = Infidelity()
    max_sensitivity: MaxSensitivity = MaxSensitivity()
    relative_probability: RelativeProbability = RelativeProbability()
    gradient_sign: GradientSign = GradientSign()
    equivariance_shares: tuple[float, ...] = (0.8, 0.6, 0.4, 0.2)
    """Shares of the image's area that crops keep for the equivariance error. A flip is always measured too."""
    randomization: Randomization = Randomization()
    others: tuple[str, ...] = ()
    """Networks of the same task whose maps are compared with this one's: folders of runs, names of networks with their
    library's weights (timm:resnet50), or FILE.py:NAME, a function that gives a `Classifier`."""
    fgsm_epsilons: tuple[float, ...] = (1 / 255, 2 / 255, 4 / 255)
    """Sizes of the attack, for pixel values in [0, 1]."""
    calibration_bins: int = 15
    embedding: Embedding = Embedding()
    batch_size: int | None = None
    """Images in one forward pass; None is 8 on a CPU and 64 on a GPU."""
    limit: int | None = None
    """Evaluate this many images only."""
    limit_by: Literal["class", "order"] | None = None
    """Which images a limit leaves: spread evenly over the classes (class), or the first ones (order). None is class, if
    there is a limit."""
    gallery: int = 24
    """How many pictures are kept for the report."""
    num_bootstrap: int = 2000
    """How many bootstrap resamples are behind each interval."""
    seed: int = 0
    """The seed of the bootstrap and of everything that metrics draw."""
    checkpoint: Literal["last", "best"] = "last"
    """The weights of a training run: the last ones, or those with the best validation accuracy."""
    workers: int = 0
    """Processes that load images."""
    device: str = "auto"

    def __post_init__(self) -> None:
        repeated = len(set(self.metrics)) < len(self.metrics)
        check(bool(self.metrics) and not repeated, "evaluation.metrics", self.metrics, "one metric or more, each once")
        # Each explainer is spelled in one way, so that an extra space does not make another record.
        object.__setattr__(self, "explainer", str(read_explainer(self.explainer, "`evaluation.explainer`")))
        each = tuple(str(read_explainer(text, "`evaluation.explainers`")) for text in self.explainers)
        object.__setattr__(self, "explainers", each)
        check(len(set(each)) == len(each), "evaluation.explainers", each, "different explainers")
        if each and self.explainer not in (*each, Evaluation.explainer):
            raise ArgumentError(
                f"`evaluation.explainer` {self.explainer}, and `evaluation.explainers` {' '.join(each)}, which are "
                "measured instead of it: name it among them."
            )
        least_one = {"insertion_step": self.insertion_step, "batch_size": self.batch_size, "limit": self.limit}
        counts = {"num_bootstrap": self.num_bootstrap, "calibration_bins": self.calibration_bins}
        check_at_least(1, "evaluation", **least_one, **counts)
        check_at_least(0, "evaluation", gallery=self.gallery, seed=self.seed, workers=self.workers)
        if self.limit is None and self.limit_by is not None:
            raise ArgumentError(f"`evaluation.limit_by` {self.limit_by!r} means nothing without a limit: give --limit.")
        if self.limit is not None and self.limit_by is None:  # a record says it, as earlier ones had the first images
            object.__setattr__(self, "limit_by", "class")
        check(0 < self.equal_spread < 1, "evaluation.equal_spread", self.equal_spread, "between 0 and 1")
        check(len(set(self.others)) == len(self.others), "evaluation.others", self.others, "different networks")
        for name in ("drop_fractions", "arcc_fractions", "equivariance_shares", "fgsm_epsilons"):
            values = getattr(self, name)
            fits = bool(values) and len(set(values)) == len(values) and all(0 < value <= 1 for value in values)
            check(fits, f"evaluation.{name}", values, "one share or more, each once, above 0 and at most 1")
        check(max(self.arcc_fractions) < 1, "evaluation.arcc_fractions", self.arcc_fractions, "shares below 1")
        percent = [100 * share for share in self.equivariance_shares]
        is_whole = all(abs(one - round(one)) < 1e-9 and one >= 1 for one in percent)
        check(is_whole, "evaluation.equivariance_shares", self.equivariance_shares, "whole percentages, such as 0.25")

    def written(self) -> Mapping[str, Any]:
        """The fields as records have them since the first, and no word of what came later and is as ever."""
        usual = {one.name: one.default for one in fields(self)}
        return {name: value for name, value in vars(self).items() if name not in LATER or value != usual[name]}

    def of_each_explainer(self) -> tuple[Evaluation, ...]:
        """The same evaluation for each of `explainers`, or for `explainer` if there are none."""
        return tuple(replace(self, explainer=text, explainers=()) for text in self.explainers or (self.explainer,))
