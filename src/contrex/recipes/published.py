"""The papers' numbers, for comparison with our own.

A row has the name of the recipe that trains it, a column the name of the metric in our records; `published("cgc", "1")`
is a table. Values are as printed: `scale` converts them to the unit of our records, and `measured` says what differs
from the recipe's own evaluation.

    cgc              Pillai et al., "Consistent Explanations by Contrastive Learning", CVPR 2022, Tables 1-10
    cgc-supplement   its supplement, Table 1
    excon            "ExCon: Explanation-driven Supervised Contrastive Learning", ICLR 2022 submission, Tables 1-8
    contrast         Wang and Wang, "Why Not Other Classes?", NeurIPS 2022, Tables 2 and 3 of the appendix
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from contrex.errors import unknown_name


@dataclass(frozen=True)
class Measurement:
    """A way to measure a trained run: what differs from its recipe's own evaluation."""

    fields: tuple[tuple[str, str], ...] = ()
    """Names of fields of the evaluation, and their values."""
    data: str | None = None
    """The prefix (as in `PREFIX:PATH`) of another data set to measure on."""


OWN = Measurement()
"""The recipe's own evaluation."""


@dataclass(frozen=True)
class Number:
    """One number of a paper's table, with its standard deviation if the paper has one."""

    paper: str
    table: str
    row: str
    """The recipe that trains what was measured."""
    column: str
    """The name of the metric in our records."""
    value: float
    deviation: float | None = None
    scale: float = 1.0
    """The factor that converts value and deviation to the unit of our records."""
    measured: Measurement = OWN
    family: str = ""
    """The entry of `evaluation.metrics` that gives several columns; empty for an entry with one column."""

    @property
    def metric(self) -> str:
        """The entry of `evaluation.metrics` that measures it."""
        return self.family or self.column

    @property
    def in_our_unit(self) -> tuple[float, float | None]:
        """The value and the deviation in the unit of our records."""
        return self.value * self.scale, None if self.deviation is None else self.deviation * self.scale


def published(paper: str, table: str) -> tuple[Number, ...]:
    """The numbers of one table, line by line.

    >>> [number.value for number in published("cgc", "1") if number.row == "imagenet_resnet50_cgc"]
    [74.6, 71.75, 2.64]
    """
    if paper not in PAPERS:
        raise unknown_name("`paper`", paper, PAPERS)
    if table not in PAPERS[paper]:
        raise unknown_name(f"`table` of {paper}", table, PAPERS[paper])
    return tuple(number for number in NUMBERS if (number.paper, number.table) == (paper, table))


def _numbers(paper: str, table: str, columns: str, text: str) -> Iterator[Number]:
    """The numbers in a text that has lines `ROW NUMBER ...`, or `ROW NUMBER±DEVIATION ...`."""
    for line in text.strip().splitlines():
        row, *printed = line.split()
        for column, entry in zip(columns.split(), printed, strict=True):
            value, _, deviation = entry.partition("±")
            yield Number(paper, table, row, column, float(value), float(deviation) if deviation else None)


# --- CGC ------------------------------------------------------------------------------------------------------------

SHOTS = (1, 5, 10)

UNREL = Measurement((("split", "test"),), data="unrel")
CMWP = Measurement((("explainer", "contrastive_excitation_backprop"), ("layer", "layer3")))


def _few_shot(table: str, metric: str, text: str) -> Iterator[Number]:
    """The numbers in lines `DATA METHOD NUMBER ...`: one for each number of images a class, and perhaps one for all."""
    for line in text.strip().splitlines():
        data, method, *printed = line.split()
        rows = [*(f"{data}_{shots}_shot_{method}" for shots in SHOTS), f"{data}_{method}"]
        for row, entry in zip(rows, printed, strict=False):
            yield from _numbers("cgc", table, metric, f"{row} {entry}")


