"""The networks that a measured one is compared with: runs, networks of libraries, or what a file gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from contrex.asking import load
from contrex.data import reader
from contrex.errors import ArgumentError, ContrexError
from contrex.models import Classifier
from contrex.outside import outside
from contrex.training import load_trained

_WHAT = "`evaluation.others`"


def other_networks(names: Sequence[str], classes: Sequence[str]) -> Mapping[str, Classifier]:
    """The classifiers that `evaluation.others` names, by these names; runs must have been trained on `classes`, those
    of the images.

    A name is the folder of a run (its last checkpoint), `FILE.py:NAME` of a function that returns a `Classifier`, or
    that of a network with its library's own weights, such as `timm:resnet50`.

    Raises:
        ArgumentError: a name means none of these, or a run has other classes.
    """
    return {name: _network(name, classes) for name in names}


def _network(name: str, classes: Sequence[str]) -> Classifier:
    if Path(name).is_dir():
        recipe, classifier, own = load_trained(Path(name))
        if reader(type(recipe.data)).has_labels and list(own) != list(classes):  # else it knows no names of its own
            raise ArgumentError(f"{_WHAT} {name} was trained on other classes: name runs of the same ones.")
        return classifier
    if ".py:" in name:
        make = outside(name, _WHAT)
        made = make() if callable(make) else make
        if not isinstance(made, Classifier):
            raise ArgumentError(f"{_WHAT} {name} must be a function that gives a Classifier, got {made!r}.")
        return made
    if ":" not in name:
        raise ArgumentError(
            f"{_WHAT} must be folders of runs, names such as timm:resnet50, or FILE.py:NAME; there is no folder {name}."
        )
    try:
        return load(name, pretrained=True)
    except ContrexError as error:
        raise type(error)(f"{_WHAT} {name}: {error}") from None
