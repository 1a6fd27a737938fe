"""What of a network a run moves, and how fast: the classifier's own rate."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from contrex.errors import ArgumentError, LayerError
from contrex.methods.phase import Phase, Plan
from contrex.models import classifier_heads


def with_rates(plan: Plan, network: nn.Module) -> Plan:
    """The plan with the classifier's parameters told apart where a phase has a rate for them, `optimizer.head_lr`.

    Raises:
        LayerError: the network does not end in linear layers.
        ArgumentError: no phase with that rate moves the classifier.
    """
    asked = [phase.optimizer for phase in plan.phases if phase.optimizer.head_lr is not None]
    if not asked:
        return plan
    head = _head_parameters(network, "`optimizer.head_lr` is the rate of the network's last linear layer")
    phases = [_with_rate(phase, head) for phase in plan.phases]
    for optimizer in asked:
        if not any(phase.head for phase in phases if phase.optimizer is optimizer):
            raise ArgumentError(
                f"`optimizer.head_lr` {optimizer.head_lr} moves nothing: the classifier is frozen, or has an "
                "optimiser of its own, `method.classifier.optimizer`. Leave it out."
            )
    return replace(plan, phases=phases)


def _with_rate(phase: Phase, head: set[nn.Parameter]) -> Phase:
    if phase.optimizer.head_lr is None:
        return phase
    return replace(phase, head=[parameter for parameter in phase.parameters if parameter in head])


def _head_parameters(network: nn.Module, why: str) -> set[nn.Parameter]:
    """The parameters of the classifier's linear layers; `why` begins the error of a network that has none."""
    try:
        heads = classifier_heads(network)
    except LayerError as error:
        raise LayerError(f"{why}: {error}") from None
    return {parameter for layer in heads.values() for parameter in layer.parameters()}