def _cgc() -> Iterator[Number]:
    yield from _numbers("cgc", "1", "top1 content_heatmap cgc_loss", """
        imagenet_resnet18_cross_entropy  69.76  54.47  3.19
        imagenet_resnet18_gcc            67.74  57.73  3.14
        imagenet_resnet18_cgc            66.37  65.83  2.59
        imagenet_resnet50_cross_entropy  76.13  54.77  3.15
        imagenet_resnet50_gcc            74.40  59.42  3.09
        imagenet_resnet50_cgc            74.60  71.75  2.64
    """)  # fmt: skip
    yield from _numbers("cgc", "2", "insertion_auc", """
        imagenet_resnet50_cross_entropy  0.4860
        imagenet_resnet50_cgc            0.5216
    """)  # fmt: skip
    unrel = _numbers("cgc", "3", "top1 content_heatmap", """
        imagenet_resnet50_cross_entropy  40.66  51.66
        imagenet_resnet50_cgc            38.25  74.20
    """)  # fmt: skip
    yield from (replace(number, measured=UNREL) for number in unrel)
    cmwp = _numbers("cgc", "4", "content_heatmap", """
        imagenet_resnet50_cross_entropy  74.78
        imagenet_resnet50_gcc            75.08
        imagenet_resnet50_cgc            75.50
    """)  # fmt: skip
    yield from (replace(number, measured=CMWP) for number in cmwp)
    yield from _numbers("cgc", "5", "top1 content_heatmap", """
        imagenet_resnet18_cgc               66.37  65.83
        imagenet_resnet50_cgc               74.60  71.75
        imagenet_resnet18_cgc_no_negatives  67.00  44.08
        imagenet_resnet50_cgc_no_negatives  74.80  39.84
    """)  # fmt: skip
    yield from _numbers("cgc", "6", "top1", """
        cub_cross_entropy       80.09±0.89
        aircraft_cross_entropy  83.65±0.15
        cars_cross_entropy      89.71±0.14
        flowers_cross_entropy   96.09±0.23
        cub_cgc                 81.49±0.09
        aircraft_cgc            85.72±0.20
        cars_cgc                90.28±0.08
        flowers_cgc             96.18±0.09
    """)  # fmt: skip
    yield from _few_shot("7", "top1", """
        cub      cross_entropy  13.7±0.3  51.7±0.3  66.4±0.2
        cars     cross_entropy   6.1±0.2  34.3±0.4  61.1±0.4
        cub      cgc            15.8±0.3  55.2±0.3  68.4±0.3
        cars     cgc             6.5±0.2  36.9±0.4  63.0±0.4
        aircraft cross_entropy   7.7±0.3  25.7±0.4  41.4±0.3
        flowers  cross_entropy  52.1±0.5  85.6±0.4  93.2±0.2
        aircraft cgc             8.0±0.3  26.9±0.4  42.9±0.3
        flowers  cgc            53.3±0.5  85.8±0.4  93.4±0.2
    """)  # fmt: skip
    yield from _few_shot("8", "content_heatmap", """
        cub  cross_entropy  55.54  57.60  61.39  63.71
        cars cross_entropy  60.51  64.08  64.31  65.58
        cub  cgc            61.63  63.55  73.86  71.08
        cars cgc            60.48  62.13  64.63  69.04
    """)  # fmt: skip
    yield from _numbers("cgc", "9", "top1 top5 content_heatmap", """
        imagenet_1_percent_cross_entropy  54.00  78.69  46.08
        imagenet_1_percent_cgc            55.18  79.12  46.76
    """)  # fmt: skip
    yield from _numbers("cgc", "10", "top1 content_heatmap", """
        imagenet_resnet18_cross_entropy    69.76  54.47
        imagenet_resnet18_cgc_lambda_0_01  66.97  56.18
        imagenet_resnet18_cgc_lambda_0_1   66.90  61.97
        imagenet_resnet18_cgc_lambda_0_5   65.14  66.19
        imagenet_resnet18_cgc              66.37  65.83
        imagenet_resnet18_cgc_lambda_2     65.89  52.60
    """)  # fmt: skip
    yield from _numbers("cgc-supplement", "1", "top1 content_heatmap", """
        imagenet100_resnet50_cross_entropy     86.40  53.60
        imagenet100_resnet50_cgc               84.04  72.32
        imagenet100_resnet50_cgc_no_negatives  81.94  38.46
    """)  # fmt: skip


