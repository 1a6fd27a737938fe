"""The page: whole, closed to the network, and safe with any text."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from contrex.errors import ArgumentError, RecordError
from contrex.records import MetricFamily, Profile, Samples, Scatter, read_run, write_run
from contrex.report import render_report, write_report
from report.conftest import make_metric

VOID = {"meta", "link", "input", "br", "wbr", "img"}
MARKUP = "<img src=x onerror=alert(1)>\"'"


class Page(HTMLParser):
    """Start tags with attributes, ids and visible text; fails on tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]


def read(runs, **options) -> str:
    """The text of the report about `runs`, with single spaces."""
    html = render_report(runs, title="t", **options)
    return " ".join(Page(html.replace("</li>", " </li>")).text.replace("\N{NO-BREAK SPACE}", " ").split())


@pytest.fixture
def html(make_run) -> str:
    runs = [make_run(), make_run("cgc", [50.0, 55.0, None, 80.0], skipped_images=["val/broken.png"])]
    return render_report(runs, title="A title")


def test_it_parses_with_unique_ids_and_headings_in_order(html: str) -> None:
    page = Page(html)
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_every_reference_inside_the_page_resolves(html: str) -> None:
    page = Page(html)
    ids = set(page.attributes("id"))
    targets = {href[1:] for href in page.attributes("href") if href.startswith("#")}
    targets |= set(re.findall(r"url\(#([^)]+)\)", html))
    targets |= {name for label in page.attributes("aria-labelledby") for name in label.split()}
    assert targets
    assert targets <= ids


def test_nothing_is_loaded_from_outside(html: str) -> None:
    page = Page(html)
    for name in ("src", "href", "srcset", "action", "data"):
        assert all(value.startswith(("data:", "#")) for value in page.attributes(name))
    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))


def test_the_policy_allows_only_our_script(html: str) -> None:
    policy = next(attrs["content"] for _, attrs in Page(html).tags if "http-equiv" in attrs)
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert len(digests) == 1
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digests[0]}'" in policy


def test_markup_in_any_text_stays_text(make_run) -> None:
    paths = [f"val/{MARKUP}{i}" for i in range(4)]
    run = make_run(
        f"cgc{MARKUP}",
        paths=paths,
        classes=[MARKUP, "dog"],
        command=f"contrex {MARKUP}",
        versions={"contrex": MARKUP},
        dataset={"name": MARKUP},
        created=MARKUP,
        curves={MARKUP: [(1.0, 1.0), (2.0, 2.0)]},
        skipped_images=[MARKUP],
        metric={"title": MARKUP, "unit": MARKUP, "skip_reason": MARKUP},
    )
    run.record.configuration["model"]["name"] = MARKUP
    page = Page(render_report([make_run("other", paths=paths), run], title=MARKUP))
    assert all("onerror" not in attrs for _, attrs in page.tags)
    assert all(tag != "img" for tag, _ in page.tags)
    assert paths[0] in page.attributes("data-path")
    assert page.text.count(MARKUP) >= 10


def full_run(make_run, name: str, text: str, **changes):
    """A run with everything that a record can hold, each named `text`."""
    points = [(0.0, 1.0, 0.0, 2.0), (1.0, 2.0, 1.0, 3.0)]
    run = make_run(
        name,
        profiles=[
            Profile("one", text, text, text, {text: points}),
            Profile("many", text, text, text, {text: points, "other": points}),
        ],
        scatters=[Scatter("embedding", text, [(0.0, 0.0, text, "image"), (1.0, 1.0, "cat", text)])],
        **changes,
    )
    metric = run.record.metrics[0]
    family = [
        replace(
            metric, name=f"{text}{i}", title=f"{text}, {text}", family=MetricFamily(text, text, text, "", text, text)
        )
        for i in range(9)
    ]
    family += [
        replace(family[0], name=f"few{i}", family=MetricFamily(f"few {text}", meaning=text), protocol={"verdict": text})
        for i in range(2)
    ]
    return replace(run, record=replace(run.record, metrics=[metric, *family]), sheets={text: b"png"})


def test_markup_in_everything_a_record_holds_stays_text(make_run) -> None:
    script = "<script>alert(1)</script>\"'"
    runs = [full_run(make_run, "ce", script), full_run(make_run, f"cgc{script}", script)]
    html = render_report(runs, title="t")
    page = Page(html)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert html.count("<script>") == 1
    assert page.text.count(script) >= 30
    assert {attrs["alt"] for tag, attrs in page.tags if tag == "img"} == {
        f"Training views of {name}, {script}" for name in ("ce", f"cgc{script}")
    }


def test_a_full_page_is_whole_and_closed_to_the_network(make_run) -> None:
    html = render_report([full_run(make_run, "ce", "plain"), full_run(make_run, "cgc", "plain")], title="t")
    for check in (
        test_it_parses_with_unique_ids_and_headings_in_order,
        test_every_reference_inside_the_page_resolves,
        test_nothing_is_loaded_from_outside,
        test_every_picture_has_words,
    ):
        check(html)
    pictures = [attrs["src"] for tag, attrs in Page(html).tags if tag == "img"]
    assert pictures == ["data:image/png;base64,cG5n"] * 2
    for heading in ("Measured curves", "Where the images lie", "What the networks were trained on"):
        assert f">{heading}</h2>" in html
        assert f">{heading}</h2>" not in render_report([make_run()], title="t")


