"""The report in a browser: what is read first, filters, the explorer of a picture, sorting, small windows, paper."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from contrex.report import render_report

pytestmark = pytest.mark.slow

PATHS = ["val/a.png", "val/b.png", "val/c.png", "val/d.png"]
CLASSES = ["cat", "dog", "</script><b>bird"]


def in_base64(array):
    return base64.b64encode(array.tobytes()).decode()


def answer_of(maps, logits):
    """What an evaluation keeps of a picture, from the maps [Z,h,w] of all classes."""
    factors = np.abs(maps).max((1, 2)) / 32767
    table = {
        "method": "grad_cam at layer4, 4 x 6", "unit": "", "shape": maps.shape[1:], "size": None, "classes": None,
        "hasRest": False, "values": in_base64(np.rint(maps / factors[:, None, None]).astype("<i2")),
        "factors": in_base64(factors.astype("<f4")), "isLinear": True, "isClassSpecific": True, "factor": 1.0,
        "adds": None,
    }  # fmt: skip
    answer = {"logits": in_base64(logits.astype("<f4")), "tables": [table]}
    return json.dumps({"version": 1, "task": "multiclass", "scale": 1.0, "answer": answer})


def maps_of(run, picture):
    """The maps of all classes of a picture, as a network would give them."""
    return np.random.default_rng([run, picture]).normal(size=(3, 4, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def runs(make_run):
    """Two runs of four pictures: the first is wrong on all, the second on the first two."""
    made = []
    for number, (name, values) in enumerate(
        (("cross_entropy", [40.0, 50.0, 60.0, 70.0]), ("cgc", [50.0, 61.0, 72.0, 83.0]))
    ):
        run = make_run(name, values, classes=CLASSES)
        predictions = [1, 1, 1, 1] if number == 0 else [1, 2, 0, 0]
        maps = [maps_of(number, picture) for picture in range(4)]
        wrong = {place: maps[place][one] for place, one in enumerate(predictions) if one}
        answers = {place: answer_of(one, np.array([1.0, 2.0, 0.5])) for place, one in enumerate(maps)}
        gallery = replace(
            run.gallery, heatmaps=[one[0] for one in maps], predictions=predictions, predicted_heatmaps=wrong,
            answers=answers,
        )  # fmt: skip
        made.append(replace(run, gallery=gallery))
    return made


@pytest.fixture(scope="module")
def files(runs, tmp_path_factory):
    """The report, and the same of older records, which cannot be asked."""
    folder = tmp_path_factory.mktemp("report")
    older = [replace(run, gallery=replace(run.gallery, answers={})) for run in runs]
    for name, some in (("report", runs), ("older", older)):
        (folder / f"{name}.html").write_text(render_report(some, title="A report"), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in ("report", "older")}


@pytest.fixture
def opened(browser, files):
    """Open the report; it may ask for nothing, and complain of nothing."""
    complaints, contexts = [], []

    def open_page(name="report", width=1400, **options):
        contexts.append(
            browser.new_context(viewport={"width": width, "height": 900}, reduced_motion="reduce", **options)
        )
        page = contexts[-1].new_page()
        page.on("console", lambda said: complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: complaints.append(asked.url) if asked.url.startswith("http") else None)
        page.goto(f"file://{files[name]}")
        return page

    yield open_page
    assert complaints == []
    for context in contexts:
        context.close()


def shown(page):
    return page.eval_on_selector_all(
        ".card", "all => all.filter((one) => one.offsetParent).map((one) => one.dataset.path)"
    )


def is_open(page):
    return page.evaluate("document.getElementById('enlarged').open")


def asked(page, place=0):
    """The explorer of a picture, opened by its n-th map."""
    page.locator(".card .panel[data-target] .frame").nth(place).click()
    frame = page.frame_locator("#enlarged iframe")
    frame.locator("html[data-ready]").wait_for(state="attached")
    return frame


def until(page, expression):
    """Wait until an expression is true; the page's policy does not let playwright do it."""
    for _ in range(500):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    raise AssertionError(expression)


