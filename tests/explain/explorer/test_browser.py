"""The explorer in a browser: each interaction, and that its numbers are the explainers'."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from contrex.cli import main
from contrex.explain.explorer.content import VIEWS
from contrex.explain.named import build_explainer
from contrex.explanation_record import score_of
from contrex.exploring import Explorer, Participant
from contrex.models import build_network
from contrex.ops import heatmap
from contrex.photos import Asked, Photographer, Questions, seen_by
from contrex.settings import Model

pytestmark = pytest.mark.slow

NAMES = tuple(f"class {chr(97 + index // 5)}{index % 5}, other name {index}" for index in range(30))
SIDE = 20
METHODS = ("grad_cam", "gradient", "layer_cam", "eigen_cam", "score_cam")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three photos, and two networks that disagree: a folder."""
    root = tmp_path_factory.mktemp("explorer")
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (40, 60, 3)), ("b.png", (64, 64, 3)), ("c d.png", (50, 40, 3))):
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).resize(size[1::-1]).save(root / name)
    for seed, name in enumerate(("base.pth", "cgc.pth")):
        torch.manual_seed(seed)
        torch.save(build_network("contrex:convnet", {}, num_classes=len(NAMES)).state_dict(), root / name)
    return root


@pytest.fixture(scope="module")
def participants(made):
    return [
        Participant.of(name, None, Model("contrex:convnet", weights=made / f"{name}.pth"), NAMES)
        for name in ("base", "cgc")
    ]


@pytest.fixture(scope="module")
def files(made, participants):
    """The pages: of one model and several methods, and of two models and three photos."""
    one = Explorer(participants[:1], Asked(METHODS), side=SIDE)
    one.add(made / "a.png", made / "one.html")
    two = Explorer(participants, Asked(), side=SIDE)
    for path in sorted(made.glob("*.png")):
        two.add(path, made / "two.html")
    return {name: page.page().save(made / f"{name}.html") for name, page in (("one", one), ("two", two))}


@pytest.fixture
def opened(browser, files):
    """Open a page by name, at an address; it may ask for nothing, and complain of nothing."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, accept_downloads=True)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    complaints = []

    def open_page(name, address="", **media):
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: complaints.append(asked.url) if asked.url.startswith("http") else None)
        page.emulate_media(**{"reduced_motion": "reduce", **media})
        page.goto(f"file://{files[name]}{address}")
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    assert complaints == []
    context.close()


def question(page):
    return page.inner_text("#question")


def picture(page, model=0):
    """The pixels of a panel."""
    return page.evaluate(f"document.querySelectorAll('#panels canvas[role=img]')[{model}].toDataURL()")


def downloads(page, button, num=1):
    """The files that a button gives."""
    found = []

    def keep(one):  # a function of ours, as playwright writes into the one that it is given
        found.append(one)

    page.on("download", keep)
    page.click(button)
    for _ in range(100):
        if len(found) == num:
            break
        page.wait_for_timeout(20)
    page.remove_listener("download", keep)
    return [one.path().read_bytes() for one in found]


def records(page, num=1):
    return [json.loads(content) for content in downloads(page, "#save-record", num)]


def asked(record):
    """The question in a record."""
    return record["explanations"][0]["questions"][0] if "explanations" in record else record["question"]


def cells(record):
    return torch.tensor(asked(record)["map"]["cells"])


def at_most_16(heatmap):
    """A map as a record has it."""
    size = [min(side, 16) for side in heatmap.shape]
    return torch.nn.functional.adaptive_avg_pool2d(heatmap[None], size)[0]


def go(page, address):
    """Ask what an address asks."""
    page.evaluate(f"location.hash = {address!r}")
    page.wait_for_timeout(30)


def explained(participant, path, target, contrast=None, method="grad_cam"):
    """What Python says."""
    photographer = Photographer(participant.named, Asked([method]), side=SIDE)
    return photographer.explain(path, Questions([target], [contrast])).rows[0][0]


def order(participant, path):
    """All classes, most probable first."""
    return explained(participant, path, 0).logits[0].argsort(descending=True).tolist()


def close(found, expected):
    """Equal to a thousandth of the largest value."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


