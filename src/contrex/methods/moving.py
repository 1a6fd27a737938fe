"""What of a network a run moves, and how fast: frozen modules, and the classifier's own rate.

Frozen modules are still differentiated through: what lies below them learns, and so does whatever a heatmap at or above
them depends on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import nn

from contrex.errors import ArgumentError, LayerError, unknown_name
from contrex.methods.phase import Phase, Plan
from contrex.models import classifier_heads, last_stage

TRUNK = "trunk"
"""In `training.freeze`: everything but the classifier's linear layer; a module of that name goes first."""
LAST_STAGE, HEAD, ALL = "last-stage", "head", "all"
"""In `method.trained`: `contrex.models.last_stage`, the classifier's linear layer, everything."""


def frozen(plan: Plan, network: nn.Module, names: Sequence[str]) -> Plan:
    """Leave the modules of `network` called `names` out of a plan: they stay in eval mode, and their parameters as they
    are.

    Raises:
        UnknownNameError: there is no module of that name.
        LayerError: `trunk` of a network that does not end in linear layers.
        ArgumentError: a phase has nothing of the network left to train.
    """
    if not names:
        return plan
    modules, kept = [], set[nn.Parameter]()
    for name in names:
        module = _named(network, name, "`training.freeze`", TRUNK)
        modules.append(module)
        kept |= set(module.parameters())
        if module is network:
            kept -= _head_parameters(network, "`training.freeze` trunk spares the network's last linear layer")
    return replace(plan, phases=[_without(phase, modules, kept, names) for phase in plan.phases])


def trained_part(network: nn.Module, names: Sequence[str]) -> list[nn.Parameter]:
    """The parameters of `network` that are meant by `names`, `method.trained`: `last-stage`, `head`, `all` or modules;
    a module of that name goes first.

    Raises:
        UnknownNameError: there is no module of that name.
        LayerError: `head` of a network that does not end in linear layers.
        ArgumentError: what is named has no parameters.
    """
    own = {parameter for name in names for parameter in _part(network, name)}
    if not own:
        raise ArgumentError(f"`method.trained` {' '.join(names)} has no parameters: name modules that have some.")
    return [parameter for parameter in network.parameters() if parameter in own]


def _part(network: nn.Module, name: str) -> Iterable[nn.Parameter]:
    is_module = any(name == one for one, _ in network.named_modules() if one)
    if name == LAST_STAGE and not is_module:
        return last_stage(network)
    if name == HEAD and not is_module:
        return _head_parameters(network, "`method.trained` head is the network's last linear layer")
    return _named(network, name, "`method.trained`", ALL, LAST_STAGE, HEAD).parameters()


def _named(network: nn.Module, name: str, what: str, whole: str, *others: str) -> nn.Module:
    """The module called `name`; the network where it is called `whole`. For the error, `what` is the setting, which
    knows `others` too."""
    modules: dict[str, nn.Module] = dict(network.named_modules())
    if name and name in modules:
        return modules[name]
    if name == whole:
        return network
    depth = name.count(".")
    raise unknown_name(what, name, [whole, *others, *(key for key in modules if key and key.count(".") <= depth)])


def _without(phase: Phase, modules: Sequence[nn.Module], kept: set[nn.Parameter], names: Sequence[str]) -> Phase:
    network = set(phase.step.network.parameters())
    if network.isdisjoint(set(phase.parameters) - kept):
        where = f" in the phase {phase.name}" if phase.name else ""
        raise ArgumentError(
            f"`training.freeze` {' '.join(names)} leaves nothing of the network to train{where}: freeze less of it."
        )
    held = [*phase.held, *(p for p in phase.parameters if p in kept)]
    own = [p for p in phase.parameters if p not in kept]
    return replace(phase, parameters=own, frozen=[*phase.frozen, *modules], held=held)


def with_rates(plan: Plan, network: nn.Module) -> Plan:
    """Give the classifier's parameters their own learning rate in each phase that has one, `optimizer.head_lr`.

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
