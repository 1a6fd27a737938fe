"""The libraries that networks come from, by the prefix of a network's name."""

from __future__ import annotations

from contrex.errors import unknown_name
from contrex.models.hub import Transformers
from contrex.models.libraries import Builtin, Library, Timm, Torchvision
from contrex.models.zero_shot import OpenClip

LIBRARIES: dict[str, Library] = {
    "contrex": Builtin(),
    "torchvision": Torchvision(),
    "timm": Timm(),
    "hf": Transformers(),
    "open_clip": OpenClip(),
}
"""The libraries by their prefixes."""


def library_of(name: str) -> tuple[Library, str]:
    """The library that a network's name begins with, and what it is to build.

    Raises:
        UnknownNameError: there is no such library.
    """
    prefix, _, architecture = name.partition(":")
    if prefix in LIBRARIES and architecture:
        return LIBRARIES[prefix], architecture
    raise unknown_name("`model.name`", name, [f"{key}:NAME" for key in LIBRARIES])
