"""Models of images and texts as classifiers: a class for each text, and logits that say how well it fits the image.

    y_k = s <f(x), t_k> / (|f(x)| |t_k|) + b

CLIP, section 3.1.2 and figure 3: t_k are the features of the texts, s the scale (the inverse of a temperature) and b
the bias that SigLIP adds. The texts are read once; what is explained is how the image is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrex.errors import ArgumentError, unknown_name
from contrex.models.libraries import Library, hub_cache, offline


class ZeroShot(nn.Module):
    """A classifier `images [N,3,H,W] -> logits [N,K]` with a class for each of K texts.

    `tower` gives the features [N,D] of images, alone or first in a tuple; `texts` are those of the texts, [K,D].

    Raises:
        ArgumentError: there is one text only: a softmax over it says nothing.
    """

    texts: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(
        self, tower: nn.Module, texts: Tensor, scale: Tensor, bias: Tensor | None = None, *, classes: Sequence[str] = ()
    ) -> None:
        super().__init__()
        if len(texts) < 2:
            raise ArgumentError(
                f"`classes` must be at least two texts, got {list(classes)}: they compete for the image."
            )
        self.tower, self.classes = tower, tuple(classes)
        self.register_buffer("texts", F.normalize(texts.detach().float(), dim=-1), persistent=False)
        self.register_buffer("scale", scale.detach().float().exp(), persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach().float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """The logits [N,K] of images."""
        found = self.tower(images)
        features: Tensor = found[0] if isinstance(found, (tuple, list)) else found
        logits: Tensor = self.scale * F.normalize(features, dim=-1) @ self.texts.to(features.dtype).T
        return logits if self.bias is None else logits + self.bias


class OpenClip(Library):
    """open_clip's models. NAME.TAG chooses among their weights, as in ViT-B-32.laion2b_s34b_b79k; without a tag they
    are OpenAI's where there are some, otherwise the first that open_clip lists."""

    title = "open_clip"
    reads_words = True

    def build(self, architecture: str, arguments: dict[str, Any], *, like_pretrained: bool) -> nn.Module:
        name, _ = self._named(architecture)
        nothing = {"pretrained": None, "load_weights": False, "pretrained_image": False, "pretrained_text": False}
        with offline():
            try:
                return self._zero_shot(name, arguments, **nothing)
            except OSError as error:
                raise ArgumentError(
                    f"`model.name` open_clip:{name} reads texts by files that are not in the cache, and only "
                    f"--pretrained fetches anything: {str(error).splitlines()[0]}"
                ) from None

    def pretrained(self, architecture: str, arguments: dict[str, Any]) -> nn.Module:
        name, tag = self._named(architecture)
        return self._zero_shot(name, arguments, pretrained=tag)

    def cache(self, architecture: str) -> str:
        config = _open_clip().get_pretrained_cfg(*self._named(architecture)) or {}
        repository = str(config.get("hf_hub", "")).strip("/")
        source = repository or config.get("url", "")
        return f"{hub_cache(repository)} (from {source})" if repository else f"~/.cache/clip (from {source})"

    def told(self, architecture: str, network: nn.Module, *, is_pretrained: bool) -> dict[str, Any]:
        name, tag = self._named(architecture)
        config = _open_clip().get_pretrained_cfg(name, tag) if is_pretrained else {}
        side = getattr(getattr(network, "tower", None), "image_size", None) or 224
        side = side[0] if isinstance(side, (tuple, list)) else side
        known: dict[str, Any] = {"names": getattr(network, "classes", ()), "image_size": side, "short_side": side}
        for field in ("mean", "std"):
            known[field] = tuple(config.get(field) or getattr(_open_clip(), f"OPENAI_DATASET_{field.upper()}"))
        return {**known, "interpolation": config.get("interpolation", "bicubic")}

    @staticmethod
    def _named(architecture: str) -> tuple[str, str]:
        """The name of a model and the tag of its weights."""
        library = _open_clip()
        known = library.list_models()
        name, _, tag = (architecture, "", "") if architecture in known else architecture.rpartition(".")
        if name not in known:
            raise unknown_name("`model.name` after 'open_clip:'", architecture, known)
        tags = library.list_pretrained_tags_by_model(name)
        return name, tag or ("openai" if "openai" in tags else next(iter(tags), ""))

    @staticmethod
    def _zero_shot(name: str, arguments: dict[str, Any], **weights: Any) -> nn.Module:
        options = {key: value for key, value in arguments.items() if key != "num_classes"}
        words = tuple(options.pop("classes", ()))
        if not words:
            raise ArgumentError(
                f"`model.classes`: open_clip:{name} compares pictures with texts: give it some, "
                '--classes "a tabby" "a tiger cat".'
            )
        library = _open_clip()
        model = library.create_model(name, **weights, **options).eval()
        tokens = library.get_tokenizer(name)(list(words))
        features = text_features(lambda: model.encode_text(tokens))
        return ZeroShot(model.visual, features, model.logit_scale, getattr(model, "logit_bias", None), classes=words)


def text_features(read: Callable[[], Tensor]) -> Tensor:
    """The features [K,D] of texts, read once."""
    with torch.no_grad():
        return read()


def _open_clip() -> Any:
    try:
        import open_clip
    except ImportError:
        raise ArgumentError("`model.name` open_clip:NAME needs it: pip install 'contrex[open_clip]'.") from None
    return open_clip
