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

from contrex.errors import ArgumentError, unknown_name
from contrex.metrics.per_sample import PerSampleMetric
from contrex.metrics.similarity import KINDS

ORDERS = ("cascading", "independent")

ROUNDING = 1e-9
"""How far from 1 the mean correlation of equal maps may be."""


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
