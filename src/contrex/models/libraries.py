"""Where networks come from by name, and what each library says of its own weights: mean, std, size, class names.

A library's weights are fetched by the library itself, into its own cache, and only by `Library.pretrained`.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from contrex.errors import ArgumentError, unknown_name
from contrex.importing import uncollected
from contrex.models.classes import imagenet_names
from contrex.models.classifier import channels
from contrex.models.convnet import ConvNet


class Library(ABC):
    """A library of networks. `arguments` are keywords for its builder; what it is told or asked for by name is the
    `architecture`, the text behind its prefix."""

    title: ClassVar[str]
    """What errors call it."""
    reads_words: ClassVar[bool] = False
    """Whether its networks compare pictures with texts, `classes`."""

    @abstractmethod
    def build(self, architecture: str, arguments: dict[str, Any], *, like_pretrained: bool) -> nn.Module:
        """A network with random weights, otherwise as `pretrained` makes it if `like_pretrained`.

        Raises:
            TypeError: the arguments do not fit.
        """

    def pretrained(self, architecture: str, arguments: dict[str, Any]) -> nn.Module:
        """A network with the library's own weights, from its cache or from where the library gets them. It may raise
        anything."""
        raise ArgumentError(f"`model.pretrained`: {self.title} has no weights to take: name a file, `model.weights`.")

    def of_network(self, state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        """What of the library's own file belongs to a network that is built as with its own weights."""
        return dict(state)

    def cache(self, architecture: str) -> str:
        """Where the library looks for its weights, in words."""
        return ""

    def told(self, architecture: str, network: nn.Module, *, is_pretrained: bool) -> dict[str, Any]:
        """What is known of a network, as fields of `Classifier`; with `is_pretrained`, all that belongs to the
        library's weights."""
        return {}


class Builtin(Library):
    """The built-in network."""

    title = "contrex"

    def build(self, architecture: str, arguments: dict[str, Any], *, like_pretrained: bool) -> nn.Module:
        if architecture != "convnet":
            raise unknown_name("`model.name` after 'contrex:'", architecture, ["convnet"])
        return ConvNet(**arguments)


def built_with_weights(name: str) -> dict[str, Any]:
    """The arguments with which torchvision builds a network for its own weights otherwise than without."""
    return {"transform_input": True, "aux_logits": False} if name in ("inception_v3", "googlenet") else {}


