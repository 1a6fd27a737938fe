"""Pages: texts do not collide, whatever names and photos are like, and all of a page is on it."""

from __future__ import annotations

import itertools
import sys
import warnings

import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from contrex.cli.explain import FORMATS as OF_THE_COMMAND
from contrex.errors import GlyphWarning
from contrex.explain import Explanation, fonts
from contrex.explain.page import FORMATS, LINE, Drawn, Page, Text, length, wrapped, written
from contrex.explain.picture import SMALL_TILE, TILE, Photo, photo_page, sheet
from sampling import crossed

pytestmark = pytest.mark.filterwarnings("ignore::contrex.errors.GlyphWarning")

LONG = "soft-coated wheaten terrier of an extraordinarily long and winding name, in two parts"
NAMES = (LONG, "a", "größe 東京 Собака", "word" * 40)


def explanations(num, size=(3, 4), *, photo=(30, 40), contrast=None, **known):
    """One explanation for each of `num` classes, of one image."""
    logits = torch.tensor([[3.0, 1.0, -9.0, -9.0]])
    photos = () if photo is None else (Photo(np.zeros((*photo, 3), np.uint8), f"{LONG}.jpg"),)
    heatmap = torch.randn(1, *size, generator=torch.Generator().manual_seed(0))
    return [
        Explanation(heatmap, logits, torch.tensor([index % 4]), contrast=contrast, names=NAMES, images=photos, **known)
        for index in range(num)
    ]


def area(item):
    """Left, top, right and bottom of an item."""
    if isinstance(item, Text):
        return item.left, item.top, item.left + length(item.text, bold=item.bold), item.top + LINE
    return item.left, item.top, item.left + item.width, item.top + item.height


