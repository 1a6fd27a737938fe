"""Parameter randomisation: a map that stays when the network's parameters go does not explain the network.

Axes: N images, H W pixels (or cells) of a heatmap.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from contrex.errors import ArgumentError, unknown_name
from contrex.metrics.per_sample import PerSampleMetric
from contrex.metrics.probing import check_finite

KINDS = {"spearman": "Spearman", "spearman_abs": "Spearman of absolute values", "ssim": "SSIM"}
"""How maps are compared: rank correlation of the signed maps, of their absolute values, or structural similarity."""

ORDERS = ("cascading", "independent")

ROUNDING = 1e-9
"""How far from 1 the mean correlation of equal maps may be."""

_SSIM_WINDOW = 11
"""Side of the Gaussian window in pixels; smaller maps have no pixel with a whole one around it."""

_SSIM_SIGMA = 1.5
"""Of that window, in pixels, as Wang et al. have it."""

_SSIM_FLOORS = (0.01**2, 0.03**2)
"""C1 and C2 of Wang et al. for values in 0..1: they keep both quotients finite where maps are flat."""


def randomized(
    network: nn.Module,
    *,
    stages: Sequence[str] | None = None,
    seed: int = 0,
    order: Literal["cascading", "independent"] = "cascading",
) -> Iterator[tuple[str, nn.Module]]:
    """The network with ever more of its layers re-initialised, from the top down: cascading randomisation.

    With the order "independent" each stage is re-initialised alone, while all others are as they were trained.

    Adebayo et al., "Sanity Checks for Saliency Maps" (NeurIPS 2018). A layer is a module with parameters of its own.
    The order is the reverse of `named_modules()`, the order of definition: in the usual networks that of execution, but
    for parameters that the network itself owns (class tokens, positions), which come last.

    A layer is re-initialised by its own `reset_parameters`, which for batch norm also resets the running statistics. A
    layer without one (attention with a packed projection, layer scale, class tokens) gets parameters drawn from a
    normal distribution with each parameter's own mean and standard deviation, so that activations keep their size; a
    constant one stays. Neither need be the initialisation that the network was trained from.

    Args:
        network: is not touched, and may be on any device; random numbers are drawn on the CPU.
        stages: names of modules after the first layer of which to stop and yield ("layer4", "layer3"); None is
            every layer, `()` only the whole network. The last one yielded is always randomised altogether.
        seed: of everything; the global generators are put back.
        order: cascading or independent.

    Yields:
        The name of the stage, or of the layer, that was reached, and the randomised network: always *the same* copy,
        changed in place, so that memory holds one copy whatever the depth. Use each before asking for the next.

    Raises:
        ArgumentError: the network has no parameters.
        UnknownNameError: a stage is no module with parameters, or there is no such order.

    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    >>> [name for name, _ in randomized(network)]
    ['3', '0']
    """
    if order not in ORDERS:
        raise unknown_name("`order`", order, ORDERS)
    stops = _stops(network, stages)
    # One copy for all stages: the trained network stays as it is, and each stage goes on from the one above.
    changed = copy.deepcopy(network)
    for place, (name, layer) in enumerate(reversed(_layers(changed))):
        _reset(layer, seed + place)
        if name in stops:
            yield stops[name], changed
            if order == "independent":
                changed.load_state_dict(network.state_dict())


def map_similarity(heatmaps: Tensor, others: Tensor, kind: str = "spearman") -> Tensor:
    """How alike the maps of each image are, float64 `[N]` in -1..1.

    | `kind` | |
    |---|---|
    | `spearman` | correlation of the ranks of the signed values; equal values share their mean rank |
    | `spearman_abs` | of the absolute values, which sees the same edges with the opposite sign as alike |
    | `ssim` | structural similarity (Wang et al., 2004), Gaussian window 11x11, sigma 1.5 |

    All three are used by Adebayo et al. (NeurIPS 2018). For `ssim` a map is
    `(1 + heatmap / max |heatmap|) / 2`, in 0..1 with zero in the middle: of values around 0 both factors of SSIM change
    sign with the map, and a map would be like its own negative.

    Args:
        heatmaps: `[N,H,W]`, raw and signed.
        others: `[N,H,W]`, with which they are compared.
        kind: see above.

    Returns:
        float64 `[N]` on the maps' device; NaN where a map is constant (ranks) or zero everywhere (`ssim`).

    Raises:
        UnknownNameError: there is no such kind.
        ArgumentError: shapes differ, a map is not finite, or is smaller than 11x11 for `ssim`.

    >>> heatmap = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    >>> map_similarity(heatmap, heatmap**3), map_similarity(heatmap, -heatmap)
    (tensor([1.0000], dtype=torch.float64), tensor([-1.0000], dtype=torch.float64))
    """
    if kind not in KINDS:
        raise unknown_name("`kind`", kind, KINDS)
    _check(heatmaps, others, kind)
    first, second = heatmaps.detach().double(), others.detach().to(heatmaps.device, torch.float64)
    if kind == "ssim":
        return _structural_similarity(first, second)
    if kind == "spearman_abs":
        first, second = first.abs(), second.abs()
    return _correlation(_ranks(first.flatten(1)), _ranks(second.flatten(1)))


def chance_similarity(heatmaps: Tensor, kind: str = "spearman") -> Tensor:
    """Similarity of each image's map with the next image's, float64 `[N]`: what maps share that have nothing in common.

    Centred objects, smooth maps and one sign make even these alike; arguments and errors as `map_similarity`, N >= 2.

    >>> chance_similarity(torch.tensor([[[0.0, 1.0, 2.0]], [[0.0, 1.0, 2.0]], [[2.0, 1.0, 0.0]]]))
    tensor([ 1.0000, -1.0000, -1.0000], dtype=torch.float64)
    """
    if len(heatmaps) < 2:
        raise ArgumentError(f"`heatmaps` must be of at least 2 images, got {len(heatmaps)}.")
    return map_similarity(heatmaps, heatmaps.roll(-1, dims=0), kind)


def changes(similarities: Tensor, chance: Tensor | None = None) -> bool:
    """Whether an explainer's maps change when all parameters are randomised; False flags it.

    `mean(s) < (1 + max(c, 0)) / 2`, s the similarities of the trained and the fully randomised network's maps and c the
    mean of `chance`: the maps must come more than half of the way from "the same map" (1) to "the map of another
    image" (c). Without `chance`, or with none to speak of, that is a correlation below 0.5.

    Neither is in Adebayo et al. (NeurIPS 2018), who show curves and draw no line. A bare 0.5 would flag an explainer
    whose maps are all blobs in the middle, and equally alike with or without parameters; one that ignores parameters
    and image alike (c = s = 1) is flagged all the same. It is a line to notice a failure by, not a score: report s.

    Args:
        similarities: `[N]`, signed Spearman of `map_similarity`; NaN is left out.
        chance: `[M]` of `chance_similarity` with the same kind, on the trained network.

    Raises:
        ArgumentError: no similarity is left, or one is outside -1..1.

    >>> changes(torch.tensor([0.6, 0.6])), changes(torch.tensor([0.6, 0.6]), chance=torch.tensor([0.4, 0.5]))
    (False, True)
    """
    level = 0.0 if chance is None else max(_mean("chance", chance), 0.0)
    return _mean("similarities", similarities) < (1 + level) / 2 - ROUNDING


def below_chance(similarities: Tensor, chance: Tensor) -> bool:
    """Whether maps before and after randomising are less alike, on average, than maps of different images are.

    `mean(s) < mean(c)`: the line of Arun et al., "Assessing the Trustworthiness of Saliency Maps for Localizing
    Abnormalities in Medical Imaging" (Radiology: AI, 2021), who draw it for SSIM with 50 pairs of maps of the trained
    network. It is stricter than `changes`.

    Args:
        similarities: `[N]` of `map_similarity`; NaN is left out.
        chance: `[M]` of `chance_similarity` with the same kind, on the trained network.

    >>> below_chance(torch.tensor([0.6, 0.6]), torch.tensor([0.7, 0.8]))
    True
    """
    return _mean("similarities", similarities) < _mean("chance", chance) - ROUNDING


class RandomizationSimilarity(PerSampleMetric):
    """Mean similarity of maps before and after all parameters are randomised, -1..1; lower is better: `map_similarity`.

    Named by its kind, and by the stage where not everything is randomised: `randomization_spearman`,
    `randomization_ssim_layer4`; `randomization_ssim_each` where an image's value is the mean over stages, each alone.

    >>> metric = RandomizationSimilarity("spearman")
    >>> metric.update(torch.tensor([0.5, 0.0, torch.nan]))
    >>> metric.name, metric.compute()
    ('randomization_spearman', tensor(0.2500, dtype=torch.float64))
    """

    skip_reason = "a constant heatmap before or after randomising"
    higher_is_better = False

    def __init__(self, kind: str = "spearman", *, stage: str | None = None, each: bool = False) -> None:
        if kind not in KINDS:
            raise unknown_name("`kind`", kind, KINDS)
        what = "each" if each else stage
        self.name = f"randomization_{kind}" + (f"_{what.replace('.', '_')}" if what else "")
        told = "each stage alone" if each else stage or "all parameters"
        self.title = f"Similarity after randomising {told} ({KINDS[kind]})"
        super().__init__()

    def update(self, similarities: Tensor) -> None:
        """Count `similarities [N]`, NaN for skipped images.

        Raises:
            ArgumentError: they are not `[N]`, or one is outside -1..1.
        """
        _check_similarities("similarities", similarities)
        self.append(similarities)


def _layers(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules with parameters of their own, in order of definition."""
    return [(name, module) for name, module in network.named_modules() if list(module.parameters(recurse=False))]