def test_a_click_on_a_class_asks_why_and_on_another_why_not(opened, made, participants):
    page, (first, second, third) = opened("one"), order(participants[0], made / "a.png")[:3]
    short = [name.split(",")[0] for name in NAMES]
    assert question(page) == f"why {short[first]}?"
    before = picture(page)
    page.click(f'#classes [data-class="{second}"] .pick')
    assert question(page) == f"why {short[second]}?"
    page.click(f'#classes [data-class="{first}"] .pick')
    assert question(page) == f"why {short[second]} and not {short[first]}?"
    assert len({before, picture(page)}) == 2
    page.check(f'#classes [data-class="{third}"] input[type=checkbox]')
    assert question(page) == f"why {short[second]} and not {short[first]} or {short[third]}?"
    page.check(f'#classes [data-class="{third}"] input[type=radio]')
    assert question(page) == f"why {short[third]} and not {short[first]}?"
    page.click(f'#classes [data-class="{third}"] .pick')
    assert question(page) == f"why {short[third]}?"


def test_the_map_morphs(opened, made, participants):
    """Unless less motion is wished for, a question becomes the next over several frames."""
    second = order(participants[0], made / "a.png")[1]
    for motion, num in (("no-preference", range(3, 1000)), ("reduce", (2,))):
        page = opened("one", reduced_motion=motion)
        seen = page.evaluate(f"""async () => {{
            const seen = new Set(), canvas = document.querySelector("#panels canvas[role=img]");
            seen.add(canvas.toDataURL());
            document.querySelector('#classes [data-class="{second}"] input[type=checkbox]').click();
            for (const end = performance.now() + 700; performance.now() < end; )
                await new Promise((next) => requestAnimationFrame(() => {{ seen.add(canvas.toDataURL()); next(); }}));
            return seen.size;
        }}""")
        assert seen in num


@pytest.mark.parametrize(("method", "name"), list(enumerate(METHODS[:3])))
def test_numbers_are_those_of_the_explainer(opened, made, participants, method, name):
    """Maps within a thousandth of their largest value."""
    target, *others = order(participants[0], made / "a.png")
    page = opened("one")
    contrasts = {"alone": None, "max": "max", "mean": "mean", "weighted": "weighted"}
    contrasts |= {f"classes&foils={others[0]}": others[0]}
    contrasts |= {f"classes&foils={'+'.join(map(str, others[1:4]))}": [others[1:4]]}
    for kind, contrast in contrasts.items():
        go(page, f"#method={method}&target={target}&kind={kind}")
        note, (record,) = page.inner_text("#panels .note"), records(page)
        why = explained(participants[0], made / "a.png", target, contrast, name)
        assert ("is not linear in the score" in note) == (name == "layer_cam" and kind != "alone")
        close(cells(record), at_most_16(why.heatmap[0]))
        assert asked(record)["value"] == pytest.approx(score_of(why), abs=1e-3)
        assert asked(record)["target"]["index"] == target
        foils = why.foils
        assert [one["index"] for one in asked(record)["foils"]] == ([] if foils is None else foils[0].tolist())


def test_a_part_of_the_contrast(opened, made, participants):
    target, foil, *_ = order(participants[0], made / "a.png")
    page = opened("one", f"#target={target}&kind=classes&foils={foil}")
    alone, against = (explained(participants[0], made / "a.png", target, one).heatmap[0] for one in (None, foil))
    page.fill("#share", "0.3")
    assert page.inner_text("#share-said") == "30%"
    (record,) = records(page)
    close(cells(record), alone + 0.3 * (against - alone))
    page.fill("#share", "0")
    assert question(page) == f"why {NAMES[target].split(',')[0]}?"


def test_what_a_method_cannot_say_is_told(opened, made, participants):
    page = opened("one", "#method=3&kind=weighted")
    assert "one map for all classes" in page.inner_text("#panels .note")
    target, *others = order(participants[0], made / "a.png")
    go(page, f"#method=4&target={target}&kind=weighted")
    note = page.inner_text("#panels .note")
    assert "There is no map for this question here" in note
    assert "20 of 30 classes have a map here." in note
    page.fill("#search", "name")
    assert page.locator("#classes input[type=radio]:disabled").count() == 10
    go(page, f"#method=4&target={target}&kind=classes&foils={others[0]}")
    assert "not linear in the score" in page.inner_text("#panels .note")


