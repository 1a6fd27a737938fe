"""The numbers of the comparison, against hand computation."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from contrex.report.cells import cell_count, cell_spread, cell_value, heading, pairing, verdict
from contrex.report.conclusion import findings
from contrex.report.differences import paired_difference
from contrex.report.groups import grouped
from contrex.report.tables import Cell, Comparison, comparison
from contrex.report.words import meaning

NAME = "content_heatmap"


def cell(table: Comparison, row: int) -> Cell:
    found = table.rows[row].cells[NAME]
    assert found is not None
    return found


def test_value_interval_and_counts_are_the_record_s(make_run) -> None:
    table = comparison(grouped([make_run(values=[40.0, None, 60.0, 80.0])]))
    only = cell(table, 0)
    assert (only.estimate.value, only.estimate.low, only.estimate.high) == (60.0, 58.0, 62.0)
    assert (cell_value(only), cell_spread(only)) == ("60.0", "[58.0, 62.0]")
    assert cell_count(only) == "n=3, 1 skipped: all-zero map"
    assert only.difference is None
    assert not only.best


def test_paired_difference_uses_only_images_counted_in_both(make_run) -> None:
    runs = [make_run(values=[40.0, 50.0, None, 70.0]), make_run("cgc", [50.0, 50.0, 90.0, 90.0])]
    difference = cell(comparison(grouped(runs)), 1).difference
    assert difference is not None
    assert difference.num_pairs == 3
    assert difference.estimate.value == pytest.approx((10 + 0 + 20) / 3)
    assert 0 <= difference.estimate.low < 10 < difference.estimate.high <= 20


def test_paired_samples_match_by_path_and_not_by_order(make_run) -> None:
    runs = [
        make_run(values=[40.0, 50.0, 60.0, 70.0]),
        make_run("cgc", [71.0, 61.0, 51.0, 41.0], paths=["val/d.png", "val/c.png", "val/b.png", "val/a.png"]),
    ]
    difference = cell(comparison(grouped(runs)), 1).difference
    assert difference is not None
    assert difference.estimate.value == pytest.approx(1)
    assert (difference.estimate.low, difference.estimate.high) == pytest.approx((1, 1))  # every pair differs by 1


def test_other_images_give_a_plain_difference(make_run) -> None:
    runs = [make_run(), make_run("cgc", [80.0] * 4, paths=["a", "b", "c", "d"])]
    difference = cell(comparison(grouped(runs)), 1).difference
    assert difference is not None
    assert difference.num_pairs == 0
    assert difference.estimate.value == 25.0
    assert math.isnan(difference.estimate.low)


@pytest.mark.parametrize("seeds", [(0, 0), (0, 1)])
def test_generated_images_are_the_same_only_from_the_same_settings(make_run, seeds: tuple[int, int]) -> None:
    runs = [make_run(), make_run("cgc", [80.0] * 4)]
    for run, seed in zip(runs, seeds, strict=True):
        run.record.configuration["data"] = {"kind": "Digits", "seed": seed}
    difference = cell(comparison(grouped(runs)), 1).difference
    assert difference is not None
    assert difference.num_pairs == (4 if seeds[0] == seeds[1] else 0)


def with_checkpoint(run, **changes):
    checkpoint = {"name": "last", "step": 60, "epochs_done": 15, "epochs": 15, "sha256": "ab" * 32, **changes}
    run.record.configuration["checkpoint"] = checkpoint
    return run


def test_labels_tell_the_checkpoints_of_one_run_apart(make_run) -> None:
    finished, stopped = {}, {"epochs_done": 5, "step": 22}
    runs = [
        with_checkpoint(make_run("cgc-seed0"), **changes)
        for changes in (finished, stopped, {"name": "best"}, {"name": "best", **stopped})
    ]
    assert [group.label for group in grouped(runs)] == [
        "cgc-seed0",
        "cgc-seed0 (step 22, 5 of 15 epochs)",
        "cgc-seed0 (best checkpoint)",
        "cgc-seed0 (best checkpoint, step 22, 5 of 15 epochs)",
    ]


def test_labels_tell_two_ways_of_measuring_one_run_apart(make_run) -> None:
    runs = [make_run("cgc"), make_run("cgc"), make_run("ce")]
    runs[1].record.configuration["evaluation"]["contrast"] = "weighted"
    for run in (runs[0], runs[2]):
        run.record.configuration["evaluation"]["contrast"] = None
    assert [group.label for group in grouped(runs)] == ["cgc (contrast none)", "cgc (contrast weighted)", "ce"]


def test_seeds_are_averaged_over_equally_long_training_only(make_run) -> None:
    def labels(name, *epochs):
        runs = [
            with_checkpoint(make_run(f"cgc-seed{seed}", seed=seed), name=name, epochs_done=done, sha256=str(seed))
            for seed, done in enumerate(epochs)
        ]
        return [group.label for group in grouped(runs)]

    assert labels("last", 15, 15) == ["cgc"]
    assert labels("last", 15, 5) == ["cgc-seed0", "cgc-seed1 (step 60, 5 of 15 epochs)"]
    assert len(labels("best", 15, 5)) == 1


def test_samples_that_do_not_average_to_the_metric_are_not_paired(make_run) -> None:
    runs = [make_run(), make_run("cgc", [80.0] * 4, metric={"value": 0.8, "per_image": "none"})]
    difference = cell(comparison(grouped(runs)), 1).difference
    assert difference is not None
    assert difference.num_pairs == 0


def test_bootstrap_agrees_with_all_resamples_of_three_images() -> None:
    values, baseline = np.array([[1.0, 4.0, 9.0]]), np.array([[0.0, 1.0, 2.0]])
    differences = (values - baseline)[0]
    every = [np.mean(draw) for draw in itertools.product(differences, repeat=3)]
    estimate = paired_difference(values, baseline, num_resamples=20000)
    assert estimate.value == pytest.approx(np.mean(differences))
    assert (estimate.low, estimate.high) == pytest.approx(
        tuple(np.quantile(every, [0.025, 0.975], method="inverted_cdf"))
    )


def test_bootstrap_is_seeded_and_pairs() -> None:
    generator = np.random.default_rng(0)
    hard = generator.normal(0, 100, (1, 200))
    first = paired_difference(hard + 1, hard)
    assert first == paired_difference(hard + 1, hard)
    assert first.high - first.low < 1e-9  # unpaired it would be about 40


def test_bootstrap_draws_seeds_too() -> None:
    same_images = np.zeros((1, 50))
    seeds = np.array([[0.0], [10.0]]) + same_images
    estimate = paired_difference(seeds, same_images)
    assert (estimate.value, estimate.low, estimate.high) == (5.0, 0.0, 10.0)


def test_seeds_become_one_row_with_mean_and_deviation(make_run) -> None:
    runs = [make_run("ce-seed0", [40.0] * 4)] + [
        make_run(f"cgc-seed{seed}", [value] * 4, seed=seed) for seed, value in enumerate([60.0, 62.0, 67.0])
    ]
    table = comparison(grouped(runs))
    assert [row.group.label for row in table.rows] == ["ce-seed0", "cgc"]
    many = cell(table, 1)
    assert many.estimate.value == pytest.approx(63)
    assert many.deviation == pytest.approx(math.sqrt((9 + 1 + 16) / 2))
    assert (cell_value(many), cell_spread(many)) == ("63", "± 4")
    assert cell_count(many) == "3 seeds, n=4 each"
    assert many.difference is not None
    assert many.difference.estimate.value == pytest.approx(23)


def test_equal_seeds_deviate_by_nothing(make_run) -> None:
    runs = [make_run(f"cgc-seed{seed}", [99.9] * 4, seed=seed) for seed in range(3)]
    only = cell(comparison(grouped(runs)), 0)
    assert (cell_value(only), cell_spread(only)) == ("99.9", "± 0")


def test_one_seed_twice_or_another_setting_is_not_averaged(make_run) -> None:
    again = [make_run("cgc"), make_run("cgc")]
    assert [group.label for group in grouped(again)] == ["cgc", "cgc (2)"]
    other = make_run("cgc-seed1", seed=1)
    other.record.configuration["training"]["epochs"] = 90
    assert len(grouped([make_run("cgc-seed0"), other])) == 2
    other.record.configuration["training"]["epochs"] = 15
    assert len(grouped([make_run("cgc-seed0"), other])) == 1


def test_runs_of_one_method_may_have_other_seeds_and_starts_only(make_run) -> None:
    def num_groups(**changes) -> int:
        runs = [make_run(f"cgc-seed{seed}", seed=seed) for seed in (0, 1)]
        for part, values in changes.items():
            runs[1].record.configuration.setdefault(part, {}).update(values)
        return len(grouped(runs))

    assert num_groups(training={"seed": 1, "device": "cuda"}, evaluation={"seed": 2}, model={"weights": "b.pth"}) == 1
    assert num_groups(model={"name": "torchvision:resnet50"}) == 2, "another network is another method"
    assert num_groups(data={"seed": 1}) == 2
    assert num_groups(training={"epochs": 3}) == 2


def test_other_data_seeds_are_not_averaged(make_run) -> None:
    runs = [make_run("cgc-seed0"), make_run("cgc-seed1", seed=1)]
    for seed, run in enumerate(runs):
        run.record.configuration["data"] = {"kind": "Digits", "seed": seed}
    assert len(grouped(runs)) == 2


def test_equal_values_are_none_of_them_best(make_run) -> None:
    table = comparison(grouped([make_run(), make_run("cgc")]))
    assert [cell(table, row).best for row in (0, 1)] == [False, False]


@pytest.mark.parametrize(("higher", "best"), [(True, [False, True]), (False, [True, False])])
def test_best_follows_the_direction(make_run, higher: bool, best: list[bool]) -> None:
    changes = {"higher_is_better": higher}
    runs = [make_run(metric=changes), make_run("cgc", [90.0, 91.0, 92.0, 93.0], metric=changes)]
    table = comparison(grouped(runs))
    assert [cell(table, row).best for row in (0, 1)] == best
    assert verdict(cell(table, 1), table.columns[0]) == ("better" if higher else "worse")


def test_neither_is_better_where_a_value_is_what_others_are_compared_with(make_run) -> None:
    runs = [make_run(metric={"higher_is_better": None})]
    runs.append(make_run("cgc", [90.0, 91.0, 92.0, 93.0], metric={"higher_is_better": None}))
    table = comparison(grouped(runs))
    assert [cell(table, row).best for row in (0, 1)] == [False, False]
    assert verdict(cell(table, 1), table.columns[0]) == ""
    assert not set(heading(table.columns[0])) & set("\N{UPWARDS ARROW}\N{DOWNWARDS ARROW}")
    assert "better" not in meaning(table.columns[0])


def test_no_verdict_when_the_interval_holds_zero(make_run) -> None:
    table = comparison(grouped([make_run(), make_run("cgc", [30.0, 60.0, 50.0, 81.0])]))
    assert verdict(cell(table, 1), table.columns[0]) == ""


def test_a_metric_that_one_run_lacks_is_not_measured(make_run) -> None:
    table = comparison(grouped([make_run(metrics=[]), make_run("cgc")]))
    assert table.rows[0].cells[NAME] is None
    assert cell(table, 1).difference is None


def test_a_metric_without_a_value_in_one_seed_has_no_mean(make_run) -> None:
    """Of seeds that counted no image there is none: the others' would be of other images."""
    nothing = {"value": math.nan, "low": math.nan, "high": math.nan, "num_counted": 0, "num_skipped": 4}
    for first, second in ((nothing, nothing), (nothing, {})):
        runs = [make_run(f"cgc-seed{n}", metric=one, seed=n) for n, one in enumerate((first, second))]
        table = comparison(grouped([make_run(), *runs]))
        assert cell_value(cell(table, 1)) == "\N{EN DASH}"
        assert math.isnan(cell(table, 1).deviation)


