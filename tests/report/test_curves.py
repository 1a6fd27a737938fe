"""Training curves as drawings."""

from __future__ import annotations

import math

import pytest

from contrex.report.colour import DASHES
from contrex.report.curves import BOTTOM, LEFT, MARKERS, MAX_POINTS, RIGHT, TOP, Axis, curve_panels, thinned
from contrex.report.groups import grouped


def test_a_panel_per_quantity_and_a_line_per_run(make_run) -> None:
    runs = [make_run(), make_run("cgc", curves={"train_loss": [(1.0, 1.0), (2.0, 3.0)], "val_top1": [(1.0, 50.0)]})]
    panels = curve_panels(grouped(runs))
    assert [(panel.title, len(panel.lines)) for panel in panels] == [("train loss", 2), ("val top1", 1)]
    assert [line.series for line in panels[0].lines] == [0, 1]
    assert "cgc ends at 3" in panels[0].description


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
    points = thinned([(float(i), float(i % 2)) for i in range(1000)])
    assert len(points) <= MAX_POINTS
    assert points[0] == (2.0, pytest.approx(0.4))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.001, 0.0011), (-5, 1e4), (7, 7), (0, 0)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    axis = Axis.over([low, high], 0, 100)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 7
    assert all(0 <= tick.position <= 100 for tick in ticks)
    assert len({tick.text for tick in ticks}) == len(ticks)


def test_runs_differ_by_more_than_colour() -> None:
    assert len(set(MARKERS)) == len(MARKERS) == len(DASHES)