def test_the_sign_test_is_read_without_a_pointer(make_run) -> None:
    runs = [make_run(values=[40.0] * 4), make_run("cgc", [40.0, 41.0, 42.0, 43.0])]
    assert "higher on 3, lower on 0 images, p = 0.25" in read(runs)
    assert "lower on" not in read(runs[:1])


def test_how_steady_the_training_was_is_said_for_several_seeds(make_run) -> None:
    curves = [{"val_top1": [(1.0, 40.0), (2.0, 60.0)]}, {"val_top1": [(1.0, 44.0), (2.0, 60.0)]}]
    runs = [make_run(f"cgc-seed{seed}", seed=seed, curves=curve) for seed, curve in enumerate(curves)]
    text = Page(render_report(runs, title="t")).text
    assert "How steady the training was" in text
    assert "1.41" in text
    assert "How steady" not in Page(render_report(runs[:1], title="t")).text


def test_a_verdict_is_shown_with_its_number(make_run) -> None:
    run = make_run(metric={"protocol": {"verdict": "flagged: it does not change"}})
    assert "verdict: flagged: it does not change" in Page(render_report([run], title="t")).text


def test_numbers_of_the_table_are_on_the_page(html: str) -> None:
    text = Page(html).text
    for part in ("55.0", "[53.0, 57.0]", "61.7", "n=3, 1 skipped: all-zero map", "baseline", "★"):
        assert part in text


def test_skipped_images_and_differing_settings_are_listed(html: str) -> None:
    text = Page(html).text
    assert "val/broken.png" in text
    settings = re.search(r'<table class="settings">.*?</table>', html, re.DOTALL)
    assert settings is not None
    rows = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td>', settings[0])
    assert rows == [("method", "CrossEntropy", "CGC")]


def test_it_says_how_long_the_measured_weights_were_trained(make_run) -> None:
    def summary(*epochs_done) -> str:
        runs = [make_run(f"method{index}") for index in range(len(epochs_done))]
        for run, done in zip(runs, epochs_done, strict=True):
            run.record.configuration["checkpoint"] = {
                "name": "last", "step": 4, "epochs_done": done, "epochs": 15, "sha256": "0123456789abcdef" * 4,
            }  # fmt: skip
        return Page(render_report(runs, title="t")).text

    assert "Trained for 15 epochs" in summary(15, 15)
    assert "Trained for 15 and 5 of 15 epochs" in summary(15, 5)
    assert "method1 (step 4, 5 of 15 epochs)" in summary(15, 5)
    assert "knows nothing of the training" in Page(render_report([make_run()], title="t")).text


def test_differences_on_other_or_fewer_images_say_so(make_run) -> None:
    fewer = [make_run(values=[40.0, None, 60.0, 80.0]), make_run("cgc", [50.0, 51.0, 72.0, 93.0])]
    assert "on 3 common images" in Page(render_report(fewer, title="t")).text
    others = [make_run(), make_run("cgc", dataset={"name": "digits", "split": "test"})]
    assert "not paired" in Page(render_report(others, title="t")).text


def test_what_a_metric_means_comes_from_its_record(make_run) -> None:
    sentences = ["How much lies inside the box.", "How much lies inside the mask."]
    runs = [
        make_run(name, metric={"family": MetricFamily("content_heatmap", "Content heatmap", text)})
        for name, text in zip(("boxes", "masks"), sentences, strict=True)
    ]
    assert f"{sentences[0]} Higher is better." in Page(render_report(runs[:1], title="t")).text
    both = Page(render_report(runs, title="t")).text
    assert f"boxes: {sentences[0]} masks: {sentences[1]} Higher is better." in both
    assert "Content heatmap, averaged over images." in Page(render_report([make_run()], title="t")).text


@pytest.mark.parametrize(("region", "words"), [("boxes", "inside the box"), ("mask", "inside the mask")])
def test_pictures_say_what_their_content_heatmap_is_the_share_in(make_run, region: str, words: str) -> None:
    html = render_report([make_run(metric={"protocol": {"region": region}})], title="t")
    assert f"40 % of the heatmap {words}" in html
    assert ("the object's mask" in Page(html).text) == (region == "mask")


def test_a_record_of_version_1_has_the_page_that_it_had() -> None:
    """Its families in their tables and sections, its calibration over a diagonal, its sentences but for those that
    other settings made untrue."""
    run = read_run(Path(__file__).parents[1] / "records" / "version1")
    html = render_report([run], title="t")
    text = Page(html).text
    for words in (
        "20 % kept", "50 % kept", "Positive features kept", "rest mean colour, t2", "Change of logit, epsilon 0.001",
        "Gradient sign perturbation", "Epsilon 8/255", "How much of the positive heatmap lies on the object",
    ):  # fmt: skip
        assert words in text, words
    assert html.count('class="diagonal"') == 1
    assert "blurred image" not in text
    test_it_parses_with_unique_ids_and_headings_in_order(html)


