"""Classes by name."""

from __future__ import annotations

from collections.abc import Sequence

from contrex.errors import ArgumentError, unknown_name


def imagenet_names() -> tuple[str, ...]:
    """The 1000 class names of ImageNet, which come with torchvision."""
    from torchvision.models import ResNet50_Weights

    return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])


def class_names(num_classes: int) -> tuple[str, ...]:
    """Names for a classifier that brings none: ImageNet's for 1000 classes, otherwise the indices as text."""
    return imagenet_names() if num_classes == 1000 else tuple(str(index) for index in range(num_classes))


def class_index(text: str, names: Sequence[str], *, what: str = "`target`") -> int:
    """The class that `text` means: an index, a name, or one of a name's synonyms ("goldfish, Carassius auratus").

    Raises:
        ArgumentError: an index is out of range, or several classes share the name (ImageNet has two cranes).
        UnknownNameError: no class has that name; the message lists the nearest.

    >>> class_index("Tiger cat", ["tabby, tabby cat", "tiger cat"])
    1
    """
    if text.isdecimal() and text not in names:
        if int(text) >= len(names):
            raise ArgumentError(f"{what} must be a class between 0 and {len(names) - 1} or a name, got {text}.")
        return int(text)
    wanted = text.strip().lower()
    found = [index for index, name in enumerate(names) if wanted in _synonyms(name)]
    if not found:
        raise unknown_name(what, text, [synonym for name in names for synonym in _synonyms(name)])
    if len(found) > 1:
        raise ArgumentError(f"{what} {text!r} names several classes, {found}: pass the index of one of them.")
    return found[0]


def _synonyms(name: str) -> list[str]:
    lowered = name.lower()
    return list(dict.fromkeys([lowered, *(part.strip() for part in lowered.split(","))]))