def test_arrows_sweep_through_the_ten_most_probable(opened, made, participants):
    top = order(participants[0], made / "a.png")[:10]
    page, seen = opened("one"), []
    for key in ["ArrowRight"] * 9 + ["ArrowRight", "ArrowLeft"]:
        page.keyboard.press(key)
        seen.append(question(page).partition(" and not ")[2].rstrip("?"))
    expected = [NAMES[index].split(",")[0] for index in top[1:]]
    assert seen == [*expected, expected[0], expected[-1]]


def test_all_classes_are_searched_by_name(opened, made, participants):
    page = opened("one")
    page.keyboard.press("/")
    wanted = order(participants[0], made / "a.png")[15]
    page.keyboard.type(f"other NAME {wanted}")
    assert page.locator("#classes tbody tr").count() == 1
    page.check(f'#classes [data-class="{wanted}"] input[type=checkbox]')
    assert question(page).endswith(f"and not {NAMES[wanted].split(',')[0]}?")
    page.fill("#search", "nothing has this name")
    assert page.inner_text("#found") == "No class is called so."
    page.fill("#search", "")
    assert page.locator("#classes tbody tr").count() == 11


def number(text):
    return float(text.replace("\u2212", "-"))


def test_a_cell_says_what_it_gives_to_each_class(opened, made, participants):
    target, foil, *_ = order(participants[0], made / "a.png")
    page = opened("one", f"#target={target}&kind=classes&foils={foil}")
    maps = [explained(participants[0], made / "a.png", one).heatmap[0] for one in (target, foil)]
    rows, columns = maps[0].shape
    box = page.locator("#panels canvas[role=img]").bounding_box()
    page.mouse.move(box["x"] + 1.5 / columns * box["width"], box["y"] + 0.5 / rows * box["height"])
    assert page.inner_text("#cell-name") == "Cell in row 1, column 2"
    told = [number(text) for text in page.locator("#cell tr td:last-child").all_inner_texts()]
    given = [float(one[0, 1]) for one in maps]
    for found, expected in ((told[0], given[0]), (told[1], given[1]), (told[-1], given[0] - given[1])):
        assert found == pytest.approx(expected, rel=0.02, abs=2e-4)
    widths = page.eval_on_selector_all("#cell .bar span", "all => all.map(one => parseFloat(one.style.width))")
    assert widths[0] / widths[1] == pytest.approx(abs(given[0] / given[1]), rel=0.01)
    page.focus("#panels canvas[role=img]")
    page.keyboard.press("Escape")
    assert page.inner_text("#cell-name") == "All cells together"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert page.inner_text("#cell-name") == f"Cell in row {rows // 2}, column {columns // 2 + 1}"
    assert page.inner_text("#said").startswith(page.inner_text("#cell-name"))


def test_cells_and_biases_add_up_to_the_difference_of_the_logits(opened, made, participants):
    target, foil, *_ = order(participants[0], made / "a.png")
    logits = explained(participants[0], made / "a.png", target).logits[0]
    page = opened("one", f"#target={target}&kind=classes&foils={foil}")
    said = page.inner_text("#cell .note")
    total, bias, difference = (number(text) for text in re.findall(r"[+\u2212][\d.]+\d", said))
    assert "With the biases of the classes" in said
    assert difference == pytest.approx(float(logits[target] - logits[foil]), abs=2e-3)
    assert total + bias == pytest.approx(difference, abs=2e-3)
    go(page, f"#method=1&target={target}")
    assert "the cells do not add up to it" in page.inner_text("#cell .note")


def test_what_is_left_above_a_threshold(opened):
    page = opened("one")
    whole = picture(page)
    page.fill("#threshold", "0.5")
    few = int(re.search(r"(\d+)% of the picture are above", page.inner_text("#panels"))[1])
    page.fill("#threshold", "0.1")
    more = int(re.search(r"(\d+)% of the picture are above", page.inner_text("#panels"))[1])
    assert 0 < few < more < 100
    page.fill("#threshold", "0")
    assert picture(page) == whole
    page.fill("#opacity", "0")
    plain = picture(page)
    page.check("#marks", force=True)
    assert plain != whole


def test_signs_and_scales(opened):
    page = opened("two", "#kind=weighted")
    limits = lambda: page.locator("#panels .limits").all_inner_texts()  # noqa: E731
    own = limits()
    assert own[0] != own[1]
    page.select_option("#scale", "common")
    common = limits()
    assert common[0] == common[1]
    page.keyboard.press("Tab")
    page.select_option("#sign", "positive")
    assert "against" in common[0]
    assert "against" not in limits()[0]


