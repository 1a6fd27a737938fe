"""The live page in a browser: photos are dropped, erased and moved, and the numbers are Python's."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import contrex
from contrex.data.views.squares import short_side
from contrex.explain.named import build_explainer
from contrex.exploring import Explorer, Participant
from contrex.models import build_network
from contrex.photos import Asked
from contrex.serving.change import Change
from contrex.serving.server import Server
from contrex.serving.studio import Studio
from contrex.settings import Model

pytestmark = pytest.mark.slow

NAMES = tuple(f"class {chr(97 + index // 5)}{index % 5}, other name {index}" for index in range(30))
SIDE = 20
EDITED = "5"  # the view behind the page's own


def noise(height, width, seed):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)).resize((width, height))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("live")
    for seed, name in enumerate(("a.png", "b.png")):
        noise(80, 120, seed).save(root / name)
    for seed, name in enumerate(("base.pth", "cgc.pth")):
        torch.manual_seed(seed)
        network = build_network("contrex:convnet", {}, num_classes=len(NAMES))
        with torch.no_grad():
            [*network.parameters()][-2].mul_(50)  # of the last layer, so that probabilities differ
        torch.save(network.state_dict(), root / name)
    return root


@pytest.fixture(scope="module")
def participants(made):
    return [
        Participant.of(name, None, Model("contrex:convnet", weights=made / f"{name}.pth"), NAMES)
        for name in ("base", "cgc")
    ]


@pytest.fixture
def served(browser, made, participants):
    """Open a page of some models and photos, which may complain of nothing."""
    servers, contexts, complaints, refused = [], [], [], []

    def open_page(*photos, models=1, methods=("grad_cam",), **options):
        studio = Studio(Explorer(participants[:models], Asked(methods), side=SIDE))
        for name in photos:
            studio.open(made / name)
        server = Server(studio)
        thread = threading.Thread(target=server.run)
        thread.start()
        servers.append((server, thread))
        context = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.emulate_media(reduced_motion="reduce")
        page.goto(server.address)
        page.wait_for_selector("html[data-live]")
        page.refused = refused
        page.server = server
        return page

    yield open_page
    for context in contexts:
        context.close()
    for server, thread in servers:
        server.stop()
        thread.join(10)
        server.close()
    # a browser logs each answer that is no success
    assert [text for text in complaints if not any(status in text for status in refused)] == []


def settled(page):
    page.wait_for_selector("#working", state="hidden")


def box_of(page, model=0):
    frame = page.locator("#panels .frame").nth(model)
    frame.scroll_into_view_if_needed()
    return frame.bounding_box()


def drag(page, *places, model=0):
    """Go from place to place of a picture, in shares of its sides, with the button down."""
    box = box_of(page, model)
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=4)
    page.mouse.up()
    settled(page)


def rows(page, model=0):
    """The table of probabilities before and after, by class."""
    found = {}
    for row in page.locator("#beforehand table").nth(model).locator("tbody tr").all():
        index = int(row.get_attribute("data-class"))
        found[index] = tuple(row.locator("meter").evaluate_all("all => all.map((one) => one.value)"))
    return found


def record(page):
    """What the page knows of its question."""
    with page.expect_download() as found:
        page.click("#save-record")
    return json.loads(found.value.path().read_text())


def expected_of(participant, path, change, target, contrast=None, method="grad_cam"):
    seen = change.of(short_side(Image.open(path).convert("RGB"), SIDE))
    classifier = participant.named.classifier
    images = classifier.normalise(torch.from_numpy(np.array(seen)).permute(2, 0, 1)[None] / 255)
    return build_explainer(classifier.network, method)(images, target=target, contrast=contrast)


def check_numbers(page, participant, path, contrast=None, method="grad_cam"):
    """The page's map and probabilities are Python's of the same change, to a thousandth."""
    told = record(page)
    target = told["question"]["target"]["index"]
    why = expected_of(participant, path, Change.read(told["change"]), target, contrast, method)
    found = torch.tensor(told["question"]["map"]["cells"])
    heatmap = torch.nn.functional.adaptive_avg_pool2d(why.heatmap, found.shape)[0]
    torch.testing.assert_close(found, heatmap, rtol=0, atol=1e-3 * float(heatmap.abs().max()))
    assert told["question"]["target"]["probability"] == pytest.approx(float(why.probability), abs=1e-3)
    assert rows(page)[target][1] == pytest.approx(float(why.probability), abs=1e-3)
    return told


def pixel(page, x, y, model=0):
    """The colour of the drawn picture at a place."""
    return page.evaluate(
        """([model, x, y]) => {
            const canvas = document.querySelectorAll("#panels canvas[role=img]")[model];
            return [...canvas.getContext("2d").getImageData(x * canvas.width, y * canvas.height, 1, 1).data];
        }""",
        [model, x, y],
    )


def test_a_photo_is_chosen_on_an_empty_page(served, made):
    page = served()
    assert page.inner_text("h1:visible") == "Why this class, and not that one?"
    page.set_input_files("#file", made / "a.png")
    page.wait_for_selector("#page:not([hidden])")
    assert page.inner_text("#about").startswith("a.png")
    assert page.inner_text("#question").startswith("why class")


def test_a_photo_is_dropped(served, made):
    page = served("a.png", "b.png")
    page.select_option("#sort", "views")  # its order has the new photo too
    content = (made / "b.png").read_bytes()
    page.evaluate(
        """(bytes) => {
            const files = new DataTransfer();
            files.items.add(new File([Uint8Array.from(bytes)], "c.png", { type: "image/png" }));
            const how = { dataTransfer: files, bubbles: true, cancelable: true };
            for (const name of ["dragover", "drop"]) document.body.dispatchEvent(new DragEvent(name, how));
        }""",
        list(content),
    )
    page.wait_for_selector("text=c.png is shown.")
    assert page.locator("#photo option").all_inner_texts() == ["a.png", "b.png", "c.png"]
    assert page.inner_text("#place").endswith("of 3")
    assert not page.evaluate("document.body.classList.contains('dropping')")
    page.fill("#angle", "20")
    settled(page)
    assert page.inner_text("#about").startswith("c.png, as you changed it")
    page.select_option("#photo", "0")
    assert page.inner_text("#about").startswith("a.png; ")
    assert page.input_value("#angle") == "0"
    page.select_option("#photo", "2")
    page.select_option("#view", EDITED)
    assert page.input_value("#angle") == "20"


def test_what_is_no_photo_is_told_and_the_page_goes_on(served, made, tmp_path):
    page = served("a.png")
    page.refused.append("400")
    (tmp_path / "letter.jpg").write_text("Dear sir or madam, ")
    page.set_input_files("#file", [tmp_path / "letter.jpg", made / "b.png"])
    page.wait_for_selector("text=b.png is shown.")
    assert "cannot read image 'letter.jpg': it is none of JPEG" in page.inner_text("#live-error")
    assert page.locator("#live-error").get_attribute("role") == "alert"
    (tmp_path / "large.jpg").write_bytes(b"\0" * (33 * 2**20))
    page.set_input_files("#file", tmp_path / "large.jpg")
    page.wait_for_selector("text=large.jpg has 33 MB, and the server takes 32")


def test_a_server_that_is_gone_is_told(served):
    page = served("a.png")
    page.refused.append("ERR_")
    page.server.stop()
    page.wait_for_timeout(500)
    page.server.close()
    page.fill("#angle", "20")
    page.wait_for_selector("text=The server does not answer. Is contrex explore --serve still running?")


@pytest.mark.parametrize("fill", ["blur", "mean"])
def test_erasing_changes_probabilities_and_keeps_the_question(served, made, participants, fill):
    page = served("a.png", methods=("grad_cam", "gradient"))
    page.locator("#classes .pick").nth(0).click()
    page.locator("#classes .pick").nth(1).click()
    page.fill("#share", "0.5")
    question, before = page.inner_text("#question"), page.inner_text("#panels .limits")
    page.select_option("#fill", fill)
    settled(page)
    page.check("input[value=erase]")
    drag(page, (0.3, 0.4), (0.6, 0.5))
    assert page.inner_text("#question") == question
    assert page.inner_text("#panels .limits") != before
    page.fill("#share", "1")
    told = record(page)
    foil = told["question"]["foils"][0]["index"]
    assert len(told["change"]["erased"]) == 1
    assert told["change"]["fill"] == fill
    check_numbers(page, participants[0], made / "a.png", foil)
    target = told["question"]["target"]["index"]
    assert rows(page)[target][0] != pytest.approx(rows(page)[target][1], abs=1e-4)
    page.select_option("#method", "1")
    check_numbers(page, participants[0], made / "a.png", foil, "gradient")
    said = page.inner_text("#said")
    assert re.search(r"base: [\d.<%]+ before, [\d.<%]+ after", said)


def test_undo_goes_back_to_the_same_numbers(served, made, participants):
    page = served("a.png")
    page.check("input[value=erase]")
    drag(page, (0.3, 0.4), (0.6, 0.5))
    first, picture = record(page), page.evaluate("document.querySelector('#panels canvas[role=img]').toDataURL()")
    page.fill("#zoom", "1")
    settled(page)
    page.check("#flip")
    settled(page)
    second = record(page)
    assert second["change"]["zoom"] == 2
    assert second["question"]["map"] != first["question"]["map"]
    page.click("#undo")
    settled(page)
    page.keyboard.press("z")
    settled(page)
    assert record(page) == first
    assert page.evaluate("document.querySelector('#panels canvas[role=img]').toDataURL()") == picture
    page.click("#undo")
    settled(page)
    assert page.input_value("#view") == "0"
    assert page.is_disabled("#undo")
    page.fill("#angle", "10")
    settled(page)
    page.click("#reset")
    settled(page)
    assert page.input_value("#view") == "0"
    assert page.input_value("#angle") == "0"
    page.click("#undo")
    settled(page)
    assert page.input_value("#angle") == "10"


@pytest.mark.parametrize("control", [("zoom", "1.2"), ("angle", "-35"), ("x", "0.3"), ("y", "0.8"), ("flip", None)])
def test_moving_changes_the_map(served, made, participants, control):
    page = served("a.png")
    before = page.evaluate("document.querySelector('#panels canvas[role=img]').toDataURL()")
    name, value = control
    page.check("#flip") if value is None else page.fill(f"#{name}", value)
    settled(page)
    assert page.evaluate("document.querySelector('#panels canvas[role=img]').toDataURL()") != before
    check_numbers(page, participants[0], made / "a.png")
    assert page.locator("#panels canvas[role=img]").evaluate("one => one.style.transform") == ""
    page.check("#carried")
    assert "agree by" in page.inner_text("#panels")


def test_half_a_turn_moves_the_map_of_the_whole_picture_along(served, made, participants):
    page = served("a.png")
    page.fill("#angle", "180")
    settled(page)
    told = record(page)
    page.check("#carried")
    moved = torch.tensor(record(page)["question"]["map"]["cells"])
    whole = expected_of(participants[0], made / "a.png", Change(), told["question"]["target"]["index"]).heatmap[0]
    torch.testing.assert_close(moved, whole.flip(0, 1), rtol=0, atol=1e-3 * float(whole.abs().max()))


def test_a_mouse_moves_and_enlarges_and_the_brush_erases_where_it_is(served, made, participants):
    """On a turned, mirrored and enlarged picture too."""
    page = served("a.png")
    page.check("input[value=move]")
    drag(page, (0.5, 0.5), (0.7, 0.4))
    moved = record(page)["change"]
    assert (moved["x"], moved["y"]) == pytest.approx((0.3, 0.6), abs=0.01)
    box = box_of(page)
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.4 * box["height"])
    page.mouse.wheel(0, -400)
    page.wait_for_timeout(100)
    settled(page)
    larger = record(page)["change"]
    assert larger["zoom"] == pytest.approx(2, abs=0.01)
    assert larger["x"] + 0.2 / 2 == pytest.approx(0.5, abs=0.01)  # what was under the pointer is still there
    assert larger["y"] - 0.1 / 2 == pytest.approx(0.5, abs=0.01)
    page.fill("#angle", "40")
    page.check("#flip")
    page.select_option("#fill", "mean")
    settled(page)
    page.fill("#opacity", "0")
    page.check("input[value=erase]")
    drag(page, (0.25, 0.7), (0.26, 0.7))
    page.mouse.move(0, 0)
    mean = np.asarray(Image.open(made / "a.png")).mean((0, 1))
    assert np.abs(np.array(pixel(page, 0.25, 0.7)[:3]) - mean).max() < 6
    check_numbers(page, participants[0], made / "a.png")


def test_keys_erase_a_cell(served, made, participants):
    page = served("a.png")
    page.check("input[value=erase]")
    page.focus("#panels canvas[role=img]")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("e")
    page.wait_for_selector("#beforehand table")
    settled(page)
    (stroke,) = record(page)["change"]["erased"]
    assert len(stroke["points"]) == 1
    check_numbers(page, participants[0], made / "a.png")
    nameless = page.evaluate("""() => [...document.querySelectorAll("button, select, input, canvas[role=img]")]
        .filter((one) => !one.getAttribute("aria-label") && !one.textContent.trim())
        .filter((one) => !one.labels?.[0]?.textContent.trim())
        .map((one) => one.outerHTML)""")
    assert nameless == []
    assert page.get_attribute("#zoom", "aria-valuetext").endswith("1.00")


def test_a_change_begins_with_the_view_that_is_shown(served, made, participants):
    page = served("a.png")
    page.select_option("#view", "2")  # zoomed in
    page.check("input[value=erase]")
    drag(page, (0.5, 0.5), (0.6, 0.5))
    told = check_numbers(page, participants[0], made / "a.png")
    assert told["change"]["zoom"] == pytest.approx(1 / 0.7)
    assert told["change"]["erased"][0]["points"][0] == pytest.approx([0.5, 0.5], abs=0.01)


def test_models_are_changed_together(served, made, participants):
    page = served("a.png", models=2)
    page.check("input[value=erase]")
    drag(page, (0.3, 0.4), (0.6, 0.5), model=1)
    for model in range(2):
        shown = page.locator("#beforehand table").nth(model)
        assert shown.locator("caption").inner_text() == f"Before and after: {participants[model].name}"
        assert any(abs(before - after) > 1e-4 for before, after in rows(page, model).values())


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("models", [1, 2])
def test_nothing_is_wider_than_the_page(served, width, models):
    page = served("a.png", models=models)
    page.fill("#angle", "20")
    settled(page)
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for tool in ("erase", "move"):
        page.check(f"input[value={tool}]")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_and_print(served):
    page = served("a.png")
    page.fill("#angle", "20")
    settled(page)
    back = "getComputedStyle(document.getElementById('change')).backgroundColor"
    light = page.evaluate(back)
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(back) != light
    page.emulate_media(media="print")
    assert not page.is_visible("#file")
    assert not page.is_visible("#zoom")
    assert page.is_visible("#beforehand table")


def test_two_fingers_enlarge_and_turn(served, made, participants):
    page = served("a.png", viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    page.check("input[value=move]")
    page.locator("#panels .frame").scroll_into_view_if_needed()
    box = box_of(page)
    touches = page.context.new_cdp_session(page)

    def touch(kind, *places):
        points = [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in places]
        touches.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (0.4, 0.5), (0.6, 0.5))
    for share in (0.3, 0.6, 1.0):
        touch("touchMove", (0.4 - 0.1 * share, 0.5), (0.6 + 0.1 * share, 0.5))
    touch("touchEnd")
    settled(page)
    told = check_numbers(page, participants[0], made / "a.png")
    assert told["change"]["zoom"] == pytest.approx(2, abs=0.05)
    assert (told["change"]["x"], told["change"]["y"]) == pytest.approx((0.5, 0.5), abs=0.02)


def test_the_command_serves_and_ends_at_ctrl_c(made, tmp_path):
    words = ["--model", "contrex:convnet", "--model.weights", str(made / "base.pth"), "--side", "32"]
    command = [sys.executable, "-m", "contrex", "explore", str(made / "a.png"), *words, "--serve"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(contrex.__file__).parents[1])},
    ) as process:
        address = process.stdout.readline().removeprefix("explorer: ").strip()
        with urllib.request.urlopen(address, timeout=20) as reply:
            assert reply.status == 200
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert said == ""
    assert list(tmp_path.iterdir()) == []


def test_a_photo_of_a_camera_is_read(made, participants):
    """Sent as it is: turned upright by its EXIF, and large."""
    picture, file = noise(2000, 3000, 3), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(file, "JPEG", exif=exif)
    told = Studio(Explorer(participants[:1], Asked(), side=SIDE)).add("camera.jpg", file.getvalue())
    assert told["photo"]["width"] < told["photo"]["height"]