# --- ExCon ----------------------------------------------------------------------------------------------------------


def _drop_increase(table: str, kept: int, text: str) -> Iterator[Number]:
    """The number with its scale: drop percent and increase percent are printed as shares."""
    measures = ("drop_percent", "drop_magnitude", "increase_percent", "increase_magnitude")
    for number in _numbers("excon", table, " ".join(f"{name}_{kept}" for name in measures), text):
        yield replace(number, family="drop_increase", scale=100.0 if "percent" in number.column else 1.0)


def _excon() -> Iterator[Number]:
    yield from _numbers("excon", "1a", "top1", """
        excon_cifar100           76.9±0.659
        exconb_cifar100          76.84±0.677
        supcon_ori_cifar100      75.776±0.771
        supcon_cifar100          76.176±0.632
        excon_cifar100_256       77.558±0.538
        exconb_cifar100_256      77.268±0.554
        supcon_ori_cifar100_256  76.864±0.149
        supcon_cifar100_256      76.99±0.352
    """)  # fmt: skip
    yield from _numbers("excon", "1b", "top1", """
        excon_tiny_imagenet       57.836±0.293
        exconb_tiny_imagenet      58.728±0.26
        supcon_ori_tiny_imagenet  53.51±0.655
        supcon_tiny_imagenet      55.62±0.307
    """)  # fmt: skip
    yield from _numbers("excon", "2a", "infidelity", """
        excon_cifar100           0.00147±0.0
        exconb_cifar100          0.00176±0.0
        supcon_ori_cifar100      0.00311±0.001
        supcon_cifar100          0.00203±0.0
        excon_cifar100_256       0.0024±0.0
        exconb_cifar100_256      0.00273±0.001
        supcon_ori_cifar100_256  0.00403±0.0
        supcon_cifar100_256      0.00313±0.0
    """)  # fmt: skip
    # The table says batch 256 of Tiny-ImageNet, section 4 that there was only batch 128.
    yield from _numbers("excon", "2b", "infidelity", """
        excon_tiny_imagenet       6e-05±1e-05
        exconb_tiny_imagenet      0.0001±2e-05
        supcon_ori_tiny_imagenet  0.00012±1e-05
        supcon_tiny_imagenet      7e-05±1e-05
    """)  # fmt: skip
    yield from _drop_increase("3a", 45, """
        excon_cifar100       0.726±0.081  0.362±0.073  0.273±0.08   0.196±0.066
        exconb_cifar100      0.799±0.113  0.541±0.154  0.201±0.113  0.247±0.131
        supcon_ori_cifar100  0.993±0.001  0.91±0.008   0.007±0.001  0.005±0.002
        supcon_cifar100      0.993±0.002  0.9±0.008    0.007±0.002  0.004±0.002
    """)  # fmt: skip
    yield from _drop_increase("3b", 45, """
        excon_cifar100_256       0.659±0.042  0.302±0.037  0.336±0.042  0.263±0.039
        exconb_cifar100_256      0.625±0.084  0.309±0.075  0.367±0.08   0.362±0.065
        supcon_ori_cifar100_256  0.993±0.001  0.918±0.003  0.007±0.001  0.006±0.002
        supcon_cifar100_256      0.994±0.002  0.916±0.004  0.006±0.002  0.005±0.002
    """)  # fmt: skip
    yield from _drop_increase("4", 45, """
        excon_tiny_imagenet       0.893±0.033  0.494±0.056  0.107±0.033  0.036±0.013
        exconb_tiny_imagenet      0.806±0.011  0.386±0.006  0.194±0.011  0.08±0.009
        supcon_ori_tiny_imagenet  0.953±0.005  0.667±0.015  0.047±0.005  0.022±0.004
        supcon_tiny_imagenet      0.963±0.006  0.68±0.015   0.037±0.006  0.014±0.003
    """)  # fmt: skip
    yield from _drop_increase("5a", 15, """
        excon_cifar100       0.959±0.024  0.795±0.06   0.041±0.024  0.04±0.026
        exconb_cifar100      0.992±0.007  0.958±0.021  0.008±0.007  0.011±0.011
        supcon_ori_cifar100  0.999±0.0    0.959±0.004  0.001±0.0    0.001±0.001
        supcon_cifar100      0.999±0.001  0.946±0.007  0.001±0.001  0.001±0.001
    """)  # fmt: skip
    yield from _drop_increase("5b", 15, """
        excon_cifar100_256       0.929±0.017  0.734±0.038  0.071±0.017  0.078±0.015
        exconb_cifar100_256      0.946±0.043  0.8±0.127    0.054±0.043  0.066±0.051
        supcon_ori_cifar100_256  0.999±0.001  0.954±0.002  0.001±0.001  0.001±0.001
        supcon_cifar100_256      0.999±0.001  0.952±0.003  0.001±0.001  0.001±0.001
    """)  # fmt: skip
    yield from _drop_increase("6a", 30, """
        excon_cifar100       0.853±0.057  0.551±0.083  0.147±0.056  0.121±0.049
        exconb_cifar100      0.947±0.045  0.825±0.11   0.053±0.045  0.08±0.06
        supcon_ori_cifar100  0.997±0.001  0.944±0.006  0.003±0.001  0.002±0.001
        supcon_cifar100      0.998±0.001  0.931±0.006  0.002±0.001  0.001±0.001
    """)  # fmt: skip
    yield from _drop_increase("6b", 30, """
        excon_cifar100_256       0.796±0.035  0.473±0.044  0.202±0.035  0.188±0.036
        exconb_cifar100_256      0.8±0.084    0.523±0.132  0.198±0.082  0.217±0.065
        supcon_ori_cifar100_256  0.997±0.0    0.944±0.001  0.003±0.0    0.002±0.001
        supcon_cifar100_256      0.998±0.001  0.941±0.003  0.002±0.001  0.001±0.001
    """)  # fmt: skip
    yield from _drop_increase("7", 30, """
        excon_tiny_imagenet       0.936±0.026  0.625±0.056  0.064±0.026  0.027±0.011
        exconb_tiny_imagenet      0.866±0.009  0.507±0.006  0.134±0.009  0.069±0.006
        supcon_ori_tiny_imagenet  0.977±0.004  0.772±0.008  0.023±0.004  0.012±0.003
        supcon_tiny_imagenet      0.982±0.004  0.771±0.012  0.018±0.004  0.008±0.002
    """)  # fmt: skip
    yield from _drop_increase("8", 15, """
        excon_tiny_imagenet       0.975±0.012  0.774±0.038  0.025±0.012  0.015±0.006
        exconb_tiny_imagenet      0.937±0.006  0.681±0.006  0.063±0.006  0.046±0.006
        supcon_ori_tiny_imagenet  0.993±0.001  0.874±0.003  0.007±0.001  0.006±0.001
        supcon_tiny_imagenet      0.994±0.002  0.853±0.008  0.006±0.002  0.003±0.001
    """)  # fmt: skip