def test_models_share_the_question_and_the_cursor(opened, made, participants):
    page = opened("two")
    target = order(participants[0], made / "a.png")[0]
    page.select_option("#kind", "mean")
    for one, record in zip(participants, records(page, 2), strict=True):
        close(cells(record), explained(one, made / "a.png", target, "mean").heatmap[0])
        assert record["classifier"]["weights"]["file"] == f"{one.name}.pth"
    before = [picture(page, model) for model in range(2)]
    page.locator("#panels canvas[role=img]").nth(1).scroll_into_view_if_needed()
    box = page.locator("#panels canvas[role=img]").nth(1).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert all(picture(page, model) != before[model] for model in range(2))
    assert all(name in page.inner_text("#said") for name in ("base", "cgc"))


def test_keys_go_through_the_photos_most_disagreement_first(opened, made, participants):
    page = opened("two")
    page.select_option("#sort", "maps")
    page.focus("#page button")
    page.evaluate("document.activeElement.blur()")
    paths = sorted(made.glob("*.png"))
    angle = {}
    for path in paths:
        target = order(participants[0], path)[0]
        maps = [heatmap.resize(explained(one, path, target).heatmap, 32).flatten() for one in participants]
        angle[path.name] = float(torch.nn.functional.cosine_similarity(*maps, dim=0))
    expected = sorted(angle, key=angle.get)
    for _ in paths:
        page.keyboard.press("k")
    seen = []
    for _ in paths:
        seen.append(page.locator("#photo option:checked").inner_text())
        page.keyboard.press("j")
    assert seen == expected
    assert page.inner_text("#place") == "3 of 3"
    assert question(page) == f"why {NAMES[order(participants[0], made / seen[-1])[0]].split(',')[0]}?"
    page.check("#keep")
    kept = question(page)
    page.focus("#page h1 ~ * button")
    page.keyboard.press("k")
    page.select_option("#photo", "0")
    target = order(participants[0], paths[0])[0]
    go(page, f"#target={target}&keep=yes")
    kept = question(page)
    page.click("#after")
    assert question(page) == kept


def test_views_have_maps_of_their_own(opened, made, participants):
    page, participant = opened("one"), participants[0]
    target = order(participant, made / "a.png")[0]
    whole = explained(participant, made / "a.png", target)
    for index, view in enumerate(VIEWS[1:], 1):
        go(page, f"#view={index}&target={target}")
        (record,) = records(page)
        square, _ = seen_by(participant.named, Image.open(made / "a.png").convert("RGB"), SIDE)
        images = torch.from_numpy(np.array(view.of(square))).permute(2, 0, 1)[None] / 255
        explain = build_explainer(participant.named.classifier.network, "grad_cam")
        close(cells(record), explain(participant.named.classifier.normalise(images), target=target).heatmap[0])
        assert record["view"] == view.name
        agreed = float(re.search(r"agree by (-?[\d.]+)", page.inner_text("#panels").replace("\u2212", "-"))[1])
        if view.is_flipped:
            moved = whole.heatmap[0].flip(1).flatten()
            expected = torch.nn.functional.cosine_similarity(moved, cells(record).flatten(), dim=0)
            assert agreed == pytest.approx(float(expected), abs=0.006)
            page.check("#carried")
            (record,) = records(page)
            close(cells(record), whole.heatmap[0].flip(1))


def test_the_address_holds_the_question(opened, made, participants):
    page = opened("two")
    page.click("#after")
    page.select_option("#kind", "weighted")
    page.select_option("#view", "2")
    page.fill("#share", "0.6")
    page.select_option("#sign", "positive")
    address = page.evaluate("location.hash")
    again = opened("two", address)
    assert question(again) == question(page)
    assert picture(again) == picture(page)
    assert again.evaluate("location.hash") == address
    hostile = opened("two", "#photo=99&target=-4&kind=<b>&share=nan&foils=1+x&view=1.5&sort=views&nothing=1&method=1e9")
    assert question(hostile) == question(opened("two"))


