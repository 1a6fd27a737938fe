"""Recipes as written: their names, their networks, and where they are read from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import contrex
from contrex.errors import UnknownNameError
from contrex.models import build_network
from contrex.recipes import RECIPES, recipe_from
from contrex.records import write_json


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_named_as_it_is_called(name):
    assert RECIPES[name]().name == name
    assert recipe_from(name.replace("_", "-")) == RECIPES[name]()


@pytest.mark.parametrize("name", RECIPES)
def test_maps_are_large_enough_to_point_at_something(name):
    recipe = RECIPES[name]()
    network = build_network(recipe.model.name, recipe.model.options, num_classes=10, stem=recipe.model.stem)
    side = recipe.data.image_size
    layer = getattr(recipe.method, "layer", None)
    heatmap = contrex.GradCAM(network, layer)(torch.rand(1, 3, side, side)).heatmap
    height, width = heatmap.shape[1:]
    assert height == width >= 4
    if "tiny_imagenet" in name or name.startswith("digits"):
        assert height == 8


def test_a_folder_of_the_same_name_does_not_hide_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved = replace(RECIPES["pets_cgc"](), name="mine")
    write_json(tmp_path / "pets_cgc" / "recipe.json", saved)
    assert recipe_from("pets_cgc") == RECIPES["pets_cgc"]()
    assert recipe_from("pets-cgc") == RECIPES["pets_cgc"]()
    assert recipe_from("./pets_cgc") == saved
    with pytest.raises(UnknownNameError, match="got 'pets_cg'"):
        recipe_from("pets_cg")