# --- class contrast -------------------------------------------------------------------------------------------------

# The second and third number of a table's row: Gaussian blur, positive features, original and weighted; then negative
# features; then the same with zeros, and with the channel-wise mean. The first is the relative probability as it is.

ALEXNET = """
    cub      hires_cam t1  0.698 0.759 0.809 0.396 0.240 0.675 0.699 0.422 0.318 0.727 0.766 0.396 0.275
    cub      hires_cam t2  0.302 0.604 0.769 0.422 0.204 0.588 0.695 0.443 0.294 0.605 0.740 0.430 0.233
    cub      grad_cam  t1  0.698 0.762 0.824 0.415 0.228 0.727 0.764 0.426 0.284 0.758 0.816 0.420 0.236
    cub      grad_cam  t2  0.302 0.547 0.784 0.393 0.174 0.535 0.736 0.409 0.236 0.550 0.781 0.398 0.192
    aircraft hires_cam t1  0.702 0.769 0.823 0.364 0.218 0.671 0.678 0.419 0.329 0.709 0.736 0.397 0.267
    aircraft hires_cam t2  0.298 0.697 0.801 0.351 0.169 0.644 0.692 0.423 0.321 0.665 0.754 0.395 0.254
    aircraft grad_cam  t1  0.702 0.769 0.842 0.361 0.195 0.722 0.744 0.398 0.275 0.744 0.800 0.382 0.229
    aircraft grad_cam  t2  0.298 0.673 0.815 0.340 0.157 0.653 0.733 0.398 0.264 0.673 0.785 0.371 0.213
    food     hires_cam t1  0.707 0.781 0.791 0.417 0.279 0.709 0.702 0.443 0.333 0.734 0.737 0.430 0.306
    food     hires_cam t2  0.293 0.670 0.738 0.381 0.208 0.651 0.682 0.422 0.296 0.664 0.709 0.409 0.261
    food     grad_cam  t1  0.707 0.794 0.813 0.420 0.261 0.759 0.757 0.428 0.293 0.778 0.787 0.423 0.265
    food     grad_cam  t2  0.292 0.628 0.752 0.377 0.187 0.637 0.723 0.408 0.242 0.646 0.749 0.394 0.213
    flowers  hires_cam t1  0.728 0.824 0.819 0.342 0.234 0.719 0.737 0.462 0.296 0.768 0.760 0.460 0.264
    flowers  hires_cam t2  0.272 0.686 0.790 0.361 0.182 0.693 0.720 0.378 0.271 0.690 0.754 0.368 0.252
    flowers  grad_cam  t1  0.728 0.814 0.858 0.418 0.189 0.758 0.824 0.404 0.244 0.792 0.863 0.396 0.218
    flowers  grad_cam  t2  0.272 0.516 0.820 0.409 0.136 0.494 0.757 0.423 0.172 0.506 0.775 0.410 0.158
    cars     hires_cam t1  0.698 0.747 0.745 0.468 0.309 0.694 0.702 0.470 0.356 0.701 0.712 0.465 0.340
    cars     hires_cam t2  0.302 0.647 0.693 0.412 0.240 0.656 0.665 0.419 0.303 0.662 0.679 0.421 0.287
    cars     grad_cam  t1  0.698 0.766 0.782 0.447 0.277 0.748 0.761 0.444 0.291 0.756 0.769 0.439 0.277
    cars     grad_cam  t2  0.302 0.627 0.740 0.402 0.210 0.640 0.720 0.397 0.240 0.647 0.736 0.399 0.230
"""