def test_a_run_from_python_has_no_command_to_copy(make_run) -> None:
    assert render_report([make_run(command="")], title="t").count('class="command"') == 0
    assert render_report([make_run()], title="t").count('class="command"') == 1


def test_equal_runs_say_so(make_run) -> None:
    runs = [make_run("cgc"), make_run("cgc again")]
    assert "the same settings" in Page(render_report(runs, title="t")).text


def test_an_empty_map_is_shown_and_labelled(make_run) -> None:
    run = make_run()
    run.gallery.heatmaps[2][...] = 0
    page = Page(render_report([run], title="t"))
    assert page.text.count("empty map") == 1
    heats = [attrs for tag, attrs in page.tags if tag == "image" and "heat" in (attrs.get("class") or "")]
    assert len(heats) == 4 * 4


def test_a_run_without_gallery_is_named_and_the_others_are_shown(make_run) -> None:
    runs = [replace(make_run("blind"), gallery=None), make_run("cgc")]
    page = Page(render_report(runs, title="t"))
    assert "blind has no pictures" in page.text
    assert len(page.attributes("data-path")) == 4
    runs = [replace(make_run(), gallery=None, samples=Samples())]
    assert "has no pictures" in Page(render_report(runs, title="t")).text


def test_only_common_images_are_shown_and_the_rest_is_named(make_run) -> None:
    runs = [make_run(), make_run("cgc", paths=["val/a.png", "val/b.png", "val/x.png", "val/y.png"])]
    page = Page(render_report(runs, title="t"))
    assert page.attributes("data-path") == ["val/a.png", "val/b.png"]
    assert "not shown: val/c.png, val/d.png, val/x.png, val/y.png." in page.text
    runs = [make_run(), make_run("cgc", paths=["k", "l", "m", "n"])]
    page = Page(render_report(runs, title="t"))
    assert page.attributes("data-path") == []
    assert "no image in common" in page.text


def test_photographs_are_stored_once_unless_they_differ(make_run) -> None:
    def num_photos(runs) -> int:
        return sum(i.startswith("photo-") for i in Page(render_report(runs, title="t")).attributes("id"))

    first, second = make_run(), make_run("cgc")
    assert num_photos([first, second]) == 4
    second.gallery.images[0] = np.zeros((8, 12, 3), np.uint8)
    assert num_photos([first, second]) == 5
    assert "The pictures of val/a.png differ between runs" in render_report([first, second], title="t")


def test_every_picture_has_words(html: str) -> None:
    for tag, attrs in Page(html).tags:
        if tag == "svg":
            assert attrs.get("aria-hidden") == "true" or attrs.get("aria-label")


def test_no_runs_and_no_record(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="`runs` must hold at least one run, got none"):
        render_report([], title="t")
    with pytest.raises(ArgumentError, match="at least one run"):
        write_report([], tmp_path / "report.html")
    with pytest.raises(RecordError, match="no record in"):
        write_report([tmp_path / "missing"], tmp_path / "report.html")


def test_write_report_reads_folders_and_is_reproducible(make_run, tmp_path: Path) -> None:
    for name in ("cross_entropy", "cgc"):
        write_run(tmp_path / name, make_run(name))
    folders = [tmp_path / "cross_entropy", tmp_path / "cgc"]
    first = write_report(folders, tmp_path / "out" / "report.html")
    assert first == tmp_path / "out" / "report.html"
    content = first.read_bytes()
    assert b"<h1>cross_entropy \xc2\xb7 cgc</h1>" in content
    assert write_report(folders, tmp_path / "again.html").read_bytes() == content


def test_the_page_says_what_is_won_and_what_is_lost(make_run):
    """Higher is better for one metric and lower for the other; both rise, clearly, by the same on each image."""
    values = [40.0, 50.0, 60.0, 70.0]
    lower = {"name": "cgc_loss", "title": "CGC loss", "unit": "", "higher_is_better": False}

    def run(name, shift):
        shifted = [value + shift for value in values]
        metrics = [make_metric(shifted), make_metric(shifted, **lower)]
        made = make_run(name, shifted)
        samples = replace(made.samples, values={m.name: np.array(shifted) for m in metrics})
        return replace(made, record=replace(made.record, metrics=metrics), samples=samples)

    told = read([run("plain", 0.0), run("cgc", 9.0)])
    assert "It puts 64 % of its heat on the object instead of 55 %." in told
    assert "Worse: CGC loss (64 instead of 55)." in told
    assert "a gain in one does not make up for a loss in another" in told
    alone = read([run("plain", 0.0), run("same", 0.0)])
    assert "In no number is it told apart from plain. Not told apart: content heatmap and CGC loss." in alone
    assert "instead of" not in alone
    assert "a gain in one" not in alone
