"""Points in a plane as drawings."""

from __future__ import annotations

import math
import re

from contrex.records import Scatter
from contrex.report.groups import grouped
from contrex.report.scatters import MARGIN, SIDE, scatter_figures

POINTS = [(0.0, 0.0, "cat", "image"), (10.0, 5.0, "cat", "masked"), (2.0, 5.0, "dog", "augmentation")]


def tsne(points=POINTS) -> list[Scatter]:
    return [Scatter("embedding", "Features by t-SNE", points)]


def starts(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"M([\d.-]+) ([\d.-]+)", path)]


def test_a_drawing_per_method_a_colour_per_class_and_a_mark_per_kind(make_run) -> None:
    other = [(1.0, 1.0, "dog", "image"), (2.0, 1.0, "bird", "image")]
    runs = [make_run(scatters=tsne()), make_run("cgc", scatters=tsne(other)), make_run("blind")]
    (figure,) = scatter_figures(grouped(runs))
    assert [panel.title for panel in figure.panels] == ["cross_entropy", "cgc"]
    assert figure.classes == [(0, "cat"), (1, "dog"), (2, "bird")]
    assert [mark.kind for mark in figure.kinds] == ["augmentation", "image", "masked"]
    assert [(m.series, m.kind) for m in figure.panels[1].marks] == [(1, "image"), (2, "image")]
    shapes = [re.sub(r"^M[^m]*", "", mark.path) for mark in figure.panels[0].marks]
    assert len(set(shapes)) == 3
    assert [mark.filled for mark in figure.panels[0].marks] == [True, False, False]


def test_points_lie_inside_and_keep_their_proportions(make_run) -> None:
    (figure,) = scatter_figures(grouped([make_run(scatters=tsne())]))
    places = {mark.kind: starts(mark.path)[0] for mark in figure.panels[0].marks}
    assert all(MARGIN <= value <= SIDE - MARGIN for place in places.values() for value in place)
    across, down = (places["masked"][i] - places["image"][i] for i in (0, 1))
    assert across == SIDE - 2 * MARGIN
    assert down == -across / 2  # 10 to the right, 5 up


def test_equal_points_and_points_that_are_not_finite(make_run) -> None:
    same = [(3.0, 3.0, "cat", "image")] * 2 + [(math.nan, 0.0, "dog", "image")]
    (figure,) = scatter_figures(grouped([make_run(scatters=tsne(same))]))
    assert starts(figure.panels[0].marks[0].path) == [(SIDE / 2, SIDE / 2)] * 2
    assert figure.classes == [(0, "cat")]
    assert scatter_figures(grouped([make_run(scatters=tsne(same[2:]))])) == []


def test_of_several_seeds_the_first_is_drawn(make_run) -> None:
    runs = [make_run(f"cgc-seed{seed}", seed=seed, scatters=tsne(POINTS[: 3 - seed])) for seed in range(2)]
    (figure,) = scatter_figures(grouped(runs))
    assert len(figure.panels) == 1
    assert len(figure.panels[0].marks) == 3
    assert figure.one_of_several_seeds
    assert not figure.colours_repeat


def test_more_classes_than_colours_are_said(make_run) -> None:
    many = [(float(i), 0.0, f"class {i}", "image") for i in range(8)]
    assert scatter_figures(grouped([make_run(scatters=tsne(many))]))[0].colours_repeat
