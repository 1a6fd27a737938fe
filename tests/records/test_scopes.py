"""Which settings differ, for whoever asks."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from contrex.recipes import RECIPES
from contrex.records import to_plain
from contrex.records.scopes import SCOPES, differing, flat, scopes
from contrex.settings import GCC, Digits, Evaluation, Pointing, Recipe
from contrex.training.resuming import FREE_TO_CHANGE

OWN = RECIPES["digits_cgc"]()
EVALUATION = OWN.evaluation


def changed(part: str, **changes) -> Recipe:
    return replace(OWN, **{part: replace(getattr(OWN, part), **changes)})


@pytest.mark.parametrize(
    ("other", "names"),
    [
        (changed("training", device="cpu", workers=7, checkpoint_minutes=1.0), []),
        (replace(OWN, reference=RECIPES["cub_cgc"]().reference), []),
        (changed("evaluation", device="cpu", workers=2), []),
        (changed("training", seed=4, epochs=3), ["training.epochs", "training.seed"]),
        (changed("data", seed=9), ["data.seed"]),
        (replace(OWN, name="other"), ["name"]),
        (replace(OWN, method=GCC()), ["method"]),
        (replace(OWN, data=Digits(num_train=5)), ["data.num_train"]),
        (changed("model", options={"widths": "(1,)"}), ["model.options.widths"]),
        (changed("evaluation", pointing=Pointing(tolerance=3.0)), ["evaluation.pointing.tolerance"]),
    ],
)
def test_what_differs_in_a_result(other, names):
    assert sorted(differing(to_plain(OWN), to_plain(other))) == names
    assert sorted(differing(to_plain(other), to_plain(OWN))) == names


def test_what_a_resumed_run_may_change():
    free = replace(
        changed("training", device="cpu", workers=3, checkpoint_minutes=2.0),
        evaluation=Evaluation(metrics=("top5",), seed=3),
    )
    assert differing(to_plain(OWN), to_plain(free), FREE_TO_CHANGE) == []
    elsewhere = RECIPES["cub_cgc"]()
    moved = replace(elsewhere, data=replace(elsewhere.data, path=EVALUATION.split))
    assert differing(to_plain(elsewhere), to_plain(moved), FREE_TO_CHANGE) == []
    assert differing(to_plain(elsewhere), to_plain(moved)) == ["data.path"]
    assert differing(to_plain(OWN), to_plain(changed("training", seed=1)), FREE_TO_CHANGE) == ["training.seed"]


def test_a_setting_that_is_none_is_one_that_an_older_record_lacks():
    plain = to_plain(EVALUATION)
    assert plain["contrast"] is None
    assert differing({name: value for name, value in plain.items() if name != "contrast"}, plain) == []


def test_every_scope_is_of_a_setting_that_there_is():
    """Those of a checkpoint are not settings."""
    parts = {field.name: getattr(OWN, field.name) for field in fields(OWN)}
    names = {name.rpartition(".")[2] for name, _ in flat(to_plain(RECIPES["cub_cgc"]()))} | set(parts)
    for name, about in SCOPES.items():
        assert about == "progress" or name.rpartition(".")[2] in names, name
    assert scopes("evaluation.workers") == {"machine", "measuring"}
    assert scopes("method.weight") == set()
