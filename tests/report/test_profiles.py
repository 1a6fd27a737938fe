"""Measured curves as drawings."""

from __future__ import annotations

import math

from contrex.records import Profile
from contrex.report.groups import grouped
from contrex.report.profiles import profile_figures


def line(*values: float, half: float = 1.0, x: tuple[float, ...] = (0.0, 50.0, 100.0)):
    return [(place, value, value - half, value + half) for place, value in zip(x, values, strict=True)]


def insertion(*lines, name: str = "insertion_auc", **named) -> Profile:
    return Profile(name, "Insertion", "pixels changed, %", "probability", {"": lines[0]} if lines else named)


def heights(path: str) -> list[float]:
    return [float(pair.split()[1]) for pair in path[1:].rstrip("z").split("L")]


def test_a_profile_of_one_line_is_one_drawing_with_a_line_per_method(make_run) -> None:
    runs = [make_run(profiles=[insertion(line(1, 2, 3))]), make_run("cgc", profiles=[insertion(line(3, 2, 1))])]
    (figure,) = profile_figures(grouped([*runs, make_run("blind")]))
    (panel,) = figure.panels
    assert (panel.x_title, panel.y_title, figure.legend) == ("pixels changed, %", "probability", ())
    assert [drawn.series for drawn in panel.lines] == [0, 1]
    assert all(drawn.band for drawn in panel.lines)
    assert not panel.diagonal


def test_a_profile_of_several_lines_is_a_drawing_per_method_on_one_scale(make_run) -> None:
    small = insertion(original=line(0, 1, 2), weighted=line(0, 2, 4))
    large = insertion(original=line(0, 1, 2), weighted=line(0, 2, 400))
    (figure,) = profile_figures(grouped([make_run(profiles=[small]), make_run("cgc", profiles=[large])]))
    assert [panel.title for panel in figure.panels] == ["cross_entropy", "cgc"]
    assert [name for _, name in figure.legend] == ["original", "weighted"]
    first, second = figure.panels
    assert first.y_ticks == second.y_ticks
    assert first.lines[0].path == second.lines[0].path
    assert [drawn.series for drawn in first.lines] == [series for series, _ in figure.legend]


def test_seeds_are_averaged_and_their_band_is_the_deviation(make_run) -> None:
    runs = [
        make_run(f"cgc-seed{seed}", seed=seed, profiles=[insertion(line(*values, half=50))])
        for seed, values in enumerate([(0, 2, 10), (0, 4, 10)])
    ]
    (drawn,) = profile_figures(grouped(runs))[0].panels[0].lines
    upper, middle = heights(drawn.band)[:3], heights(drawn.path)
    assert upper[0] == middle[0]
    assert upper[1] < middle[1]
    assert upper[2] == middle[2]


def test_points_without_a_value_or_an_interval(make_run) -> None:
    points = [(0.0, 1.0, math.nan, math.nan), (1.0, math.nan, 0.0, 0.0), (2.0, 2.0, 1.0, 3.0), (3.0, 2.0, 1.0, 3.0)]
    (figure,) = profile_figures(grouped([make_run(profiles=[insertion(points)])]))
    (drawn,) = figure.panels[0].lines
    assert len(heights(drawn.path)) == 3
    assert len(heights(drawn.band)) == 4
    empty = [insertion([(0.0, math.nan, math.nan, math.nan)])]
    assert profile_figures(grouped([make_run(profiles=empty)])) == []


def reliability(*points: tuple[float, float]) -> Profile:
    lines = {"": [(x, y, y, y) for x, y in points]}
    return Profile("reliability", "Reliability diagram", "confidence", "accuracy", lines, "reliability")


def test_a_reliability_diagram_has_its_diagonal_and_equal_axes(make_run) -> None:
    (figure,) = profile_figures(grouped([make_run(profiles=[reliability((0.4, 0.4), (0.9, 0.9))])]))
    (panel,) = figure.panels
    assert figure.has_diagonal
    assert [tick.text for tick in panel.x_ticks] == [tick.text for tick in panel.y_ticks] == ["0.0", "0.5", "1.0"]
    start, end = (tuple(map(float, pair.split())) for pair in panel.diagonal[1:].split("L"))
    for pair in panel.lines[0].path[1:].split("L"):  # calibrated: on the diagonal
        x, y = map(float, pair.split())
        share = (x - start[0]) / (end[0] - start[0])
        assert abs(start[1] + share * (end[1] - start[1]) - y) < 0.1


def test_seeds_measured_at_other_places_are_not_averaged(make_run) -> None:
    diagrams = [reliability((0.4, 0.5), (0.8, 0.7)), reliability((0.41, 0.5), (0.83, 0.7))]
    runs = [make_run(f"cgc-seed{s}", seed=s, profiles=[diagram]) for s, diagram in enumerate(diagrams)]
    assert [drawn.faint for drawn in profile_figures(grouped(runs))[0].panels[0].lines] == [True, True]