VGG16_BN = """
    cub      hires_cam t1  0.710 0.726 0.809 0.475 0.299 0.691 0.780 0.494 0.325 0.710 0.799 0.486 0.311
    cub      hires_cam t2  0.290 0.441 0.728 0.435 0.187 0.445 0.706 0.438 0.221 0.434 0.723 0.429 0.200
    cub      grad_cam  t1  0.710 0.720 0.832 0.468 0.266 0.702 0.818 0.477 0.278 0.711 0.832 0.474 0.271
    cub      grad_cam  t2  0.290 0.414 0.761 0.440 0.148 0.411 0.735 0.448 0.167 0.410 0.743 0.445 0.151
    aircraft hires_cam t1  0.694 0.744 0.796 0.407 0.258 0.700 0.733 0.446 0.320 0.716 0.758 0.424 0.290
    aircraft hires_cam t2  0.306 0.633 0.769 0.373 0.191 0.606 0.695 0.428 0.268 0.620 0.731 0.409 0.239
    aircraft grad_cam  t1  0.694 0.774 0.854 0.392 0.204 0.719 0.801 0.419 0.262 0.738 0.821 0.401 0.238
    aircraft grad_cam  t2  0.306 0.634 0.819 0.351 0.150 0.609 0.747 0.396 0.204 0.614 0.775 0.384 0.182
    food     hires_cam t1  0.714 0.766 0.856 0.319 0.179 0.739 0.818 0.348 0.221 0.747 0.827 0.333 0.205
    food     hires_cam t2  0.286 0.699 0.832 0.280 0.138 0.80  0.794 0.317 0.174 0.688 0.805 0.308 0.164
    food     grad_cam  t1  0.714 0.794 0.891 0.297 0.130 0.778 0.867 0.309 0.156 0.782 0.875 0.301 0.144
    food     grad_cam  t2  0.286 0.709 0.879 0.261 0.099 0.697 0.856 0.287 0.124 0.703 0.867 0.280 0.116
    flowers  hires_cam t1  0.715 0.756 0.830 0.367 0.243 0.655 0.746 0.353 0.252 0.647 0.752 0.371 0.269
    flowers  hires_cam t2  0.285 0.646 0.748 0.391 0.145 0.667 0.751 0.444 0.243 0.651 0.728 0.435 0.232
    flowers  grad_cam  t1  0.715 0.799 0.878 0.361 0.176 0.748 0.844 0.322 0.149 0.751 0.840 0.339 0.166
    flowers  grad_cam  t2  0.285 0.596 0.812 0.358 0.120 0.651 0.825 0.398 0.160 0.619 0.818 0.388 0.153
    cars     hires_cam t1  0.721 0.749 0.828 0.433 0.262 0.744 0.816 0.439 0.262 0.744 0.819 0.436 0.260
    cars     hires_cam t2  0.279 0.574 0.755 0.390 0.166 0.592 0.747 0.398 0.178 0.586 0.754 0.396 0.173
    cars     grad_cam  t1  0.721 0.73  0.885 0.424 0.208 0.775 0.881 0.423 0.218 0.773 0.886 0.422 0.209
    cars     grad_cam  t2  0.279 0.574 0.821 0.390 0.112 0.582 0.817 0.394 0.120 0.584 0.821 0.390 0.114
"""


