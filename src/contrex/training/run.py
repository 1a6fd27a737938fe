"""A run: all that it consists of while it trains, and its folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from torch.optim import Optimizer

from contrex import ranks
from contrex.data.loading import TrainingLoader
from contrex.evaluation.groups import Groups
from contrex.methods import Phase, Plan
from contrex.models import Classifier
from contrex.settings import Recipe
from contrex.training import distributed, sharding
from contrex.training.averaging import Averages
from contrex.training.checkpoint import Checkpoints
from contrex.training.distributed import Runner
from contrex.training.log import MetricsLog
from contrex.training.loggers import Loggers
from contrex.training.state import Fingerprint, Place, RunState
from contrex.training.timing import TimingLog


class RunFolder:
    """What a run writes as it goes: checkpoints, the log of its steps, the times of its epochs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = Checkpoints(path)
        self.log = MetricsLog(path)
        self.loggers = Loggers()
        self.timing = TimingLog(path)
        self.saved_at = time.monotonic()
        """When the last checkpoint was written."""

    def write(self, line: Mapping[str, float]) -> None:
        """Append a line to the log, and hand it on to the loggers."""
        self.log.write(line)
        self.loggers.write(line)

    def save(self, state: RunState, *, best: bool) -> None:
        """Write a checkpoint."""
        self.checkpoints.save(state.to_checkpoint(), step=state.place.step, best=best)


@dataclass(eq=False)
class Run:
    """A run as it stands between two steps. `state()` is the part of it that a checkpoint keeps.

    `runners` has those of the phases that have begun, by number. All but the first process have a silent `console`.
    """

    recipe: Recipe
    folder: RunFolder
    device: torch.device
    classifier: Classifier
    plan: Plan
    runners: dict[int, Runner]
    optimizers: list[Optimizer]
    averages: Averages
    place: Place
    data: Fingerprint
    loader: TrainingLoader
    to_validate: Groups
    console: Console
    explained: list[str]
    """The layers that were explained since this start, with their grids: each is told once."""

    # --- where it is ------------------------------------------------------------------------------------------------

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch of each phase: complete batches of the training images."""
        return (self.data.num_images or 0) // self.recipe.training.batch_size

    @property
    def num_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.steps_per_epoch * sum(map(len, self.plan.epochs))

    @property
    def is_finished(self) -> bool:
        """Whether every epoch is done."""
        return self.place.epoch == len(self.plan.epochs)

    @property
    def number(self) -> int:
        """The number of the phase that the next step is of."""
        return self.plan.epochs[self.place.epoch][self.place.phase]

    @property
    def phase(self) -> Phase:
        """The phase that the next step is of."""
        return self.plan.phases[self.number]

    @property
    def phase_step(self) -> int:
        """Optimiser steps of the current phase so far; its schedule and its averages go by them."""
        return self.steps_per_epoch * self.plan.epochs_before(self.place.epoch, self.number) + self.place.batch

    # --- what it does -----------------------------------------------------------------------------------------------

    def begin_phase(self) -> None:
        """Make the current phase ready for its epoch: gradients, modes, and the processes around its step."""
        self.phase.begin(self.place.epoch)
        if self.number not in self.runners:  # DDP looks at which parameters have gradients only when it is made
            self.runners[self.number] = distributed.runner(self.phase.step)

    def state(self) -> RunState:
        """The part of the run that a checkpoint keeps, by value. Sync point: where processes share weights, all must
        call it, as the shares of all are put together."""
        whole = sharding.whole_state if self.recipe.training.shard else lambda value: value
        return RunState(
            recipe=self.recipe,
            data=self.data,
            place=replace(self.place),
            num_epochs=len(self.plan.epochs),
            steps=whole([step.state_dict() for step in self.plan.modules()]),
            optimizers=whole([optimizer.state_dict() for optimizer in self.optimizers]),
            averages=whole(self.averages.state_dict()),
            explains=tuple(self.explained),
            world_size=ranks.world_size(),
        )

    def save(self, *, best: bool = False) -> None:
        """Write a checkpoint. Sync point: all processes call it, the first one writes, and a full disk ends all."""
        state = self.state()
        with ranks.together():
            if ranks.rank() == 0:
                self.folder.save(state, best=best)
        self.folder.saved_at = time.monotonic()
