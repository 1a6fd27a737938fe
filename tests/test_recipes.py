"""Recipes as written: their names, their networks, and where they are read from."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch

import contrex
from contrex.cli import main
from contrex.errors import ArgumentError, UnknownNameError
from contrex.models import build_network
from contrex.outside import installed
from contrex.recipes import RECIPES, digits, recipe_from, registry
from contrex.recipes.published import NUMBERS
from contrex.recipes.tables import SOURCES, reference_of
from contrex.records import to_plain, write_json
from contrex.records.scopes import differing

NAMES = tuple(
    """
    digits_cross_entropy digits_cgc digits_cgc_no_negatives digits_gcc digits_10_percent_cross_entropy
    digits_10_percent_cgc digits_few_shot_cross_entropy digits_few_shot_cgc digits_supcon digits_supcon_ori
    digits_simclr digits_excon digits_exconb tiny_imagenet_cross_entropy tiny_imagenet_cgc
    tiny_imagenet_cgc_no_negatives tiny_imagenet_gcc tiny_imagenet10_cross_entropy tiny_imagenet10_cgc
    tiny_imagenet10_gcc tiny_imagenet_small20_cross_entropy tiny_imagenet_small20_cgc
    tiny_imagenet_small20_cgc_no_negatives tiny_imagenet_small20_gcc
    pets_cross_entropy pets_cgc imagenet_resnet18_cross_entropy imagenet_resnet18_gcc
    imagenet_resnet18_cgc imagenet_resnet18_cgc_no_negatives imagenet_resnet50_cross_entropy imagenet_resnet50_gcc
    imagenet_resnet50_cgc imagenet_resnet50_cgc_no_negatives imagenet_resnet18_cgc_lambda_0_01
    imagenet_resnet18_cgc_lambda_0_1 imagenet_resnet18_cgc_lambda_0_5 imagenet_resnet18_cgc_lambda_2
    imagenet100_resnet50_cross_entropy imagenet100_resnet50_cgc imagenet100_resnet50_cgc_no_negatives
    cub_cross_entropy cub_cgc aircraft_cross_entropy aircraft_cgc cars_cross_entropy cars_cgc flowers_cross_entropy
    flowers_cgc cub_1_shot_cross_entropy cub_1_shot_cgc cub_5_shot_cross_entropy cub_5_shot_cgc
    cub_10_shot_cross_entropy cub_10_shot_cgc cars_1_shot_cross_entropy cars_1_shot_cgc cars_5_shot_cross_entropy
    cars_5_shot_cgc cars_10_shot_cross_entropy cars_10_shot_cgc aircraft_1_shot_cross_entropy aircraft_1_shot_cgc
    aircraft_5_shot_cross_entropy aircraft_5_shot_cgc aircraft_10_shot_cross_entropy aircraft_10_shot_cgc
    flowers_1_shot_cross_entropy flowers_1_shot_cgc flowers_5_shot_cross_entropy flowers_5_shot_cgc
    flowers_10_shot_cross_entropy flowers_10_shot_cgc imagenet_1_percent_cross_entropy imagenet_1_percent_cgc
    cub_alexnet aircraft_alexnet food_alexnet flowers_alexnet cars_alexnet cub_vgg16_bn aircraft_vgg16_bn
    food_vgg16_bn flowers_vgg16_bn cars_vgg16_bn supcon_cifar10 supcon_ori_cifar10 excon_cifar10 exconb_cifar10
    supcon_cifar100 supcon_ori_cifar100 excon_cifar100 exconb_cifar100 supcon_cifar100_256 supcon_ori_cifar100_256
    excon_cifar100_256 exconb_cifar100_256 supcon_tiny_imagenet supcon_ori_tiny_imagenet excon_tiny_imagenet
    exconb_tiny_imagenet photos_retrofit digits_energy pets_energy
    tiny_imagenet_small20_energy photos_bce_head
""".split()  # noqa: SIM905
)
"""Public: a name that goes needs a line in the changelog."""


def test_the_recipes_are_these_in_this_order():
    assert tuple(RECIPES) == NAMES


def test_a_recipe_is_named_as_it_is_called():
    for name, recipe in RECIPES.items():
        assert recipe().name == name
        assert recipe_from(name.replace("_", "-")) == recipe()


LIGHT = {"digits_cgc", "tiny_imagenet_cgc", "pets_cgc"}
"""With small networks: our own, and ResNet-18 with either stem."""


@functools.cache
def network_and_map(name, options, stem, side, layer):
    """The names of a network's modules and the shape of its heatmaps; many recipes share one."""
    network = build_network(name, dict(options), num_classes=10, stem=stem)
    heatmap = contrex.GradCAM(network, layer)(torch.rand(1, 3, side, side)).heatmap
    return {module for module, _ in network.named_modules()}, heatmap.shape[1:]