def _stops(network: nn.Module, stages: Sequence[str] | None) -> dict[str, str]:
    """The layers after which to yield, each with the name to yield."""
    names = [name for name, _ in _layers(network)]
    if not names:
        raise ArgumentError(f"`network` must have parameters to randomise, {type(network).__name__} has none.")
    if stages is None:
        return {name: name for name in names}
    stops = {names[0]: names[0]}
    for stage in stages:
        inside = [name for name in names if name == stage or name.startswith(f"{stage}.")]
        if not inside:
            modules = [name for name, module in network.named_modules() if name and list(module.parameters())]
            raise unknown_name("a stage of `stages`", stage, modules)
        stops[inside[0]] = stage
    return stops


def _reset(layer: nn.Module, seed: int) -> None:
    """Draw new parameters for one layer, the same ones on every device."""
    devices = {parameter.device for parameter in layer.parameters(recurse=False)}
    # `reset_parameters` draws from the global generator, so that is seeded for each layer, and put back afterwards.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        if not callable(reset := getattr(layer, "reset_parameters", None)):
            for parameter in layer.parameters(recurse=False):
                _redraw(parameter)
        elif devices == {torch.device("cpu")}:
            reset()
        else:
            # Drawn on the CPU, as each kind of device draws other numbers from one seed.
            layer.to("cpu")
            reset()
            layer.to(devices.pop())


