"""What the server answers, to whom, and that its numbers are the explainers'."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import socket
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from contrex.data.views.squares import short_side
from contrex.errors import ArgumentError
from contrex.explain.named import build_explainer
from contrex.exploring import Explorer, Participant
from contrex.models import build_network
from contrex.photos import Asked
from contrex.serving import app as serving_app
from contrex.serving.app import Turns, app_of
from contrex.serving.change import Change, Stroke
from contrex.serving.guard import HEADER, HEADERS, Hosts
from contrex.serving.server import Server
from contrex.serving.studio import Studio
from contrex.settings import Model
from sampling import sampled

NAMES = tuple(f"class {index}" for index in range(30))
SIDE, TOKEN, BASE = 16, "the-token", "http://127.0.0.1:8000"
GIVEN = {HEADER: TOKEN, "origin": BASE}

OWN_EXPLAINER = """
from contrex import GradCAM

class Mine(GradCAM):
    pass
"""


def png(height=40, width=60, seed=0):
    pixels, file = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with weights, an explainer and a photo."""
    root = tmp_path_factory.mktemp("served")
    torch.manual_seed(0)
    torch.save(build_network("contrex:convnet", {}, num_classes=len(NAMES)).state_dict(), root / "net.pth")
    (root / "mine.py").write_text(OWN_EXPLAINER)
    (root / "cat.png").write_bytes(png())
    return root


@pytest.fixture(scope="module")
def participant(made):
    model = Model("contrex:convnet", weights=made / "net.pth")
    return Participant.of(str(made / "runs" / "one"), None, model, NAMES)


def studio_of(participant, *explainers, **options):
    return Studio(Explorer([participant], Asked(explainers or ("grad_cam",)), side=SIDE), **options)


@pytest.fixture(scope="module")
def studio(made, participant):
    found = studio_of(participant, "grad_cam", f"{made}/mine.py:Mine", "gradient")
    found.open(made / "cat.png")
    return found


@pytest.fixture(scope="module")
def client(studio):
    with TestClient(app_of(studio, TOKEN, Hosts("127.0.0.1", 8000)), base_url=BASE) as client:
        yield client


def change(client, given=None, **told):
    return client.post("/changes", json={"page": "a", "photo": "1", "change": {}, **told}, headers=given or GIVEN)


def maps_of(table):
    """The maps of a table, by class."""
    factors = np.frombuffer(base64.b64decode(table["factors"]), "<f4")
    whole = np.frombuffer(base64.b64decode(table["values"]), "<i2").reshape(len(factors), *table["shape"])
    maps = whole * factors[:, None, None]
    return dict(zip(table["classes"] or range(len(maps)), maps, strict=False))


@sampled(one_in=2)
@pytest.mark.parametrize(
    ("plain", "expected"),
    [
        ({}, Change()),
        ({"flip": True, "zoom": 1.25, "x": 0.6}, Change(flip=True, zoom=1.25, x=0.6)),
        ({"angle": -40, "fill": "mean", "erased": [{"points": [[0.2, 0.2], [0.5, 0.6]], "radius": 0.1}]},
         Change([Stroke([(0.2, 0.2), (0.5, 0.6)], 0.1)], "mean", angle=-40)),
    ],
)  # fmt: skip
def test_numbers_are_those_of_the_explainer_on_the_changed_picture(client, made, participant, plain, expected):
    reply = change(client, change=plain, classes=[29, 7]).json()
    seen = expected.of(short_side(Image.open(made / "cat.png").convert("RGB"), SIDE))
    classifier = participant.named.classifier
    images = classifier.normalise(torch.from_numpy(np.array(seen)).permute(2, 0, 1)[None] / 255)
    (answer,) = reply["answers"]
    for place, name in enumerate(("grad_cam", "grad_cam", "gradient")):
        why = build_explainer(classifier.network, name).classes(images, classes=[29, 7])
        found = maps_of(answer["tables"][place])
        for index, heatmap in zip((29, 7), why.heatmap[0], strict=True):
            np.testing.assert_allclose(found[index], heatmap, rtol=0, atol=1e-3 * float(heatmap.abs().max()))
    logits = np.frombuffer(base64.b64decode(answer["logits"]), "<f4")
    np.testing.assert_allclose(logits, why.logits[0], rtol=0, atol=1e-3)
    assert reply["image"].startswith("data:image/jpeg;base64,")


def test_the_page_has_a_policy_and_what_the_static_one_has(client):
    reply = client.get(f"/?token={TOKEN}")
    assert reply.status_code == 200
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert re.findall(r'(?:src|href)="([^"]*)"', reply.text) == ["data:,"]
    told = json.loads(re.search(r'id="content">(.*?)</script>', reply.text)[1])
    assert told["photos"][0] == "cat.png"
    assert told["live"]["ids"][0] == "1"
    assert TOKEN not in reply.text
    assert "access-control-allow-origin" not in reply.headers


