"""A method as phases: which step moves which parameters, and in what order.

Most methods have one phase. Contrastive ones have two, the encoder and a classifier on it, which take turns in every
epoch or follow each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from contrex.settings import Augmentation, Optimizer, Recipe, Schedule

if TYPE_CHECKING:
    from contrex.methods.step import Step


@dataclass(frozen=True, eq=False)
class Phase:
    """One part of a method: its objective, the parameters that it trains, how, and on which views.

    `name` stands before the names of its terms in the log; `epochs` is how many it has in the whole run.
    """

    name: str
    step: Step
    parameters: Sequence[nn.Parameter]
    optimizer: Optimizer
    schedule: Schedule
    augmentation: Augmentation
    epochs: int
    head: Sequence[nn.Parameter] = ()
    """Those of its parameters that have the classifier's own rate, `optimizer.head_lr`."""
    frozen: Sequence[nn.Module] = ()
    """Modules that stay in eval mode: those of `training.freeze`, and those that the step keeps in it, as a teacher."""
    held: Sequence[nn.Parameter] = ()
    """Parameters of the network that stay as they are for this run, by `training.freeze` or the method's settings."""
    trains_classifier: bool = True
    """Whether the classifier is better afterwards: otherwise there is nothing to validate."""

    def term(self, name: str) -> str:
        """The name of a term of this phase in the log."""
        return f"{self.name}_{name}" if self.name else name

    def begin(self, epoch: int) -> None:
        """Make the phase ready for an epoch: gradients for its own parameters only, its modules in their modes.

        Phases take turns with one network, so each sets all of it. What a step froze on purpose is no phase's own, and
        gets no gradients.
        """
        # By id, as `in` would compare the numbers of tensors; the phase keeps them, so no id is taken over.
        own = {id(parameter) for parameter in self.parameters}
        for parameter in self.step.parameters():
            parameter.requires_grad_(id(parameter) in own)
        self.step.train()
        for module in self.frozen:
            module.eval()
        self.step.begin_epoch(epoch)


@dataclass(frozen=True, eq=False)
class Plan:
    """The phases of a run, and for each epoch which of them it has, by index."""

    phases: Sequence[Phase]
    epochs: Sequence[Sequence[int]]

    def epochs_before(self, epoch: int, phase: int) -> int:
        """How many epochs of `phase` come before `epoch`."""
        return sum(phase in phases for phases in self.epochs[:epoch])

    def modules(self) -> Iterator[Step]:
        """The steps, each of which has its share of the network's state."""
        return (phase.step for phase in self.phases)

    def finish(self) -> None:
        """Put everything into eval mode and let all parameters have gradients again, but for those that a step froze
        itself."""
        for phase in self.phases:
            phase.step.eval()
            for parameter in (*phase.parameters, *phase.held):
                parameter.requires_grad_(True)


def one_phase(step: Step, recipe: Recipe) -> Plan:
    """The plan of a single step that moves its trained parameters, with the recipe's own settings."""
    phase = Phase(
        name="",
        step=step,
        parameters=step.trained_parameters(),
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        augmentation=recipe.augmentation,
        epochs=recipe.training.epochs,
        frozen=step.kept_in_eval(),
    )
    return Plan([phase], [[0]] * recipe.training.epochs)