def test_the_question_is_copied_as_python_and_as_a_command(opened, made, participants, tmp_path, monkeypatch):
    target, foil, other, *_ = order(participants[0], made / "a.png")
    page = opened("one", f"#method=1&target={target}&kind=classes&foils={foil}+{other}&share=0.5")
    page.click("#copy-python")
    code = page.evaluate("navigator.clipboard.readText()")
    scope = {}
    exec(code, scope)
    expected = explained(participants[0], made / "a.png", target, [[foil, other]], "gradient")
    assert torch.equal(scope["why"].heatmap, expected.heatmap)
    (record,) = records(page)
    close(cells(record), at_most_16(scope["heatmap"][0]))
    page.click("#copy-command")
    assert "takes one class at a time" in page.inner_text("#kept-text")
    page.goto(page.url.replace("share=0.5", "").replace(f"+{other}", ""))
    page.reload()
    page.wait_for_selector("html[data-ready]")
    page.click("#copy-command")
    words = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert main([*words[1:], "--output", str(tmp_path / "why.png")]) == 0
    again = json.loads((tmp_path / "why.json").read_text())["explanations"][0]["questions"][0]
    (record,) = records(page)
    close(cells(record), torch.tensor(again["map"]["cells"]))
    page.click("#copy-link")
    assert page.evaluate("navigator.clipboard.readText()") == page.url


def test_a_saved_record_is_one_that_verify_computes_again(opened, made, participants, capsys):
    target, foil, other, *_ = order(participants[0], made / "a.png")
    page = opened("one")
    for words in (
        f"kind=classes&foils={foil}",
        f"kind=classes&foils={foil}+{other}&method=1",
        "kind=weighted",
        "kind=max",
    ):
        go(page, f"#target={target}&{words}")
        (content,) = downloads(page, "#save-record")
        (made / "saved.json").write_bytes(content)
        assert main(["verify", str(made / "saved.json")]) == 0
        assert "1 map within" in capsys.readouterr().out


def test_the_picture_is_saved(opened):
    page = opened("two")
    (content,) = downloads(page, "#save-picture")
    saved = Image.open(io.BytesIO(content))
    assert saved.format == "PNG"
    assert saved.width >= 2 * 40
    assert len(saved.convert("RGB").getcolors(10**6)) > 100


@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_is_wider_than_the_page(opened, width):
    for name in ("one", "two"):
        page = opened(name)
        page.set_viewport_size({"width": width, "height": 800})
        page.click("#copy-python")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_everything_has_a_name_and_the_focus_stays(opened):
    page = opened("two")
    nameless = page.evaluate("""() => [...document.querySelectorAll("button, select, input, canvas[role=img]")]
        .filter((one) => !one.getAttribute("aria-label") && !one.textContent.trim())
        .filter((one) => !one.labels?.[0]?.textContent.trim())
        .map((one) => one.outerHTML)""")
    assert nameless == []
    page.focus("#classes tbody tr:nth-child(2) .pick")
    index = page.evaluate("document.activeElement.closest('tr').dataset.class")
    page.keyboard.press("Enter")
    page.keyboard.press("v")
    assert page.evaluate("document.activeElement.closest('tr')?.dataset.class") == index
    assert page.locator("#said").get_attribute("aria-live") == "polite"


def test_dark_and_print(opened):
    page = opened("one")
    back = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(back)
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(back) != light
    page.emulate_media(media="print")
    assert page.evaluate(back) == light
    assert not page.is_visible("#controls")
    assert page.is_visible("#panels canvas[role=img]")


def test_a_notebook_s_frame_works(opened, browser, made, participants, files):
    """The frame has an origin of its own, without an address to write to."""
    explorer = Explorer(participants[:1], Asked(), side=SIDE)
    explorer.add(made / "a.png", made / "frame.html")
    (made / "frame.html").write_text(explorer.page()._repr_html_(), encoding="utf-8")
    files["frame"] = made / "frame.html"
    page = browser.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"file://{files['frame']}")
    frame = page.frame_locator("iframe")
    frame.locator("#classes .pick").nth(0).click()
    frame.locator("#classes .pick").nth(1).click()
    assert " and not " in frame.locator("#question").inner_text()
    assert complaints == []
    page.close()


