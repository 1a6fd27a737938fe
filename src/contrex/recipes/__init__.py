"""Recipes: functions that return one frozen `Recipe`, a whole run.

`contrex train NAME` runs one; every field can be overridden on the command line. A variant calls its parent and changes
a field or two. One file per paper or data set; a new recipe is one function and one line here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from contrex.errors import ArgumentError, RecordError, unknown_name
from contrex.outside import is_outside, outside
from contrex.recipes import cgc, contrast, digits, excon, fine_grained, pets, tiny_imagenet
from contrex.recipes.few_shot import FEW_SHOT
from contrex.records import from_plain
from contrex.settings import Recipe

RECIPES: dict[str, Callable[[], Recipe]] = {
    "digits_cross_entropy": digits.cross_entropy,
    "digits_cgc": digits.cgc,
    "digits_cgc_no_negatives": digits.cgc_no_negatives,
    "digits_gcc": digits.gcc,
    "digits_10_percent_cross_entropy": digits.ten_percent_cross_entropy,
    "digits_10_percent_cgc": digits.ten_percent_cgc,
    "digits_few_shot_cross_entropy": digits.few_shot_cross_entropy,
    "digits_few_shot_cgc": digits.few_shot_cgc,
    "digits_supcon": digits.supcon,
    "digits_supcon_ori": digits.supcon_ori,
    "digits_simclr": digits.simclr,
    "digits_excon": digits.excon,
    "digits_exconb": digits.exconb,
    "tiny_imagenet_cross_entropy": tiny_imagenet.cross_entropy,
    "tiny_imagenet_cgc": tiny_imagenet.cgc,
    "tiny_imagenet_cgc_no_negatives": tiny_imagenet.cgc_no_negatives,
    "tiny_imagenet_gcc": tiny_imagenet.gcc,
    "tiny_imagenet10_cross_entropy": tiny_imagenet.ten_classes_cross_entropy,
    "tiny_imagenet10_cgc": tiny_imagenet.ten_classes_cgc,
    "tiny_imagenet10_gcc": tiny_imagenet.ten_classes_gcc,
    "pets_cross_entropy": pets.cross_entropy,
    "pets_cgc": pets.cgc,
    "imagenet_resnet18_cross_entropy": cgc.imagenet_resnet18_cross_entropy,
    "imagenet_resnet18_gcc": cgc.imagenet_resnet18_gcc,
    "imagenet_resnet18_cgc": cgc.imagenet_resnet18_cgc,
    "imagenet_resnet18_cgc_no_negatives": cgc.imagenet_resnet18_cgc_no_negatives,
    "imagenet_resnet50_cross_entropy": cgc.imagenet_resnet50_cross_entropy,
    "imagenet_resnet50_gcc": cgc.imagenet_resnet50_gcc,
    "imagenet_resnet50_cgc": cgc.imagenet_resnet50_cgc,
    "imagenet_resnet50_cgc_no_negatives": cgc.imagenet_resnet50_cgc_no_negatives,
    "imagenet_resnet18_cgc_lambda_0_01": cgc.imagenet_resnet18_cgc_lambda_0_01,
    "imagenet_resnet18_cgc_lambda_0_1": cgc.imagenet_resnet18_cgc_lambda_0_1,
    "imagenet_resnet18_cgc_lambda_0_5": cgc.imagenet_resnet18_cgc_lambda_0_5,
    "imagenet_resnet18_cgc_lambda_2": cgc.imagenet_resnet18_cgc_lambda_2,
    "imagenet100_resnet50_cross_entropy": cgc.imagenet100_resnet50_cross_entropy,
    "imagenet100_resnet50_cgc": cgc.imagenet100_resnet50_cgc,
    "imagenet100_resnet50_cgc_no_negatives": cgc.imagenet100_resnet50_cgc_no_negatives,
    "cub_cross_entropy": fine_grained.cub_cross_entropy,
    "cub_cgc": fine_grained.cub_cgc,
    "aircraft_cross_entropy": fine_grained.aircraft_cross_entropy,
    "aircraft_cgc": fine_grained.aircraft_cgc,
    "cars_cross_entropy": fine_grained.cars_cross_entropy,
    "cars_cgc": fine_grained.cars_cgc,
    "flowers_cross_entropy": fine_grained.flowers_cross_entropy,
    "flowers_cgc": fine_grained.flowers_cgc,
    **FEW_SHOT,
    "imagenet_1_percent_cross_entropy": cgc.imagenet_1_percent_cross_entropy,
    "imagenet_1_percent_cgc": cgc.imagenet_1_percent_cgc,
    "cub_alexnet": contrast.cub_alexnet,
    "aircraft_alexnet": contrast.aircraft_alexnet,
    "food_alexnet": contrast.food_alexnet,
    "flowers_alexnet": contrast.flowers_alexnet,
    "cars_alexnet": contrast.cars_alexnet,
    "cub_vgg16_bn": contrast.cub_vgg16_bn,
    "aircraft_vgg16_bn": contrast.aircraft_vgg16_bn,
    "food_vgg16_bn": contrast.food_vgg16_bn,
    "flowers_vgg16_bn": contrast.flowers_vgg16_bn,
    "cars_vgg16_bn": contrast.cars_vgg16_bn,
    "supcon_cifar10": excon.supcon_cifar10,
    "supcon_ori_cifar10": excon.supcon_ori_cifar10,
    "excon_cifar10": excon.excon_cifar10,
    "exconb_cifar10": excon.exconb_cifar10,
    "supcon_cifar100": excon.supcon_cifar100,
    "supcon_ori_cifar100": excon.supcon_ori_cifar100,
    "excon_cifar100": excon.excon_cifar100,
    "exconb_cifar100": excon.exconb_cifar100,
    "supcon_cifar100_256": excon.supcon_cifar100_256,
    "supcon_ori_cifar100_256": excon.supcon_ori_cifar100_256,
    "excon_cifar100_256": excon.excon_cifar100_256,
    "exconb_cifar100_256": excon.exconb_cifar100_256,
    "supcon_tiny_imagenet": excon.supcon_tiny_imagenet,
    "supcon_ori_tiny_imagenet": excon.supcon_ori_tiny_imagenet,
    "excon_tiny_imagenet": excon.excon_tiny_imagenet,
    "exconb_tiny_imagenet": excon.exconb_tiny_imagenet,
}


def recipe_named(name: str) -> Recipe:
    """The recipe called `name`; hyphens may stand for underscores."""
    key = name.replace("-", "_")
    if key not in RECIPES:
        raise unknown_name("the recipe", name, RECIPES)
    return RECIPES[key]()


def recipe_from(source: str) -> Recipe:
    """The recipe called `source`, the one saved in the file `source` (a run's `recipe.json`, or its folder), or the one
    that the function `source` gives, `FILE.py:NAME` or `MODULE:NAME`.

    A name wins over a folder that is called the same: write ./NAME for the folder.

    Raises:
        UnknownNameError: it is none of these.
        RecordError: the file is not a recipe.
        ArgumentError: there is no such function, or it gives no recipe.
    """
    if is_outside(source):
        made = outside(source, "the recipe")
        found = made() if callable(made) else made
        if not isinstance(found, Recipe):
            raise ArgumentError(f"the recipe {source!r} is no function that returns a contrex.settings.Recipe.")
        return found
    path = Path(source)
    if source.replace("-", "_") not in RECIPES and (path.is_dir() or path.suffix == ".json"):
        path = path / "recipe.json" if path.is_dir() else path
        recipe: Recipe = from_plain(_read(path), Recipe, where="recipe")
        return recipe
    return recipe_named(source)


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordError(f"{path} is not a saved recipe: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not a saved recipe: {error}.") from None


__all__ = ["RECIPES", "recipe_from", "recipe_named"]
