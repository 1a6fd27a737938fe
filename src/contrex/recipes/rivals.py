"""Methods that others propose for better heatmaps, in the form of the runs that they are compared with.

What these papers trained is not repeated: data, networks and weights of losses are those of the parents here.
"""

from __future__ import annotations

from dataclasses import replace

from contrex.recipes import digits, pets, retrofit, tiny_imagenet
from contrex.recipes.registry import recipe
from contrex.settings import BCEHead, EnergyGuided, Optimizer, Recipe


@recipe
def digits_energy() -> Recipe:
    """The built-in digits, heatmaps guided into boxes by the energy loss."""
    return replace(digits.cross_entropy(), name="digits_energy", method=EnergyGuided())


@recipe
def pets_energy() -> Recipe:
    """Pets with heatmaps guided into boxes by the energy loss."""
    return replace(pets.cross_entropy(), name="pets_energy", method=EnergyGuided())


@recipe
def tiny_imagenet_small20_energy() -> Recipe:
    """Twenty classes of small objects, heatmaps guided into boxes by the energy loss."""
    parent = tiny_imagenet.small20_cross_entropy()
    return replace(parent, name="tiny_imagenet_small20_energy", method=EnergyGuided())


@recipe
def photos_bce_head() -> Recipe:
    """Photos without labels, a trained MobileNetV2: sigmoids for its last layer, from its own outputs."""
    parent = retrofit.photos_retrofit()
    return replace(
        parent,
        name="photos_bce_head",
        method=BCEHead(targets="teacher"),
        optimizer=Optimizer("adamw", lr=3e-3, weight_decay=0.0),
        training=replace(parent.training, epochs=20),
    )