def number(text):
    return float(text.replace("\u2212", "-"))


def test_it_concludes_before_it_shows_numbers(opened):
    page = opened()
    heads = page.locator("h2").all_inner_texts()
    assert heads[:2] == ["In short", "Results"]
    concluded = page.inner_text(".concluded")
    assert concluded.startswith("cgc")
    assert "instead of" in concluded
    for link in page.locator(".contents a").all():
        assert page.locator(link.get_attribute("href")).count() == 1


def test_filters_and_orders(opened):
    page = opened()
    page.select_option("#filter-wrong", "1")
    assert shown(page) == PATHS[:2]
    assert page.inner_text("#num-shown") == "2 of 4 images"
    page.select_option("#filter-wrong", "any")
    assert shown(page) == PATHS
    page.select_option("#sort-cards", "disagreement:down")
    by = page.eval_on_selector_all(".card", "all => all.map((one) => Number(one.dataset.disagreement))")
    assert by == sorted(by, reverse=True)
    assert by != sorted(by)
    page.select_option("#sort-cards", "gain:up")
    assert shown(page) == PATHS


def test_each_map_names_the_class_that_it_explains(opened):
    page = opened()
    told = page.locator(".card").first.locator(".explains").all_inner_texts()
    assert told == ["for cat, its label", "for dog, what it predicts"] * 2
    assert page.locator(".card").nth(2).locator(".explains").all_inner_texts()[2:] == ["for cat, label, and predicted"]


def test_a_picture_opens_in_the_explorer_with_pythons_numbers(opened):
    """Alone, and any share of the contrast between two classes, cell by cell and in the picture."""
    page = opened()
    frame = asked(page, place=1)
    assert frame.locator("#question").inner_text() == "why dog?"
    plain = frame.locator("#panels canvas[role=img]").first.evaluate("one => one.toDataURL()")
    frame.locator('#classes [data-class="0"] input[type=checkbox]').check()
    assert frame.locator("#question").inner_text() == "why dog and not cat?"
    pictures = {plain}
    for share in (1.0, 0.25):
        frame.locator("#share").fill(str(share))
        pictures.add(frame.locator("#panels canvas[role=img]").first.evaluate("one => one.toDataURL()"))
        for model in range(2):
            maps = maps_of(model, 0)
            expected = maps[1] - share * maps[0]
            record = saved(page, frame)[model]
            found = np.array(record["question"]["map"]["cells"])
            assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()
    assert len(pictures) == 3
    assert number(frame.locator("#cell tr.total td:last-child").first.inner_text()) == pytest.approx(
        float((maps_of(0, 0)[1] - 0.25 * maps_of(0, 0)[0]).sum()), rel=6e-3
    )
    assert "bird" in frame.locator("#classes").inner_text()


def saved(page, frame):
    """The records that the explorer saves, a model each."""
    found = []

    def keep(one):
        found.append(one)

    page.on("download", keep)
    frame.locator("#save-record").click()
    for _ in range(200):
        if len(found) == 2:
            break
        page.wait_for_timeout(20)
    page.remove_listener("download", keep)
    return [json.loads(one.path().read_text()) for one in found]


def test_the_dialog_is_used_by_keys_alone(opened):
    page = opened()
    page.locator(".card .panel[data-target] .frame").first.focus()
    page.keyboard.press("Enter")
    frame = page.frame_locator("#enlarged iframe")
    frame.locator("html[data-ready]").wait_for(state="attached")
    until(page, "document.activeElement.tagName === 'IFRAME'")
    page.keyboard.press("j")
    until(page, "document.getElementById('enlarged-title').textContent.includes('b.png')")
    frame.locator("html[data-ready]").wait_for(state="attached")
    assert page.locator(".step").first.is_enabled()
    until(page, "document.activeElement.tagName === 'IFRAME'")
    page.keyboard.press("Escape")
    assert not is_open(page)
    focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert focused.startswith("Enlarge and ask: Heatmap of")
    page.keyboard.press(" ")
    page.wait_for_selector("#enlarged[open]")
    page.click("#enlarged .close")
    assert not is_open(page)
    assert page.locator("#enlarged iframe").count() == 0


