"""Training curves as drawings."""

from __future__ import annotations

import math

import pytest

from contrex.report.colour import DASHES
from contrex.report.curves import MAX_POINTS, curve_panels, stability, thinned
from contrex.report.groups import grouped
from contrex.report.plot import BOTTOM, LEFT, MARKERS, RIGHT, TOP, Axis


def test_a_panel_per_quantity_and_a_line_per_run(make_run) -> None:
    runs = [make_run(), make_run("cgc", curves={"train_loss": [(1.0, 1.0), (2.0, 3.0)], "val_top1": [(1.0, 50.0)]})]
    panels = curve_panels(grouped(runs))
    assert [(panel.title, len(panel.lines)) for panel in panels] == [("train loss", 2), ("validation top-1 (%)", 1)]
    assert [line.series for line in panels[0].lines] == [0, 1]
    assert "cgc ends at 3" in panels[0].description


def test_shares_are_percent_as_the_validation_is(make_run) -> None:
    """Side by side, 0.9 and 90 would look like two things."""
    run = make_run(curves={"accuracy": [(1.0, 0.5), (2.0, 0.75)], "val_top1": [(2.0, 70.0)]})
    shares, validation = curve_panels(grouped([run]))
    assert (shares.title, validation.title) == ("accuracy (%)", "validation top-1 (%)")
    assert "ends at 75" in shares.description
    assert "ends at 70" in validation.description


def test_points_stay_inside_the_axes(make_run) -> None:
    (panel,) = curve_panels(grouped([make_run()]))
    numbers = [tuple(map(float, pair.split())) for pair in panel.lines[0].path[1:].split("L")]
    assert len(numbers) == 3
    assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in numbers)
    assert numbers[0][1] < numbers[2][1]  # a falling loss falls on the page


def test_missing_values_are_left_out(make_run) -> None:
    run = make_run(curves={"a": [(1.0, None), (2.0, math.nan), (3.0, 1.0)], "b": [(1.0, None)], "c": []})
    (panel,) = curve_panels(grouped([run]))
    assert panel.title == "a"
    assert "L" not in panel.lines[0].path


def test_long_curves_are_averaged() -> None:
    points = thinned([(float(i), float(i % 2), i % 2 - 1.0, i % 2 + 1.0) for i in range(1000)])
    assert len(points) <= MAX_POINTS
    assert points[0] == pytest.approx((2.0, 0.4, -0.6, 1.4))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.001, 0.0011), (-5, 1e4), (7, 7), (0, 0)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    axis = Axis.over([low, high], 0, 100)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 7
    assert all(0 <= tick.position <= 100 for tick in ticks)
    assert len({tick.text for tick in ticks}) == len(ticks)


def test_runs_differ_by_more_than_colour() -> None:
    assert len(set(MARKERS)) == len(MARKERS) == len(DASHES)


def seeds_of(make_run, name: str, *curves: list[tuple[float, float]], key: str = "val_top1"):
    return [make_run(f"{name}-seed{seed}", seed=seed, curves={key: curve}) for seed, curve in enumerate(curves)]


def test_seeds_are_one_line_in_a_band_of_one_deviation(make_run) -> None:
    runs = seeds_of(make_run, "cgc", [(1.0, 40.0), (2.0, 60.0)], [(1.0, 60.0), (2.0, 60.0)])
    (panel,) = curve_panels(grouped([make_run(curves={"val_top1": [(1.0, 50.0), (2.0, 50.0)]}), *runs]))
    alone, mean = panel.lines
    assert (alone.band, mean.faint) == ("", False)
    heights = [float(pair.split()[1]) for pair in mean.path[1:].split("L")]
    band = [float(pair.split()[1]) for pair in mean.band[1:-1].split("L")]  # the upper edge, then the lower one back
    assert heights[0] == pytest.approx(float(alone.path[1:].split("L")[0].split()[1]))  # the mean of 40 and 60 is 50
    assert heights[0] - band[0] == pytest.approx(band[3] - heights[0], abs=0.11)
    assert band[1] == band[2] == heights[1]  # equal seeds: no width
    assert "cgc (mean over 2 seeds) ends at 60" in panel.description


def test_seeds_of_other_epochs_stay_single_lines(make_run) -> None:
    runs = seeds_of(make_run, "cgc", [(1.0, 1.0), (2.0, 2.0), (3.0, 2.0)], [(1.0, 3.0), (5.0, 4.0), (6.0, 4.0)])
    (panel,) = curve_panels(grouped(runs))
    assert [line.faint for line in panel.lines] == [True, True]
    assert all(not line.band for line in panel.lines)


def test_steadiness_is_the_deviation_over_seeds_averaged_over_epochs(make_run) -> None:
    runs = seeds_of(make_run, "cgc", [(1.0, 40.0), (2.0, 60.0)], [(1.0, 44.0), (2.0, 60.0)])
    found = stability(grouped([make_run(curves={"val_top1": [(1.0, 50.0)]}), *runs]))
    assert found.names == ["validation top-1 (%)"]
    assert [(row.series, row.label, row.num_seeds, row.values) for row in found.rows] == [(1, "cgc", 2, ["1.41"])]
    assert stability(grouped([make_run()])).rows == []
    assert stability(grouped(seeds_of(make_run, "cgc", [(1.0, 1.0)], [(1.0, 2.0)], key="train_loss"))).rows == []


def test_epochs_are_whole() -> None:
    assert [tick.text for tick in Axis.over([1, 3], 0, 100).ticks(whole=True)] == ["1", "2", "3"]