def _contrast(table: str, network: str, text: str) -> Iterator[Number]:
    """The numbers of a table in which a line has both maps of a method; `measured` tells them apart."""
    of_masking = partial(Number, "contrast", table, family="relative_probability")
    for line in text.strip().splitlines():
        data, explainer, target, whole, *masked = line.split()
        printed, row = iter(masked), f"{data}_{network}"
        original = Measurement((("explainer", explainer),))
        weighted = Measurement((("explainer", explainer), ("contrast", "weighted")))
        yield of_masking(row, f"relative_probability_{target}", float(whole), measured=original)
        for baseline in ("blur", "zero", "mean"):
            for sign in ("positive", "negative"):
                column = f"relative_probability_{sign}_{baseline}_{target}"
                for measured in (original, weighted):
                    yield of_masking(row, column, float(next(printed)), measured=measured)


NUMBERS: tuple[Number, ...] = (
    *_cgc(),
    *_excon(),
    *_contrast("2", "alexnet", ALEXNET),
    *_contrast("3", "vgg16_bn", VGG16_BN),
)
"""All numbers of all papers."""

PAPERS: Mapping[str, tuple[str, ...]] = {
    paper: tuple(dict.fromkeys(number.table for number in NUMBERS if number.paper == paper))
    for paper in dict.fromkeys(number.paper for number in NUMBERS)
}
"""The tables of each paper."""