def test_pictures_of_older_records_are_enlarged_as_they_are(opened):
    page = opened("older")
    assert page.locator("#explorer").count() == 0
    page.locator(".card .panel .frame").nth(1).click()
    assert is_open(page)
    assert page.locator("#enlarged svg[role=img]").count() == 1
    assert page.locator("#enlarged .frame").bounding_box()["width"] > 400
    page.click("#enlarged .step >> nth=1")
    assert "b.png" in page.inner_text("#enlarged-title")
    page.keyboard.press("Escape")
    assert not is_open(page)


def test_heads_sort_and_look_it(opened):
    page = opened()
    head = page.locator("table.sortable thead th").nth(1)

    def looks():
        return head.locator("button").evaluate("one => getComputedStyle(one, '::after').content")

    def values():
        column = "all => all.map((one) => Number(one.dataset.value))"
        return page.eval_on_selector_all("table.sortable tbody td", column)

    before = looks()
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert values() == sorted(values(), reverse=True)
    assert looks() != before
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert values() == sorted(values())


@pytest.mark.parametrize("name", ["report", "older"])
def test_nothing_is_cut_off_in_a_small_window_without_a_hint(opened, name):
    page = opened(name, width=390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    cut = page.evaluate("""[...document.querySelectorAll("main *")].filter((one) =>
        one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 1 && !one.closest("svg, .unseen, pre")
        && getComputedStyle(one).overflowX !== "visible" && !one.classList.contains("wide"))
        .map((one) => one.className)""")
    assert cut == []
    if name == "report":
        frame = asked(page)
        assert frame.locator("html").evaluate("one => one.scrollWidth <= one.clientWidth")
        assert page.locator("#enlarged").bounding_box()["width"] == 390


LUMINANCE = """(colour) => {
    const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const [r, g, b] = colour.match(/[\\d.]+/g).map((one) => linear(Number(one) / 255));
    return .2126 * r + .7152 * g + .0722 * b;
}"""
PLACES = (".concluded li", ".note", ".caption", ".verdict", ".contents a", ".explains", "figcaption .wrong", ".spread")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_are_read_in_both_schemes(opened, scheme):
    """At 4.5:1 against the page and more, also verdicts, notes and captions."""
    page = opened(color_scheme=scheme)
    paper = page.evaluate(f"({LUMINANCE})(getComputedStyle(document.body).backgroundColor)")
    assert (paper > 0.5) == (scheme == "light")
    for place in (
        ".concluded li",
        ".note",
        ".caption",
        ".verdict",
        ".contents a",
        ".explains",
        "figcaption .wrong",
        ".spread",
    ):
        ink = page.evaluate(f"({LUMINANCE})(getComputedStyle(document.querySelector('{place}')).color)")
        low, high = sorted((ink, paper))
        assert (high + 0.05) / (low + 0.05) >= 4.5, place


def test_on_paper_all_pictures_have_the_full_width(opened):
    page = opened(width=760)
    page.select_option("#filter-wrong", "1")
    assert len(shown(page)) == 2
    page.emulate_media(media="print")
    assert len(shown(page)) == 4
    main = page.locator("main").bounding_box()["width"]
    assert page.locator(".card").first.bounding_box()["width"] == pytest.approx(main, abs=1)
    for place in (".controls", ".contents", "dialog", ".wide"):
        assert not any(one.is_visible() and place != ".wide" for one in page.locator(place).all())
    panels = page.locator(".card").first.locator(".panel").all()
    right = max(one.bounding_box()["x"] + one.bounding_box()["width"] for one in panels)
    assert right == pytest.approx(page.locator("main").bounding_box()["x"] + main, abs=2)
    assert re.match("%PDF", page.pdf(format="A4")[:4].decode())