class Torchvision(Library):
    """torchvision's classifiers. NAME.WEIGHTS chooses among their weights, as in resnet50.IMAGENET1K_V1."""

    title = "torchvision"

    def build(self, architecture: str, arguments: dict[str, Any], *, like_pretrained: bool) -> nn.Module:
        with uncollected():
            import torchvision.models

        name, _, tag = architecture.partition(".")
        names = torchvision.models.list_models(module=torchvision.models)
        if name not in names:
            raise unknown_name("`model.name` after 'torchvision:'", architecture, names)
        if tag and not like_pretrained:
            raise ArgumentError(
                f"`model.name` torchvision:{architecture} names weights: add --pretrained, or drop {tag}."
            )
        if like_pretrained:
            arguments = {**built_with_weights(name), **arguments}
        network: nn.Module = torchvision.models.get_model(name, weights=None, **arguments)
        return network

    def pretrained(self, architecture: str, arguments: dict[str, Any]) -> nn.Module:
        with uncollected():
            import torchvision.models

        weights = self._weights(architecture)
        network: nn.Module = torchvision.models.get_model(
            architecture.partition(".")[0], weights=weights, progress=False, **arguments
        )
        return network

    def of_network(self, state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        own, auxiliary = network.state_dict(), ("aux1.", "aux2.", "AuxLogits.")  # those of Inception and GoogLeNet
        return {key: value for key, value in state.items() if key in own or not key.startswith(auxiliary)}

    def cache(self, architecture: str) -> str:
        import torch.hub

        url = self._weights(architecture).url
        return f"{Path(torch.hub.get_dir()) / 'checkpoints' / url.rpartition('/')[2]} (from {url})"

    def told(self, architecture: str, network: nn.Module, *, is_pretrained: bool) -> dict[str, Any]:
        if not is_pretrained:
            return {}
        weights = self._weights(architecture)
        view = weights.transforms()
        return {
            "image_size": view.crop_size[0],
            "short_side": view.resize_size[0],
            "mean": channels(view.mean, "mean"),
            "std": channels(view.std, "std"),
            "interpolation": view.interpolation.value,
            "names": tuple(weights.meta["categories"]),
        }

    @staticmethod
    def _weights(architecture: str) -> Any:
        import torchvision.models

        name, _, tag = architecture.partition(".")
        names = torchvision.models.list_models(module=torchvision.models)
        if name not in names:
            raise unknown_name("`model.name` after 'torchvision:'", architecture, names)
        known = {one.name: one for one in torchvision.models.get_model_weights(name)}
        if tag and tag not in known:
            raise unknown_name(f"`model.name` after 'torchvision:{name}.'", tag, known)
        return known[tag] if tag else torchvision.models.get_model_weights(name).DEFAULT


class Timm(Library):
    """timm's classifiers. NAME.TAG chooses among their weights, as timm does."""

    title = "timm"

    def build(self, architecture: str, arguments: dict[str, Any], *, like_pretrained: bool) -> nn.Module:
        return self._create(architecture, arguments, pretrained=False)

    def pretrained(self, architecture: str, arguments: dict[str, Any]) -> nn.Module:
        return self._create(architecture, arguments, pretrained=True)

    def cache(self, architecture: str) -> str:
        import timm
        import torch.hub

        config = timm.get_pretrained_cfg(architecture)
        if config is not None and config.hf_hub_id:
            return f"{hub_cache(config.hf_hub_id)} (from {config.hf_hub_id.rstrip('/')} at huggingface.co)"
        url = "" if config is None or not config.url else str(config.url)
        return str(Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2])

    def told(self, architecture: str, network: nn.Module, *, is_pretrained: bool) -> dict[str, Any]:
        return of_timm(network) if is_pretrained else {}

    @staticmethod
    def _create(architecture: str, arguments: dict[str, Any], *, pretrained: bool) -> nn.Module:
        with uncollected():
            import timm

        if not timm.is_model(architecture):
            raise unknown_name("`model.name` after 'timm:'", architecture, timm.list_models())
        return timm.create_model(architecture, pretrained=pretrained, **arguments)


def of_timm(network: nn.Module) -> dict[str, Any]:
    """What timm says of a network: the size of its square, the image that it is cut out of, mean, std and names."""
    config = getattr(network, "pretrained_cfg", None)
    if not isinstance(config, Mapping) or not {"input_size", "mean", "std"} <= set(config):
        return {}
    size = min(config["input_size"][1:])
    how = config.get("interpolation")
    return {
        "image_size": size,
        "short_side": int(size / config.get("crop_pct", 1.0)),
        "mean": channels(config["mean"], "mean"),
        "std": channels(config["std"], "std"),
        "names": _names_of_timm(config, getattr(network, "num_classes", None)),
        **({"interpolation": how} if how in ("bilinear", "bicubic", "lanczos", "nearest") else {}),
    }


def _names_of_timm(config: Mapping[str, Any], num_classes: int | None) -> tuple[str, ...]:
    """The names of the classes that timm's weights have, if the network has as many."""
    if num_classes is None or config.get("num_classes") != num_classes:
        return ()
    if config.get("label_names"):
        return tuple(map(str, config["label_names"]))
    if num_classes == 1000:
        return imagenet_names()
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(dict(config))
    return tuple(ImageNetInfo(subset).label_descriptions()) if subset else ()


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Let huggingface_hub, which libraries get files by, look into its cache only, for a while."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def hub_cache(repository: str) -> Path:
    """Where huggingface_hub keeps the files of a repository."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"models--{repository.rstrip('/').replace('/', '--')}"
