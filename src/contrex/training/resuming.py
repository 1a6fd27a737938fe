"""What a resumed run goes on from, and what it may do differently."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from contrex import ranks
from contrex.errors import CheckpointError
from contrex.methods import Plan
from contrex.records import from_plain, to_plain
from contrex.settings import Recipe
from contrex.training.checkpoint import Checkpoints

FREE_TO_CHANGE = frozenset(
    {
        "data.path",
        "evaluation",
        "labelled.file",
        "labelled.unlabelled",
        "training.device",
        "training.workers",
        "training.checkpoint_minutes",
    }
)
"""What a resumed run may do differently without changing its result: the same images, and the list of the labelled
ones, may lie elsewhere."""


@dataclass
class Place:
    """How far a run has come: `epoch`, `phase` of the epoch and `batch` of the next step, steps done, best validation
    accuracy so far."""

    epoch: int = 0
    phase: int = 0
    batch: int = 0
    step: int = 0
    best: float = -1.0


def saved_content(checkpoints: Checkpoints, recipe: Recipe, resume: bool) -> dict[str, Any] | None:
    """The checkpoint to go on from, if any; refuses to mix two runs in one folder."""
    if not checkpoints.exists():
        return None
    run = checkpoints.folder.parent
    if not resume:
        raise CheckpointError(f"{run} already holds a run: continue it with --resume, or choose another --folder.")
    content = checkpoints.load()
    before: Recipe = from_plain(content["recipe"], Recipe, where="recipe")  # which may have fewer fields
    changed = sorted(_changed(to_plain(before), to_plain(recipe)))
    if changed:
        raise CheckpointError(
            f"{run} was started with another recipe, different in {', '.join(changed)}: choose another --folder, "
            f"or resume it as it was with: {resuming_command(run)}"
        )
    return content


def load_steps(plan: Plan, content: Mapping[str, Any]) -> None:
    """The weights and the state of every step, from a checkpoint's content."""
    for step, state in zip(plan.modules(), content["steps"], strict=True):
        step.load_state_dict(state)


def restored(
    content: Mapping[str, Any] | None,
    optimizers: Sequence[Optimizer],
    own_share: Callable[[Optimizer, Mapping[str, Any]], dict[str, Any]] | None = None,
) -> Place:
    """The place in the run after loading the states of the optimisers; `own_share` cuts out what a process keeps."""
    if content is None:
        return Place()
    for optimizer, state in zip(optimizers, content["optimizers"], strict=True):
        optimizer.load_state_dict(state if own_share is None else own_share(optimizer, state))
    return Place(**content["place"])


def other_world(content: Mapping[str, Any] | None) -> str | None:
    """What to say where the run was on another number of processes so far."""
    before, now = (content or {}).get("world_size", 1), ranks.world_size()
    if content is None or before == now:
        return None
    return (
        f"the run had {before} process{'es' * (before > 1)} so far and goes on with {now}: it sees the same batches, "
        "but sums are rounded in another order and dropout is drawn anew, so it is not bit-exact."
    )


def resuming_command(folder: Path) -> str:
    """The command that continues a run, as a shell reads it."""
    words = ["train", str(folder / "recipe.json"), "--folder", str(folder), "--resume"]
    if ranks.world_size() == 1:
        return shlex.join(["contrex", *words])
    return shlex.join(["torchrun", "--nproc-per-node", str(ranks.world_size()), "-m", "contrex", *words])


def _changed(old: Any, new: Any, name: str = "") -> set[str]:
    """The dotted names of the fields that differ and that a resumed run may not change."""
    if not isinstance(old, dict) or not isinstance(new, dict) or old.keys() != new.keys():
        return {name} if old != new else set()
    names = {key: f"{name}.{key}".lstrip(".") for key in old}
    return set().union(
        *(_changed(old[k], new[k], dotted) for k, dotted in names.items() if dotted not in FREE_TO_CHANGE)
    )
