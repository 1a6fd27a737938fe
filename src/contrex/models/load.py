"""Classifiers by name: torchvision, timm and the built-in network, with weights from a file, never from the web."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError, WeightsError, unknown_name
from contrex.models.convnet import ConvNet
from contrex.models.layouts import LAYOUTS, encoder_weights, looks_like, plain_keys
from contrex.models.split import check_classifier
from contrex.models.stem import cifar_stem
from contrex.settings import Model, Stem


class Normalisation(nn.Module):
    """Pixel values as a network expects them: `(x - mean) / std`, channel by channel.

    Mean and std are buffers: they are on the device already when images come, which a new tensor for each batch would
    wait for. No state dict has them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            channels = torch.tensor(values, dtype=torch.float32, device="cpu").view(3, 1, 1)
            self.register_buffer(name, channels, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images `[N,3,H,W]`, uint8 or in [0, 1], normalised."""
        scaled = images.float() / 255 if images.dtype == torch.uint8 else images
        return (scaled - self.mean) / self.std

    def inverse(self, images: Tensor) -> Tensor:
        """The pixel values in [0, 1] of normalised images `[N,3,H,W]`."""
        return images * self.std + self.mean

    def on(self, device: torch.device) -> Normalisation:
        """Itself, on `device`."""
        if self.mean.device != device:
            with torch.inference_mode(False):  # gradients may be asked for later, which tensors made in it do not have
                self.to(device)
        return self


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network with the normalisation of its input; `normalise` takes pixel values in [0, 1], `denormalise` gives
    them back."""

    network: nn.Module
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    left_out: tuple[str, ...] = ()
    """Modules in the weights file that its layout has beside the encoder, and that were not loaded."""
    _normalisation: Normalisation = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_normalisation", Normalisation(self.mean, self.std))

    def normalise(self, images: Tensor) -> Tensor:
        """Images `[N,3,H,W]`, uint8 or in [0, 1], as the network expects them."""
        normalised: Tensor = self._normalisation.on(images.device)(images)
        return normalised

    def denormalise(self, images: Tensor) -> Tensor:
        """The pixel values in [0, 1] of normalised images `[N,3,H,W]`."""
        return self._normalisation.on(images.device).inverse(images)


def load_classifier(settings: Model, *, num_classes: int | None = None) -> Classifier:
    """Build the network, load its weights, and account for every key.

    `num_classes` is the data set's; `settings.num_classes` wins over it, and without either the weights file tells.

    Raises:
        UnknownNameError: no such library, architecture or layout.
        ArgumentError: the network has no classifier.
        WeightsError: the file is missing, unreadable or of another layout, a key is missing or left over, or a shape
            differs.
    """
    count = settings.num_classes if settings.num_classes is not None else num_classes
    network = build_network(settings.name, settings.options, num_classes=count, stem=settings.stem)
    left_out: tuple[str, ...] = ()
    if settings.weights is not None:
        state, left_out = encoder_weights(read_state_dict(settings.weights, settings.layout), settings.layout)
        if count is None and (found := _num_classes(network, state)) is not None:
            network = build_network(settings.name, settings.options, num_classes=found, stem=settings.stem)
        load_weights(network, settings.weights, fresh=settings.fresh, state=state)
    elif settings.fresh or settings.layout != "plain":
        name = "fresh" if settings.fresh else "layout"
        value = getattr(settings, name)
        raise ArgumentError(f"`{name}` {value} means something only with `weights`: pass a file or drop it.")
    check_classifier(network)
    return Classifier(network, _three(settings.mean, "mean"), _three(settings.std, "std"), left_out)


def build_network(
    name: str, options: Mapping[str, str], *, num_classes: int | None = None, stem: Stem = "built-in"
) -> nn.Module:
    """The network `LIBRARY:ARCHITECTURE` with random weights; option texts are read as Python literals where they are.

    `stem="cifar"` gives a ResNet the first layers of small images (`cifar_stem`).

    >>> build_network("contrex:convnet", {"pointwise": "64"}, num_classes=3).fc
    Linear(in_features=64, out_features=3, bias=True)
    """
    if stem not in STEMS:
        raise unknown_name("`model.stem`", stem, STEMS)
    library, _, architecture = name.partition(":")
    if library not in BUILDERS or not architecture:
        choices = [f"{key}:NAME" for key in BUILDERS]
        raise unknown_name("`model.name`", name, choices)
    arguments: dict[str, Any] = {key: literal(text) for key, text in options.items()}
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    try:
        network = BUILDERS[library](architecture, arguments)
    except TypeError as error:
        raise ArgumentError(f"`model.options` {dict(options)} do not fit {name}: {error}") from None
    return STEMS[stem](network)


def load_weights(
    network: nn.Module, path: Path, *, fresh: Sequence[str] = (), state: Mapping[str, Tensor] | None = None
) -> None:
    """Load a state_dict into `network`, all of it: only modules named in `fresh` keep their initialisation.

    Wrapper prefixes (`module.`, `_orig_mod.`) and checkpoints that hold the weights under "state_dict" or "model" are
    understood. Nothing in the file is executed (`weights_only`). `state` is its content where it was read before.
    """
    state = plain_keys(read_state_dict(path)) if state is None else state
    modules = dict(network.named_modules())
    for name in fresh:
        if name not in modules:
            raise unknown_name("`model.fresh`", name, [key for key in modules if key])
    own = network.state_dict()
    kept_fresh = {key for key in own if any(key.startswith(f"{name}.") for name in fresh)}
    needed = {key for key in own if key not in kept_fresh and not key.endswith("num_batches_tracked")}
    left_over = [key for key in state if key not in own and not any(key.startswith(f"{name}.") for name in fresh)]
    missing = sorted(needed - set(state))
    shapes = [key for key in needed & set(state) if own[key].shape != state[key].shape]
    if missing or left_over or shapes:
        raise WeightsError(_mismatch(path, network, missing, left_over, shapes, own, state))
    loaded = {key: value for key, value in state.items() if key in own and key not in kept_fresh}
    network.load_state_dict({**own, **loaded})


def read_state_dict(path: Path, layout: str = "plain") -> dict[str, Tensor]:
    """The tensors of a .pth / .pt / .safetensors file, by name; `layout` says where in it they are."""
    if not Path(path).is_file():
        raise WeightsError(f"`model.weights` {path} is not a file.")
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        content = _content(Path(path))
    except WeightsError:
        raise
    except Exception as error:  # a file that is no checkpoint can raise anything in the unpickler
        raise WeightsError(f"`model.weights` {path} cannot be read as tensors only: {_reason(error)}") from None
    for key in ("state_dict", "model") if layout not in LAYOUTS else (LAYOUTS[layout].under,):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"`model.weights` {path} does not hold a state_dict (names to tensors).{_other(content)}")
    return dict(content)