def test_a_photo_is_taken_in_and_changed(client):
    reply = client.post("/photos?name=/home/someone/b.png", content=png(50, 40, 1), headers=GIVEN)
    assert reply.status_code == 200, reply.text
    told = reply.json()
    assert told["name"] == "b.png"
    assert len(told["photo"]["answers"]) == 5
    assert told["photo"]["records"] == []
    assert change(client, photo=told["id"], change={"angle": 3}).status_code == 200
    assert "b.png" in client.get(f"/?token={TOKEN}").text


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({HEADER: ""}, "The token is missing or wrong"),
        ({HEADER: "another"}, "The token is missing or wrong"),
        ({HEADER: "tökén".encode()}, "The token is missing or wrong"),
        ({"origin": "https://evil.example"}, "takes photos and changes from its own page only"),
        ({"origin": "null"}, "takes photos and changes from its own page only"),
        ({"origin": "http://127.0.0.1:9999"}, "takes photos and changes from its own page only"),
        ({"host": "evil.example:8000"}, "answers at the address that it printed"),
        ({"host": "evil.example"}, "answers at the address that it printed"),
        ({"host": "127.0.0.1:8001"}, "answers at the address that it printed"),
        ({"host": "127.0.0.1:8000@evil.example"}, "answers at the address that it printed"),
    ],
)
@pytest.mark.parametrize("path", ["/changes", "/photos", "/etc/passwd"])
def test_others_are_refused(client, headers, reason, path):
    reply = client.post(path, content=b"{}", headers={**GIVEN, **headers})
    assert reply.status_code == 403
    assert reason in reply.json()["error"]
    assert {name: reply.headers[name] for name in HEADERS} == HEADERS


def test_a_post_needs_an_origin_and_the_token_in_its_header(client):
    assert client.post("/changes", json={}, headers={HEADER: TOKEN}).status_code == 403
    assert client.post(f"/changes?token={TOKEN}", json={}, headers={"origin": BASE}).status_code == 403
    assert client.get("/").status_code == client.get("/?token=other").status_code == 403
    assert "open the whole address" in client.get("/").text
    assert client.get(f"/?token={TOKEN}", headers={"host": "evil.example:8000"}).status_code == 403
    assert client.options("/changes", headers={"origin": "https://evil.example"}).status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/changes", 405), ("PUT", "/photos", 405), ("DELETE", "/", 405), ("POST", "/", 405),
        ("GET", "/../../etc/passwd", 404), ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404), ("GET", "/cat.png", 404),
        ("GET", "//etc/passwd", 404), ("GET", "/photos/1", 404),
    ],
)  # fmt: skip
def test_there_is_nothing_else(client, method, path, status):
    reply = client.request(method, path, headers=GIVEN)
    assert reply.status_code == status
    assert "There is nothing at this address" in reply.text
    assert {name: reply.headers[name] for name in HEADERS} == HEADERS


def bomb():
    file = io.BytesIO()
    Image.new("1", (8000, 8000)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot read image 'x.jpg': the file is empty"),
        (b"Dear sir or madam, " * 20, "cannot read image 'x.jpg': it is none of JPEG, PNG"),
        (png()[:900], "cannot read image 'x.jpg'"),
        (bomb(), "cannot read image 'x.jpg': it has more than 50 megapixels"),
        (png(1, 300), "cannot read image 'x.jpg': it is 300 x 1 pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot read image 'x.jpg': it is none of"),
    ],
)
def test_bad_pictures_are_refused_as_those_of_files_are(client, content, reason):
    reply = client.post("/photos?name=x.jpg", content=content, headers=GIVEN)
    assert reply.status_code == 400
    assert reason in reply.json()["error"]


def test_bodies_are_counted_while_they_come(client, monkeypatch):
    monkeypatch.setattr(serving_app, "MOST_BYTES", 2**20)
    sent = []

    def body():
        for _ in range(64):
            sent.append(b"x" * 2**18)
            yield sent[-1]

    for content in (body(), b"x" * (2**20 + 1)):
        reply = client.post("/photos", content=content, headers=GIVEN)
        assert reply.status_code == 413
        assert reply.json()["error"] == "This is more than 1 MB, and the server takes no more: send a smaller file."


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"change": {"zoom": 99}}, "`zoom` must be a number from 0.5 to 8, got 99"),
        ({"photo": "77"}, "`photo` '77' is not kept any more, of 20: drop it again"),
        ({"photo": "../cat.png"}, "`photo` '../cat.png' is not kept any more"),
        ({"classes": [30]}, "`classes` 30 is none of the 30 classes, 0 to 29"),
        ({"classes": [True]}, "`classes` must be a list of whole numbers, got"),
        ({"classes": "all"}, "`classes` must be a list of whole numbers, got 'all'"),
    ],
)
def test_bad_changes_are_refused_in_words(client, told, reason):
    reply = change(client, **told)
    assert reply.status_code == 400
    assert reason in reply.json()["error"]


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000, b"9" * 5000])
def test_what_is_no_object_is_refused(client, content):
    reply = client.post("/changes", content=content, headers=GIVEN)
    assert reply.status_code == 400
    assert reply.json()["error"] == "the request must be an object in JSON."