def with_labels(run, labels):
    return replace(run, samples=replace(run.samples, labels=np.array(labels)))


def test_images_are_paired_by_path_whatever_of_several_right_labels_is_recorded(make_run) -> None:
    runs = [make_run(), with_labels(make_run("cgc", [50.0, 60.0, 70.0, 80.0]), [0, 1, 0, 1])]
    difference = cell(comparison(grouped(runs)), 1).difference
    assert difference is not None
    assert (difference.num_pairs, difference.estimate.value) == (4, 10)
    twice = ["val/a.png", "val/a.png", "val/c.png", "val/d.png"]
    runs = [with_labels(make_run(paths=twice), [0, 1, 0, 0]), with_labels(make_run("cgc", paths=twice), [1, 0, 0, 0])]
    difference = cell(comparison(grouped(runs)), 1).difference
    assert difference is not None
    assert (difference.signs.num_above, difference.signs.num_below) == (1, 1), "of one path the label tells them apart"


def test_what_is_worse_on_the_common_images_is_not_the_best(make_run) -> None:
    """It skips the images on which maps are hard, so its mean is the larger one."""
    values = [10.0, 12.0, *[80.0 + n / 10 for n in range(20)]]
    paths = [f"val/{n}.png" for n in range(len(values))]
    worse = [None, None, *[value - 5 - value / 1000 for value in values[2:]]]
    table = comparison(grouped([make_run(values=values, paths=paths), make_run("cgc", worse, paths=paths)]))
    first, second = cell(table, 0), cell(table, 1)
    assert second.estimate.value > first.estimate.value
    assert verdict(second, table.columns[0]) == "worse"
    assert not first.best
    assert not second.best
    assert pairing(second) == "on 20 common images"
    (found,) = findings(table.rows[1], table).values()
    assert found.fell
    assert found.numbers == ("76\N{NO-BREAK SPACE}%", "81\N{NO-BREAK SPACE}% on 20 common images")


def test_numbers_of_two_protocols_are_not_compared_image_by_image(make_run) -> None:
    """One of the logit is no better than one of the probability; of other maps it may be."""
    for own, other, num_pairs in (
        ({"output": "logit"}, {"output": "probability"}, 0),
        ({"region": "mask", "grid": "7 x 7"}, {"region": "boxes", "grid": "7 x 7"}, 0),
        ({"output": "logit", "contrast": None, "grid": "7 x 7"}, {"output": "logit", "contrast": "mean"}, 4),
        ({"num_samples": 10}, {"num_samples": 50}, 0),
        ({"crop_scale": [0.08, 1.0], "flip": 0.5}, {"crop_scale": [0.2, 1.0], "flip": 0.5}, 0),
        ({"bins": 15}, {"bins": 5}, 0),
        ({"step": 3}, {}, 4),  # a record of before does not say
    ):
        runs = [
            make_run(metric={"protocol": own}),
            make_run("cgc", [80.0, 81.0, 82.0, 83.0], metric={"protocol": other}),
        ]
        table = comparison(grouped(runs))
        difference = cell(table, 1).difference
        assert difference is not None
        assert difference.num_pairs == num_pairs, (own, other)
        assert cell(table, 1).best == (num_pairs > 0)
