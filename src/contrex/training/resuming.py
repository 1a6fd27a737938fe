"""What a resumed run goes on from, and what it may do differently."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from contrex import ranks
from contrex.data.labelled import LIST, TrainingImages
from contrex.errors import CheckpointError
from contrex.methods import Plan
from contrex.records import to_plain
from contrex.records.scopes import SAME_RESULT, Scope, differing
from contrex.settings import Recipe
from contrex.training.checkpoint import Checkpoints
from contrex.training.state import RunState, fingerprint

OwnShare = Callable[[Optimizer, Mapping[str, Any]], dict[str, Any]]
"""Cuts out of the whole state of an optimiser what a process keeps of it."""

FREE_TO_CHANGE: frozenset[Scope] = SAME_RESULT | {"place", "measuring"}
"""What a resumed run may do differently without changing its result: the same images, and the list of the labelled
ones, may lie elsewhere."""


def saved_content(checkpoints: Checkpoints, recipe: Recipe, resume: bool) -> dict[str, Any] | None:
    """Read the checkpoint to go on from, if there is one, and refuse to mix two runs in one folder."""
    if not checkpoints.exists():
        return None
    run = checkpoints.folder.parent
    if not resume:
        raise CheckpointError(f"{run} already holds a run: continue it with --resume, or choose another --folder.")
    content = checkpoints.load()
    changed = sorted(differing(to_plain(RunState.from_checkpoint(content).recipe), to_plain(recipe), FREE_TO_CHANGE))
    if changed:
        raise CheckpointError(
            f"{run} was started with another recipe, different in {', '.join(changed)}: choose another --folder, "
            f"or resume it as it was with: {resuming_command(run)}"
        )
    return content


def load_steps(plan: Plan, state: RunState) -> None:
    """Load the weights and the state of every step.

    Raises:
        CheckpointError: the steps have other tensors than those of the run, or there are more or fewer.
    """
    _check_number("steps", len(state.steps), len(plan.phases))
    for step, saved in zip(plan.modules(), state.steps, strict=True):
        try:
            step.load_state_dict(saved)
        except RuntimeError as error:
            raise CheckpointError(f"the checkpoint does not fit {type(step).__name__}: {_line(error)}") from None


def load_optimizers(optimizers: Sequence[Optimizer], state: RunState, own_share: OwnShare | None = None) -> None:
    """Load the states of the optimisers; `own_share` cuts out what a process keeps.

    Raises:
        CheckpointError: they moved other parameters when the run was started, or there are more or fewer.
    """
    _check_number("optimizers", len(state.optimizers), len(optimizers))
    for optimizer, saved in zip(optimizers, state.optimizers, strict=True):
        try:
            optimizer.load_state_dict(saved if own_share is None else own_share(optimizer, saved))  # type: ignore[arg-type]
        except ValueError as error:
            raise CheckpointError(
                f"the run was started with other parameters to train ({_line(error)}): go on with the contrex that "
                "started it, or train it again."
            ) from None


def check_same_images(images: TrainingImages, state: RunState) -> None:
    """Refuse to go on with other images than a run was started with.

    Raises:
        CheckpointError: there are other classes, more or fewer images, others have a label or are kept out.
    """
    name, before = images.labelled.name, state.data
    now = fingerprint(images, () if images.labelled.has_labels else before.classes)
    if now.classes != before.classes:
        raise CheckpointError(f"{name} has other classes than the run was started on: use the same images.")
    if before.num_images not in (None, now.num_images):
        raise CheckpointError(
            f"{name} has {now.num_images} images, the run was started on {before.num_images}: use the same."
        )
    if now.labelled_sha256 != before.labelled_sha256:
        raise CheckpointError(
            f"the labelled images are others than the run was started with, which are in its {LIST}: use the same "
            "images and `labelled.seed`, or choose another --folder."
        )
    if before.draw_sha256 not in (None, now.draw_sha256):
        raise CheckpointError(
            f"photos of {name} have other names than when the run was started, and others would be kept out: some of "
            "them were trained on. Use the same photos, or start again in another --folder."
        )
    if now.num_unlabelled != before.num_unlabelled:
        raise CheckpointError(
            f"there are {now.num_unlabelled} images without labels, the run was started with {before.num_unlabelled}: "
            "use the same."
        )


def other_world(state: RunState) -> str | None:
    """A sentence about a run that was on another number of processes so far; None where it was not."""
    before, now = state.world_size, ranks.world_size()
    if before == now:
        return None
    return (
        f"the run had {before} process{'es' * (before > 1)} so far and goes on with {now}: it sees the same batches, "
        "but sums are rounded in another order and dropout is drawn anew, so it is not bit-exact."
    )


def _check_number(name: str, saved: int, now: int) -> None:
    if saved != now:
        raise CheckpointError(f"the checkpoint has {saved} `{name}` and the method {now} phases: train it again.")


def _line(error: Exception) -> str:
    """The message of an error in one line."""
    return " ".join(str(error).split())


def resuming_command(folder: Path) -> str:
    """The command that continues a run, as a shell reads it."""
    words = ["train", str(folder / "recipe.json"), "--folder", str(folder), "--resume"]
    if ranks.world_size() == 1:
        return shlex.join(["contrex", *words])
    return shlex.join(["torchrun", "--nproc-per-node", str(ranks.world_size()), "-m", "contrex", *words])