def _redraw(parameter: Tensor) -> None:
    values = parameter.double()
    drawn = torch.randn(parameter.shape, dtype=torch.float64, device="cpu").to(values.device)
    parameter.copy_(values.mean() + values.std(correction=0) * drawn)


def _ranks(values: Tensor) -> Tensor:
    """Ranks `[N,P]` from 1 to P, float64; equal values have the mean of their ranks."""
    ordered = values.sort(dim=1).values
    first = torch.searchsorted(ordered, values.contiguous(), right=False)
    last = torch.searchsorted(ordered, values.contiguous(), right=True)
    # `first` values are smaller and `last - first` equal: their ranks run from first + 1 to last.
    return (first + last + 1).double() / 2


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation of two rows `[N]`; NaN, from 0/0, where one is constant."""
    first, second = (values - values.mean(dim=1, keepdim=True) for values in (first, second))
    similarity: Tensor = (first * second).sum(dim=1) / (first.norm(dim=1) * second.norm(dim=1))
    return similarity.clamp(-1, 1)


def _structural_similarity(first: Tensor, second: Tensor) -> Tensor:
    """SSIM `[N]` of the maps in 0..1, NaN where one is zero everywhere."""
    largest = torch.stack([first.abs().amax(dim=(1, 2)), second.abs().amax(dim=(1, 2))])
    empty = (largest == 0).any(dim=0)
    scale = 2 * largest.where(largest > 0, 1.0)[:, :, None, None]
    return _ssim(0.5 + first / scale[0], 0.5 + second / scale[1]).masked_fill(empty, torch.nan).clamp(-1, 1)


def _ssim(x: Tensor, y: Tensor) -> Tensor:
    """The mean over all pixels of `(2 mu_x mu_y + C1) (2 s_xy + C2) / ((mu_x^2 + mu_y^2 + C1) (s_x^2 + s_y^2 + C2))`,
    means, variances and covariance being weighed by the window (Wang et al., 2004, eq. 13); borders are mirrored."""
    distance = torch.arange(_SSIM_WINDOW, dtype=x.dtype, device=x.device) - _SSIM_WINDOW // 2
    weight = torch.exp(-0.5 * (distance / _SSIM_SIGMA) ** 2)
    line = weight / weight.sum()  # the window is the product of a row and a column of it: 22 products a pixel, not 121
    x, y = (pad(maps, [_SSIM_WINDOW // 2] * 4, mode="reflect") for maps in (x, y))
    together = torch.cat([x, y, x * x, y * y, x * y])[:, None]
    smooth = conv2d(conv2d(together, line[None, None, None]), line[None, None, :, None])
    mean_x, mean_y, *products = smooth.view(5, len(x), -1)
    # A variance as a difference of two means may round to less than 0.
    of_x, of_y = ((product - mean**2).clamp(min=0) for product, mean in zip(products, (mean_x, mean_y), strict=False))
    shared = products[2] - mean_x * mean_y
    low, high = _SSIM_FLOORS
    similarity = (2 * mean_x * mean_y + low) * (2 * shared + high)
    mean: Tensor = (similarity / ((mean_x**2 + mean_y**2 + low) * (of_x + of_y + high))).mean(dim=1)
    return mean


def _mean(name: str, similarities: Tensor) -> float:
    _check_similarities(name, similarities)
    mean = float(similarities.double().nanmean())
    if math.isnan(mean):
        raise ArgumentError(f"`{name}` must hold at least one value that is not NaN.")
    return mean


def _check_similarities(name: str, similarities: Tensor) -> None:
    if similarities.ndim != 1:
        raise ArgumentError(f"`{name}` must be [N], one per image, got {list(similarities.shape)}.")
    outside = similarities.abs() > 1
    if outside.any():
        index = int(outside.nonzero()[0])
        raise ArgumentError(f"`{name}` must lie in -1..1, got {float(similarities[index]):g} at index {index}.")


def _check(heatmaps: Tensor, others: Tensor, kind: str) -> None:
    if heatmaps.ndim != 3 or heatmaps.shape != others.shape or heatmaps.numel() == 0:
        raise ArgumentError(
            "`heatmaps` and `others` must have one shape [N,H,W] with N >= 1, "
            f"got {list(heatmaps.shape)} and {list(others.shape)}."
        )
    for name, maps in (("heatmaps", heatmaps), ("others", others)):
        check_finite(name, maps)
    if kind == "ssim" and min(heatmaps.shape[1:]) < _SSIM_WINDOW:
        raise ArgumentError(
            f"`heatmaps` must be at least {_SSIM_WINDOW}x{_SSIM_WINDOW} for 'ssim', got {list(heatmaps.shape[1:])}: "
            "resize them first."
        )