def check_nothing_collides(page: Page) -> None:
    """Bars below texts are 2 high and within a text's line, so they are left out."""
    shown = [item for item in page.items if isinstance(item, Text) or item.height > 2]
    for (first, a), (second, b) in itertools.combinations([(item, area(item)) for item in shown], 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, f"{first} over {second}"
    for item in page.items:
        left, top, right, bottom = area(item)
        assert left >= 0 <= top
        assert right <= page.width
        assert bottom <= page.height


@pytest.mark.parametrize(("num", "photo"), crossed([1, 6], [(30, 40), (400, 20), (20, 900), (8, 8), None], one_in=2))
def test_nothing_collides_on_the_page_of_a_photo(photo, num):
    for contrast in (None, "weighted"):
        row = explanations(num, photo=photo, contrast=contrast, explainer="rise(num_masks=5)", unit="mean logit")
        other = explanations(num, photo=photo, contrast=contrast, explainer="grad_cam", layer="layer4.2", grid=(3, 4))
        check_nothing_collides(photo_page([row, other]))
        check_nothing_collides(photo_page([row]))
        check_nothing_collides(sheet(row))


def test_nothing_collides_in_a_notebook():
    for num in (1, 2, 5, 30):
        many = Explanation.cat(explanations(num, contrast="weighted"))
        page = sheet([many])
        check_nothing_collides(page)
        assert page.width < 1200
        assert ("+ 18 more" in texts(page)[-1]) == (num == 30)


def texts(page):
    return [item.text for item in page.items if isinstance(item, Text)]


def test_the_photo_and_the_legend_are_there_once():
    row, other = explanations(3, unit="share of the logit"), explanations(3, unit="share of the logit")
    page = photo_page([row, other])
    pictures = [item for item in page.items if isinstance(item, Drawn) and item.height > 10]
    assert len(pictures) == 1 + 2 * 3
    told = texts(page)
    assert (told.count("against"), told.count("for"), told.count("share of the logit")) == (1, 1, 1)
    mixed = texts(photo_page([row, explanations(3, explainer="gradient", unit="slope of the logit")]))
    assert "share of the logit" not in mixed
    assert "gradient: slope of the logit" in mixed


def test_target_and_foil_have_their_probabilities_and_doubts():
    def head(target, foil):
        one = Explanation(
            torch.ones(1, 2, 2), torch.tensor([[3.0, 1.0, -9.0, -9.0]]), torch.tensor([target]), contrast=foil,
            names=("cat", "dog", "cow", "hen"),
        )  # fmt: skip
        return " ".join(texts(photo_page([[one]])))

    assert "why cat rather than dog? cat 88%, dog 12%" in head(0, 1)
    assert "the network" not in head(0, 1)
    assert "cow <0.1%, hen <0.1% the network sees neither" in head(2, 3)
    assert "the network does not see hen" in head(0, 3)


def test_the_contrasts_of_a_class_stay_in_one_line():
    rows = [[why for why in explanations(4) for _ in range(2)]]
    pictures = [item for item in photo_page(rows).items if isinstance(item, Drawn) and item.height > 10]
    tops = [item.top for item in pictures[1:]]
    assert [tops.count(top) for top in dict.fromkeys(tops)] == [4, 4]


def test_long_words_are_broken_and_long_texts_cut():
    assert wrapped("one two", 1000) == ["one two"]
    assert "".join(wrapped("x" * 60, TILE)) == "x" * 60
    for text in (LONG, "word" * 90, LONG * 9):
        lines = wrapped(text, SMALL_TILE)
        assert len(lines) <= 4
        assert all(length(line) <= SMALL_TILE for line in lines)
    assert lines[-1].endswith("...")


def test_letters_beyond_ascii_are_drawn_as_themselves():
    """Pillow's own font has boxes for them all."""
    shown = set()
    for letter in "öжλ":
        page = Page()
        page.write(letter, 0, 0)
        shown.add(page.render().tobytes())
    assert len(shown) == 3


def test_a_book_has_a_page_for_each_photo():
    page = Page()
    page.write("a page", 0, 0)
    assert written([page] * 3, ".pdf", 1).count(b"/Type /Page ") == 3
    assert OF_THE_COMMAND == FORMATS


def test_other_letters_have_the_font_of_the_machine(tmp_path, monkeypatch, fresh_fonts):
    """A font is built here that has two letters, each as a square with a hole of its own, and put where users' are."""
    folder = tmp_path / "fonts"
    folder.mkdir()
    _build_font(folder / "NotoSansSC-Regular.otf", "東京ab ")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "none"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fonts.font_file("東京 ab").endswith("NotoSansSC-Regular.otf")
    assert fonts.font_file("größe Собака مرحبا").endswith("DejaVuSans.ttf")
    assert fonts.font_file("größe Собака", bold=True).endswith("DejaVuSans-Bold.ttf")
    page = Page()
    page.write("東京", 0, 0)
    assert np.asarray(page.render().convert("L")).min() < 100
    assert b"<svg" in written([page], ".svg", 1)
    assert written([page], ".pdf", 1).startswith(b"%PDF")


def test_letters_without_a_font_are_told_once(tmp_path, monkeypatch, fresh_fonts):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path))
    with pytest.warns(GlyphWarning, match=r"no font here has 京東, so pictures .*: install one .*fonts-noto-cjk"):
        assert length("東京 a") > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert length("京", bold=True) > 0
        assert length("e\u0301\u200d ") > 0


def _build_font(path, letters):
    """A font with a bar for each letter."""
    builder = FontBuilder(1000, isTTF=True)
    names = {ord(letter): f"g{number}" for number, letter in enumerate(letters)}
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    shapes = {}
    for number, name in enumerate([".notdef", *names.values()]):
        pen = TTGlyphPen(None)
        for corner, point in enumerate([(0, 0), (0, 700 - 90 * number), (500, 700 - 90 * number), (500, 0)]):
            (pen.lineTo if corner else pen.moveTo)(point)
        pen.closePath()
        shapes[name] = pen.glyph()
    builder.setupGlyf(shapes)
    builder.setupHorizontalMetrics(dict.fromkeys(shapes, (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Bars", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


@pytest.fixture
def fresh_fonts(monkeypatch):
    """Nothing is known of the machine's fonts, and nothing was told."""
    if sys.platform != "linux":
        pytest.skip("the folders of fonts are those of Linux")
    monkeypatch.setattr(fonts, "_told", set())
    for cached in (fonts.font, fonts.font_file, length):
        cached.cache_clear()
    yield
    for cached in (fonts.font, fonts.font_file, length):
        cached.cache_clear()