@pytest.mark.filterwarnings("ignore:.*of the gradient.*flows past:contrex.errors.LayerWarning")  # ExCon's own layer
@pytest.mark.parametrize(
    "name", [name if name in LIGHT else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]
)
def test_maps_are_large_enough_to_point_at_something(name):
    recipe = RECIPES[name]()
    model, layer = recipe.model, getattr(recipe.method, "layer", None)
    options = tuple(sorted(model.options.items()))
    modules, (height, width) = network_and_map(model.name, options, model.stem, recipe.data.image_size, layer)
    assert height == width >= 4
    assert set(model.fresh) <= modules
    if "tiny_imagenet" in name or name.startswith("digits"):
        assert height == 8


def test_a_recipe_says_what_it_is_in_a_line():
    for name, recipe in RECIPES.items():
        first = recipe.__doc__.splitlines()[0]
        assert first.endswith((".", ":")), name
        assert len(first) < 100, name


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


def test_a_recipe_says_which_numbers_of_a_paper_it_repeats():
    """All tables that have numbers of it, and no others; rows that are compared differ in their method alone."""
    tables: dict[str, set[tuple[str, str]]] = {}
    for number in NUMBERS:
        tables.setdefault(number.row, set()).add((number.paper, number.table))
    references = {name: reference for name, make in RECIPES.items() if (reference := make().reference) is not None}
    assert {name: {(of.paper, table) for table in of.tables} for name, of in references.items()} == tables
    assert {reference.paper for reference in references.values()} == set(SOURCES)
    assert all(reference.open_points for reference in references.values())
    pairs = [(reference.experiment, reference.method) for reference in references.values()]
    assert len(set(pairs)) == len(pairs)
    with pytest.raises(ArgumentError, match="the recipe digits_cgc repeats no row of a paper: give it a `reference`"):
        reference_of("digits_cgc")


def test_what_a_recipe_repeats_makes_no_run_another_one(tmp_path, capsys):
    recipe = RECIPES["cub_cgc"]()
    other = replace(recipe, reference=None, training=replace(recipe.training, device="cpu", workers=1))
    assert differing(to_plain(recipe), to_plain(other)) == []
    assert recipe_from("cub_cgc").reference.trials == 3
    write_json(tmp_path / "recipe.json", recipe)
    assert recipe_from(str(tmp_path)) == recipe
    with pytest.raises(SystemExit):
        main(["train", "cub_cgc", "--help"])
    assert "--reference" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["train", "cub_cgc", "--reference.paper", "mine"])


def test_a_recipe_is_one_function(monkeypatch):
    """With the mark in the package; without it in a package of one's own, which names it among its entry points."""

    def mine():
        return replace(RECIPES["digits_cgc"](), name="mine")

    monkeypatch.setattr(registry, "RECIPES", dict(RECIPES))
    assert registry.recipe(mine) is mine
    assert registry.RECIPES["mine"] is mine
    with pytest.raises(ArgumentError, match="there are two recipes called 'mine': give one of them another `name`"):
        registry.recipe(mine)


def test_a_recipe_of_an_installed_package(tmp_path, monkeypatch):
    info = tmp_path / "my_recipes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-recipes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[contrex.recipes]\nmy_cgc = my_recipes:my_cgc\nnone = my_recipes:NONE\n")
    code = "from contrex.recipes.digits import cgc\n\ndef my_cgc():\n    return cgc()\n\nNONE = 3\n"
    (tmp_path / "my_recipes.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    installed.cache_clear()
    try:
        assert recipe_from("my-cgc") == RECIPES["digits_cgc"]()
        with pytest.raises(ArgumentError, match=r"the recipe 'none' is no function that returns a contrex\.settings"):
            recipe_from("none")
        with pytest.raises(UnknownNameError, match=r"got 'my_cg'\. Near it: my_cgc,"):
            recipe_from("my_cg")
    finally:
        installed.cache_clear()


def test_a_folder_of_the_same_name_does_not_hide_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved = replace(RECIPES["pets_cgc"](), name="mine")
    write_json(tmp_path / "pets_cgc" / "recipe.json", saved)
    assert recipe_from("pets_cgc") == RECIPES["pets_cgc"]()
    assert recipe_from("pets-cgc") == RECIPES["pets_cgc"]()
    assert recipe_from("./pets_cgc") == saved
    with pytest.raises(UnknownNameError, match="got 'pets_cg'"):
        recipe_from("pets_cg")


def test_the_quickstart_begins_in_the_middle_and_with_a_shortcut_at_once():
    for shortcut, share in ((0.0, 0.5), (0.9, 0.0)):
        _, *consistent = digits.comparison(shortcut=shortcut)
        assert [recipe.method.consistency_after for recipe in consistent] == [share, share]