def test_no_answer_has_a_path_of_the_machine(client, made):
    replies = [
        client.get(f"/?token={TOKEN}"), change(client, change={"flip": True}), change(client, photo="77"),
        client.post("/photos?name=x", content=b"no", headers=GIVEN), client.get("/"),
    ]  # fmt: skip
    for reply in replies:
        assert str(made) not in reply.text
        assert not re.search(r"/(tmp|home|work|usr|var)/", reply.text)
    assert '"mine.py:Mine"' in replies[0].text
    assert '"models":[{"name":"one","python":"","command":""}]' in replies[0].text


def test_an_error_that_nobody_meant_is_told_without_its_words(client, studio, monkeypatch, capsys):
    def fail(*asked):
        raise RuntimeError("in /home/someone/secret.py")

    monkeypatch.setattr(studio, "change", fail)
    reply = change(client)
    assert reply.status_code == 500
    assert reply.json()["error"] == "The server failed with RuntimeError; its terminal says where."
    assert "secret.py" in capsys.readouterr().err


def test_the_oldest_photos_go(participant):
    studio = studio_of(participant, most=2)
    first, *_ = [studio.add(f"{seed}.png", png(seed=seed))["id"] for seed in range(3)]
    assert studio.page().content.plain()["photos"] == ["1.png", "2.png"]
    with pytest.raises(ArgumentError, match=f"`photo` '{first}' is not kept any more, of 2: drop it again"):
        studio.change(first, Change())


def test_a_page_begins_without_a_photo(participant):
    text = studio_of(participant).page().html
    assert json.loads(re.search(r'id="content">(.*?)</script>', text)[1])["photos"] == []
    assert 'id="photo-0"' not in text


def test_the_newest_change_of_a_page_wins():
    """While one is computed, of three more of the same page the last is done, and that of another page too."""
    done, go = [], threading.Event()

    def work(name, waits=False):
        if waits:
            go.wait(5)
        done.append(name)
        return name

    async def all_of_them():
        turns = Turns()
        first = asyncio.create_task(turns.take("a", lambda: work("first", waits=True)))
        await asyncio.sleep(0.01)
        others = [
            asyncio.create_task(turns.take(page, lambda name=f"{page}{n}": work(name)))
            for n, page in enumerate(("a", "a", "b", "a"))
        ]
        await asyncio.sleep(0.01)
        go.set()
        return [await task for task in (first, *others)], turns

    found, turns = asyncio.run(all_of_them())
    assert found == ["first", None, None, "b2", "a3"]
    assert done == ["first", "b2", "a3"]
    assert turns._newest == {}


def test_names_of_a_server():
    local, given, everywhere = Hosts("127.0.0.1", 80), Hosts("box.example", 8000), Hosts("0.0.0.0", 8000)
    assert local.has("localhost")
    assert local.has("127.0.0.1:80")
    assert local.has("[::1]:80")
    assert given.has("box.example:8000")
    assert everywhere.has("192.168.1.5:8000")
    for hosts, name in ((local, "192.168.1.5"), (given, "evil.example:8000"), (everywhere, "evil.example:8000")):
        assert not hosts.has(name)
    assert not local.has("127.0.0.1:a")
    assert not local.has("")


def test_a_real_server_answers_and_stops(studio, monkeypatch):
    server = Server(studio)
    assert server.address == f"http://127.0.0.1:{server.port}/?token={server.token}"
    assert server.is_local
    assert len(server.token) >= 43
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        with urllib.request.urlopen(server.address, timeout=10) as reply:
            assert reply.headers["server"] is None
            assert b"Change the photo" in reply.read()
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(server.address + "x", timeout=10)
        with pytest.raises(ArgumentError, match=f"`port` {server.port} cannot be listened at: Address already in use"):
            Server(studio, port=server.port)
    finally:
        server.stop()
        thread.join(10)
        server.close()
    assert not thread.is_alive()
    with pytest.raises(ArgumentError, match="`port` must be from 0, any free one, to 65535, got 70000"):
        Server(studio, port=70000)

    def unknown(*asked, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_server", unknown)
    with pytest.raises(ArgumentError, match="`host` nowhere and `port` 0 cannot be listened at: Name or service not"):
        Server(studio, host="nowhere")
