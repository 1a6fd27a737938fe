"""Recipes as written: their names, their networks, and where they are read from."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch

import contrex
from contrex.errors import UnknownNameError
from contrex.models import build_network
from contrex.recipes import RECIPES, recipe_from
from contrex.records import write_json
from sampling import crossed


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_named_as_it_is_called(name):
    assert RECIPES[name]().name == name
    assert recipe_from(name.replace("_", "-")) == RECIPES[name]()


@functools.cache
def network_and_map(name, options, stem, side, layer):
    """The names of a network's modules and the shape of its heatmaps; many recipes share one."""
    network = build_network(name, dict(options), num_classes=10, stem=stem)
    heatmap = contrex.GradCAM(network, layer)(torch.rand(1, 3, side, side)).heatmap
    return {module for module, _ in network.named_modules()}, heatmap.shape[1:]


@pytest.mark.filterwarnings("ignore:.*of the gradient.*flows past:contrex.errors.LayerWarning")  # ExCon's own layer
@pytest.mark.parametrize("name", crossed(RECIPES, one_in=4))
def test_maps_are_large_enough_to_point_at_something(name):
    recipe = RECIPES[name]()
    model, layer = recipe.model, getattr(recipe.method, "layer", None)
    options = tuple(sorted(model.options.items()))
    modules, (height, width) = network_and_map(model.name, options, model.stem, recipe.data.image_size, layer)
    assert height == width >= 4
    assert set(model.fresh) <= modules
    if "tiny_imagenet" in name or name.startswith("digits"):
        assert height == 8


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_is_in_a_line(name):
    first = RECIPES[name].__doc__.splitlines()[0]
    assert first.endswith((".", ":"))
    assert len(first) < 100


def test_the_papers_weights_of_the_loss():
    """CGC, section 4 and Table 10; GCC's of its published code."""
    found = {
        name: recipe.method.weight for name, make in RECIPES.items() if hasattr((recipe := make()).method, "weight")
    }
    paper = {
        "imagenet_resnet18_gcc": 25.0,
        "imagenet_resnet18_cgc": 1.0,
        "imagenet_resnet50_cgc": 0.5,
        "imagenet_resnet18_cgc_lambda_0_01": 0.01,
        "imagenet_resnet18_cgc_lambda_0_1": 0.1,
        "imagenet_resnet18_cgc_lambda_0_5": 0.5,
        "imagenet_resnet18_cgc_lambda_2": 2.0,
        "cub_cgc": 0.25,
        "cars_cgc": 0.25,
        "aircraft_cgc": 0.5,
        "flowers_cgc": 0.5,
    }
    assert paper.items() <= found.items()


def test_a_folder_of_the_same_name_does_not_hide_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved = replace(RECIPES["pets_cgc"](), name="mine")
    write_json(tmp_path / "pets_cgc" / "recipe.json", saved)
    assert recipe_from("pets_cgc") == RECIPES["pets_cgc"]()
    assert recipe_from("pets-cgc") == RECIPES["pets_cgc"]()
    assert recipe_from("./pets_cgc") == saved
    with pytest.raises(UnknownNameError, match="got 'pets_cg'"):
        recipe_from("pets_cg")
