"""Weights from a file: every key accounted for, and nothing in the file executed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from contrex.errors import WeightsError, unknown_name
from contrex.models.layouts import LAYOUTS, looks_like, plain_keys
from contrex.models.strangers import no_weights, other_network, whole_module


def load_weights(
    network: nn.Module,
    path: Path | None,
    *,
    fresh: Sequence[str] = (),
    state: Mapping[str, Tensor] | None = None,
    source: str | None = None,
) -> None:
    """Load a state_dict into `network`, all of it: only modules named in `fresh` keep their initialisation.

    Wrapper prefixes (`module.`, `_orig_mod.`) and checkpoints that hold the weights under "state_dict" or "model" are
    understood. Nothing in the file is executed (`weights_only`). `state` is its content where it was read before, and
    `source` says what errors call it, where it is no file.
    """
    if state is None:
        assert path is not None
        state = plain_keys(read_state_dict(path))
    _check_fresh(network, fresh)
    own = network.state_dict()
    kept_fresh = {key for key in own if any(key.startswith(f"{name}.") for name in fresh)}
    needed = {key for key in own if key not in kept_fresh and not key.endswith("num_batches_tracked")}
    left_over = [key for key in state if key not in own and not any(key.startswith(f"{name}.") for name in fresh)]
    missing = sorted(needed - set(state))
    shapes = [key for key in sorted(needed & set(state)) if own[key].shape != state[key].shape]
    if missing or left_over or shapes:
        other = "" if path is None else other_network(path, network, state)
        told = source or f"`model.weights` {path}"
        raise WeightsError(_mismatch(told, network, missing, left_over, shapes, own, state) + other)
    loaded = {key: value for key, value in state.items() if key in own and key not in kept_fresh}
    network.load_state_dict({**own, **loaded})


def _check_fresh(network: nn.Module, fresh: Sequence[str]) -> None:
    modules = dict(network.named_modules())
    for name in fresh:
        if name not in modules:
            raise unknown_name("`model.fresh`", name, [key for key in modules if key])


def read_state_dict(path: Path, layout: str = "plain") -> dict[str, Tensor]:
    """The tensors of a .pth / .pt / .safetensors file, by name; `layout` says where in it they are."""
    if not Path(path).is_file():
        raise WeightsError(f"`model.weights` {path} is not a file.")
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        content, names = _content(Path(path))
    except WeightsError:
        raise
    except Exception as error:  # a file that is no checkpoint can raise anything in the unpickler
        told = no_weights(Path(path)) or f"cannot be read as tensors only: {_reason(error)}"
        raise WeightsError(f"`model.weights` {path} {told}") from None
    for key in ("state_dict", "model") if layout not in LAYOUTS else (LAYOUTS[layout].under,):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if isinstance(content, _Inert) and not content:
        raise WeightsError(f"`model.weights` {path} {whole_module(names[0])}")
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"`model.weights` {path} does not hold a state_dict (names to tensors).{_other(content)}")
    return dict(content)


def _content(path: Path) -> tuple[Any, list[str]]:
    """What torch has saved in a file, and the names of the kinds in it that are not torch's own.

    Inert stand-ins are for whatever is no tensor and no plain value: options, paths and numbers of numpy that a script
    has left beside the weights. Nothing that the file names is imported or called.
    """
    names: list[str] = []
    while True:
        try:
            with torch.serialization.safe_globals([(_Inert, name) for name in names]):
                return torch.load(path, map_location="cpu", weights_only=True), names
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


def _mismatch(
    source: str,
    network: nn.Module,
    missing: list[str],
    left_over: list[str],
    shapes: list[str],
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
) -> str:
    parts = [f"{source} does not fit {type(network).__name__}:"]
    for what, keys in (("missing", missing), ("left over", left_over)):
        if keys:
            parts.append(f"{len(keys)} {what} ({', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''});")
    if shapes:
        key = min(shapes)
        found, wanted = list(state[key].shape), list(own[key].shape)
        parts.append(f"{len(shapes)} of another shape ({key}: file {found}, network {wanted});")
    modules = dict.fromkeys(key.rpartition(".")[0] for key in (*missing, *shapes))
    fresh = f": --model.fresh {' '.join(modules)}" if len(modules) == 1 else ""
    parts.append(
        f"check `model.name` and `model.num_classes`, or, to train them anew, name modules in `model.fresh`{fresh}."
    )
    return " ".join(parts) + _other(state)
