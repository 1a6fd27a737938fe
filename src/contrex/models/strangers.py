"""What a file is that was given as weights and holds others, or none; each with the line that mends it."""

from __future__ import annotations

import difflib
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from contrex.errors import ContrexError
from contrex.models.named import LIBRARIES
from contrex.models.undrawn import Undrawn

_ALIKE = 8
"""How many architectures of a library are compared with a file."""


def no_weights(path: Path) -> str | None:
    """What a file is that holds no state_dict, and what to do, in words; None where nothing tells."""
    with path.open("rb") as stream:
        head = stream.read(512).lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself: run `git lfs pull` where it comes from."
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not weights: download the file itself, not the page that shows it."
    members = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
    if any("/code/__torch__" in name for name in members):
        return (
            "is a TorchScript program, which hides its layers: build the network, and save the weights of the program "
            'for it, torch.save(torch.jit.load(FILE).state_dict(), "weights.pth").'
        )
    if any(name.endswith("/archive_format") for name in members):
        return (
            "is a program of torch.export, which has no layers left: build the network, and save the weights of the "
            'program for it, torch.save(torch.export.load(FILE).state_dict, "weights.pth").'
        )
    return None


def whole_module(kind: str) -> str:
    """What to do about a file with a pickled object of the class `kind`, in words."""
    return (
        f"holds a whole module ({kind}) that was pickled, not its state_dict, and nothing in a file is executed. If "
        "you trust the file, save its weights alone: torch.save(torch.load(FILE, weights_only=False).state_dict(), "
        '"weights.pth").'
    )


def other_network(path: Path, network: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Which network a file is of, in words, if it is torchvision's or timm's and named like the file or the network;
    otherwise an empty text."""
    shapes = {key: value.shape for key, value in state.items()}
    for name in _candidates(path, network):
        if shapes == _shapes(name, len(shapes)):
            return f" The file is of {name}: --model.name {name}."
    return ""


def _candidates(path: Path, network: nn.Module) -> Iterator[str]:
    """Networks that are named like the file, or like that of a library which it did not fit, the likeliest first."""
    import timm
    import torchvision.models

    known = {
        "torchvision": torchvision.models.list_models(module=torchvision.models),
        "timm": timm.list_models(),
    }
    stem, (own, *_) = path.stem.lower().replace(".", "_"), type(network).__module__.split(".")
    for library, names in known.items():
        inside = sorted((name for name in names if name in stem), key=len, reverse=True)[:2]
        # Each costs half a second, so a network's name is searched for only where there may be others of its kind.
        name = type(network).__name__.lower()
        near = difflib.get_close_matches(name, names, n=_ALIKE, cutoff=0.5) if own in known else []
        yield from (f"{library}:{name}" for name in dict.fromkeys([*inside, *near]))


def _shapes(name: str, num_keys: int) -> dict[str, torch.Size] | None:
    """The names and shapes of the tensors of a network, which is built without memory for them."""
    prefix, _, architecture = name.partition(":")
    try:
        with torch.device("meta"), Undrawn(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of networks that nobody asked for
            network = LIBRARIES[prefix].build(architecture, {}, like_pretrained=False)
    except (ContrexError, RuntimeError, NotImplementedError, ValueError, TypeError):
        return None  # some look at their weights when they are built
    found = network.state_dict() if isinstance(network, nn.Module) else {}
    return {key: value.shape for key, value in found.items()} if len(found) == num_keys else None
