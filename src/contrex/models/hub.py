"""Networks of transformers by name, `hf:NAME`: image classifiers, and CLIP and its kin with classes in words.

NAME is a kind of network (`hf:resnet`: its usual configuration, with random weights), a repository (`hf:OWNER/NAME`) or
the folder of one. Only `pretrained` fetches anything; without it a repository's configuration must be in the cache. No
code of a repository is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from contrex.errors import ArgumentError, unknown_name
from contrex.models.classes import checked_names
from contrex.models.classifier import channels
from contrex.models.libraries import Library, hub_cache
from contrex.models.zero_shot import ZeroShot, text_features

NO_CODE = {"trust_remote_code": False}
"""For each call: what a repository has of code is refused, and nobody is asked."""

_HOW = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the ways to resize."""


class Transformers(Library):
    """transformers' image classifiers; with `classes`, its models of images and texts."""

    title = "transformers"
    reads_words = True

    def build(self, architecture: str, arguments: dict[str, Any], *, like_pretrained: bool) -> nn.Module:
        kinds = _transformers()
        words, options = _split(arguments)
        config = self._config(architecture, options)
        if not _reads_words(config, words):
            return self._of_images(kinds.AutoModelForImageClassification.from_config, config, architecture)
        model = self._of_images(kinds.AutoModelForZeroShotImageClassification.from_config, config, architecture)
        return self._zero_shot(model, architecture, words, local=True)

    def pretrained(self, architecture: str, arguments: dict[str, Any]) -> nn.Module:
        kinds = _transformers()
        words, options = _split(arguments)
        reads_words = _reads_words(kinds.AutoConfig.from_pretrained(architecture, **NO_CODE), words)
        kinds.AutoImageProcessor.from_pretrained(architecture, **NO_CODE)  # into the cache, for `told`
        kind = kinds.AutoModelForZeroShotImageClassification if reads_words else kinds.AutoModelForImageClassification
        model: nn.Module = kind.from_pretrained(architecture, **NO_CODE, **options)
        if not reads_words:
            return model
        return self._zero_shot(model, architecture, words, local=False)

    def cache(self, architecture: str) -> str:
        return f"{hub_cache(architecture)} (from {architecture} at huggingface.co, or a folder of that name)"

    def told(self, architecture: str, network: nn.Module, *, is_pretrained: bool) -> dict[str, Any]:
        known = of_transformers(network)
        return {**known, **(self._processed(architecture) if is_pretrained else {})}

    @staticmethod
    def _config(architecture: str, options: Mapping[str, Any]) -> Any:
        kinds = _transformers()
        known = kinds.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
        if architecture in known:
            return kinds.AutoConfig.for_model(architecture, **options)
        try:
            return kinds.AutoConfig.from_pretrained(architecture, local_files_only=True, **NO_CODE, **options)
        except (OSError, ValueError):
            if "/" in architecture:
                raise ArgumentError(
                    f"`model.name` hf:{architecture}: its configuration is not in {hub_cache(architecture)}, and only "
                    "--pretrained without `weights` fetches anything. Load it so once, or name a folder."
                ) from None
            raise unknown_name("`model.name` after 'hf:'", architecture, known) from None

    @staticmethod
    def _of_images(make: Any, config: Any, architecture: str) -> nn.Module:
        try:
            network: nn.Module = make(config)
        except ValueError:
            raise ArgumentError(
                f"`model.name` hf:{architecture}: transformers has no image classifier of that kind: choose another."
            ) from None
        return network

    @staticmethod
    def _processed(architecture: str) -> dict[str, Any]:
        """What the processor of a repository does to a picture; nothing is fetched."""
        try:
            processor = _transformers().AutoImageProcessor.from_pretrained(
                architecture, local_files_only=True, **NO_CODE
            )
        except OSError:
            raise ArgumentError(
                f"`model.name` hf:{architecture}: its image processor is not in {hub_cache(architecture)}: load it "
                "with --pretrained and without a file once."
            ) from None
        return view_of_processor(processor.to_dict())

    @staticmethod
    def _zero_shot(model: Any, architecture: str, words: Sequence[str], *, local: bool) -> nn.Module:
        tokenizer = _transformers().AutoTokenizer.from_pretrained(architecture, local_files_only=local, **NO_CODE)
        length = getattr(model.config.text_config, "max_position_embeddings", 77)
        tokens = tokenizer(list(words), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        tower = _Tower(model.vision_model, getattr(model, "visual_projection", None))
        features = text_features(lambda: _features(model.get_text_features(**tokens)))
        return ZeroShot(tower, features, model.logit_scale, getattr(model, "logit_bias", None), classes=words)


class _Tower(nn.Module):
    """The part of a model of images and texts that reads images: images [N,3,H,W] to features [N,D]."""

    def __init__(self, vision: nn.Module, projection: nn.Module | None) -> None:
        super().__init__()
        self.vision, self.projection = vision, projection

    def forward(self, images: Any) -> Any:
        pooled = self.vision(pixel_values=images).pooler_output
        return pooled if self.projection is None else self.projection(pooled)


def of_transformers(network: nn.Module) -> dict[str, Any]:
    """The names that the configuration of a network of transformers has, but for those that it makes up itself."""
    names = getattr(getattr(network, "config", None), "id2label", None)
    if not isinstance(names, Mapping) or all(str(name).startswith("LABEL_") for name in names.values()):
        return {}
    return {"names": checked_names({int(index): str(name) for index, name in names.items()})}


def view_of_processor(does: Mapping[str, Any]) -> dict[str, Any]:
    """What an image processor of transformers does (`processor.to_dict()`), as fields of `Classifier`.

    A picture that it squeezes into a square is cut to its central square instead.
    """
    size, crop = _side(does.get("size")), _side(does.get("crop_size")) if does.get("do_center_crop") else None
    share = does.get("crop_pct")
    square = short_side = crop or size
    if crop and size:
        short_side = max(size, crop)
    elif share and size and size < 384:  # ConvNeXt's and ResNet's: the square is cut out of a larger image
        short_side = int(size / share)
    known: dict[str, Any] = {"image_size": square, "short_side": short_side}
    how = _HOW.get(int(does.get("resample") or 0))
    normalises = does.get("do_normalize", True)
    known["mean"] = channels(does.get("image_mean") or (0.5,), "mean") if normalises else (0.0,) * 3
    known["std"] = channels(does.get("image_std") or (0.5,), "std") if normalises else (1.0,) * 3
    return {**known, **({"interpolation": how} if how else {})}


def _side(size: Any) -> int | None:
    if isinstance(size, Mapping):
        found = [size[name] for name in ("shortest_edge", "height", "width", "longest_edge") if size.get(name)]
        return int(found[0]) if found else None
    return int(size) if size else None


def _split(arguments: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The classes in words, and the options of the configuration."""
    options = {("num_labels" if name == "num_classes" else name): value for name, value in arguments.items()}
    return tuple(options.pop("classes", ())), options


def _reads_words(config: Any, words: Sequence[str]) -> bool:
    """Whether classes are texts that a model compares with pictures, and not only names."""
    kinds = _transformers().models.auto.modeling_auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES
    return bool(words) and config.model_type in kinds


def _features(found: Any) -> Any:
    """The features [K,D] of texts, which newer transformers return with others."""
    return getattr(found, "pooler_output", found)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise ArgumentError("`model.name` hf:NAME needs transformers: pip install 'contrex[transformers]'.") from None
    return transformers