@pytest.mark.parametrize(("task", "num"), [("binary", 1), ("multilabel", 6)])
def test_labels_and_one_logit(opened, made, files, task, num):
    torch.manual_seed(0)
    torch.save(build_network("contrex:convnet", {}, num_classes=num).state_dict(), made / f"{task}.pth")
    names = tuple("abcdef")[: max(2, num)]
    participant = Participant.of(task, None, Model("contrex:convnet", weights=made / f"{task}.pth"), names)
    explorer = Explorer([participant], Asked(task=task), side=SIDE)
    explorer.add(made / "a.png", made / f"{task}.html")
    files[task] = explorer.page().save(made / f"{task}.html")
    page = opened(task)
    photographer = Photographer(participant.named, Asked(["grad_cam"], task=task), side=SIDE)
    for kind, contrast in (("alone", None), ("mean", "mean"), ("weighted", "weighted"), ("classes&foils=0", 0)):
        go(page, f"#target=1&kind={kind}")
        why = photographer.explain(made / "a.png", Questions([1], [contrast])).rows[0][0]
        (record,) = records(page)
        close(cells(record), why.heatmap[0])
        assert asked(record)["value"] == pytest.approx(score_of(why), abs=1e-3)
        assert asked(record)["target"]["probability"] == pytest.approx(float(why.probability), abs=1e-5)
    page.click("#copy-python")
    exec(page.evaluate("navigator.clipboard.readText()"), scope := {})
    assert torch.equal(scope["why"].heatmap, why.heatmap)
    assert scope["why"].task == task
    page.click("#copy-command")
    assert page.evaluate("navigator.clipboard.readText()").endswith(f"--side {SIDE} --task {task}")


def test_names_and_files_are_only_text(opened, made, files):
    """A class that is called like a script is shown, and runs nothing."""
    evil = ("</script><script>document.title = 'gotcha'</script>", "<img src=x onerror=document.title='gotcha'>", "c")
    name = "<b>&'a`.png"
    shutil.copy(made / "a.png", made / name)
    torch.save(build_network("contrex:convnet", {}, num_classes=3).state_dict(), made / "evil.pth")
    participant = Participant.of(evil[1], None, Model("contrex:convnet", weights=made / "evil.pth"), evil)
    explorer = Explorer([participant], Asked(), side=SIDE)
    explorer.add(made / name, made / "evil.html")
    files["evil"] = explorer.page().save(made / "evil.html")
    page = opened("evil", "#target=0&kind=classes&foils=1")
    assert question(page) == f"why {evil[0]} and not {evil[1]}?"
    assert "gotcha" not in page.title().replace(question(page), "")
    assert page.locator("img, #page script").count() == 0
    page.click("#copy-python")
    exec(page.evaluate("navigator.clipboard.readText()"), scope := {})
    assert scope["why"].target.tolist() == [0]
    page.click("#copy-command")
    words = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert words[2] == str(made / name)
    assert words[words.index("--classes") + 1 : words.index("--classes") + 4] == list(evil)
    (made / name).unlink()


def test_a_finger_leaves_the_cell_chosen(browser, files):
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(f"file://{files['two']}")
    page.wait_for_selector("html[data-ready]")
    picture = page.locator("#panels canvas[role=img]").nth(1)
    picture.tap(position={"x": 3, "y": 3})
    assert page.inner_text("#cell-name") == "Cell in row 1, column 1"
    assert page.locator("#panels .here").nth(0).inner_text().startswith("cell in row 1, column 1: ")
    picture.tap(position={"x": 3, "y": 3})
    assert page.inner_text("#cell-name") == "All cells together"
    context.close()


def test_networks_with_other_grids_share_the_cursor(opened, made, files, participants):
    torch.manual_seed(2)
    torch.save(
        build_network("contrex:convnet", {"strides": "(2, 1, 1, 1)"}, num_classes=len(NAMES)).state_dict(),
        made / "f.pth",
    )
    finer = Participant.of(
        "finer", None, Model("contrex:convnet", {"strides": "(2, 1, 1, 1)"}, weights=made / "f.pth"), NAMES
    )
    explorer = Explorer([participants[0], finer], Asked(), side=SIDE)
    explorer.add(made / "a.png", made / "grids.html")
    files["grids"] = explorer.page().save(made / "grids.html")
    page = opened("grids", "#sort=maps")
    shapes = [tuple(explained(one, made / "a.png", 0).heatmap.shape[1:]) for one in (participants[0], finer)]
    assert shapes[0] != shapes[1]
    box = page.locator("#panels canvas[role=img]").nth(0).bounding_box()
    page.mouse.move(box["x"] + 0.83 * box["width"], box["y"] + 0.63 * box["height"])
    for (rows, columns), said in zip(shapes, page.locator("#panels .here").all_inner_texts(), strict=True):
        assert said.startswith(f"cell in row {int(0.63 * rows) + 1}, column {int(0.83 * columns) + 1}: ")