def _content(path: Path) -> Any:
    """What torch has saved in a file, with inert stand-ins for whatever is no tensor and no plain value: options, paths
    and numbers of numpy that a script has left beside the weights. Nothing that the file names is imported or called.
    """
    names: list[str] = []
    while True:
        try:
            with torch.serialization.safe_globals([(_Inert, name) for name in names]):
                return torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            found = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
            if _Inert.__name__ in str(error):  # torch fills dictionaries and lists of its own kinds only
                raise WeightsError(
                    f"`model.weights` {path} holds a dictionary or list of a kind of its own ({', '.join(names)}), "
                    "which cannot be passed over. If you trust the file, save its weights alone: "
                    'torch.save(torch.load(FILE, weights_only=False)["state_dict"], "weights.pth").'
                ) from None
            if found is None or found[1] in names:
                raise
            names.append(found[1])


class _Inert(dict[Any, Any]):
    """Stands for an object of any kind: a dictionary of what it holds by names, if it is one, and nothing else."""

    def __init__(self, *arguments: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None: ...


def _reason(error: Exception) -> str:
    """Why a file is refused, in a line without colours."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    if found is not None:
        return f"it calls {found[1]}, and nothing in a file is executed."
    _, _, said = str(error).partition("WeightsUnpickler error:")  # the rest is advice that no one should take
    return ((said or str(error)).strip() or type(error).__name__).splitlines()[0]


def _other(content: object) -> str:
    """What to try where the content of a file has the sign of another layout."""
    found = looks_like(key for key in content if isinstance(key, str)) if isinstance(content, Mapping) else None
    return f" It looks like `model.layout` {found}." if found else ""


def _convnet(architecture: str, arguments: dict[str, Any]) -> nn.Module:
    if architecture != "convnet":
        raise unknown_name("`model.name` after 'contrex:'", architecture, ["convnet"])
    return ConvNet(**arguments)


def _torchvision(architecture: str, arguments: dict[str, Any]) -> nn.Module:
    import torchvision.models

    names = torchvision.models.list_models(module=torchvision.models)
    if architecture not in names:
        raise unknown_name("`model.name` after 'torchvision:'", architecture, names)
    network: nn.Module = torchvision.models.get_model(architecture, weights=None, **arguments)
    return network


def _timm(architecture: str, arguments: dict[str, Any]) -> nn.Module:
    import timm

    if not timm.is_model(architecture):
        raise unknown_name("`model.name` after 'timm:'", architecture, timm.list_models())
    return timm.create_model(architecture, pretrained=False, **arguments)


BUILDERS: dict[str, Callable[[str, dict[str, Any]], nn.Module]] = {
    "contrex": _convnet,
    "torchvision": _torchvision,
    "timm": _timm,
}

STEMS: dict[str, Callable[[nn.Module], nn.Module]] = {"built-in": lambda network: network, "cifar": cifar_stem}


def literal(text: str) -> Any:
    """An option's text as a Python literal where it is one; nothing is evaluated.

    >>> literal("(3, 4)"), literal("same"), literal("print()")
    ((3, 4), 'same', 'print()')
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def _three(values: tuple[float, ...], name: str) -> tuple[float, float, float]:
    if len(values) not in (1, 3) or (name == "std" and min(values) <= 0):
        raise ArgumentError(f"`model.{name}` must be one value or three, one per channel (std > 0), got {values}.")
    first, second, third = values * 3 if len(values) == 1 else values
    return first, second, third


def _num_classes(network: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """The classes of a file that differs from the network in nothing but the length of its classifier's tensors."""
    own = network.state_dict()
    other = [key for key in own if key in state and own[key].shape != state[key].shape]
    fits = bool(other) and all(own[key].shape[1:] == state[key].shape[1:] for key in other)
    here, there = {len(own[key]) for key in other}, {len(state[key]) for key in other}
    modules = {key.rpartition(".")[0] for key in other}
    return there.pop() if fits and len(here) == len(there) == len(modules) == 1 else None


def _mismatch(
    path: Path,
    network: nn.Module,
    missing: list[str],
    left_over: list[str],
    shapes: list[str],
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
) -> str:
    parts = [f"`model.weights` {path} does not fit {type(network).__name__}:"]
    for what, keys in (("missing", missing), ("left over", left_over)):
        if keys:
            parts.append(f"{len(keys)} {what} ({', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''});")
    if shapes:
        key = min(shapes)
        found, wanted = list(state[key].shape), list(own[key].shape)
        parts.append(f"{len(shapes)} of another shape ({key}: file {found}, network {wanted});")
    parts.append("check `model.name` and `model.num_classes`, or, to train them anew, name modules in `model.fresh`.")
    return " ".join(parts) + _other(state)
