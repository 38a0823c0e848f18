"""A model behind HTTP: what it answers, what it refuses, and that it goes on."""

import asyncio
import base64
import contextvars
import importlib
import importlib.util
import io
import json
import shutil
import socket
import subprocess
import threading
import time
from urllib.parse import quote

import numpy as np
import pytest
from conftest import call_in_threads
from pages import ROOT, blocks
from PIL import Image

pytest.importorskip("uvicorn")

import uvicorn
from served_model import form, gray, in_json, png, serving, tiny_model

import numpyvit as nv
from numpyvit import cli
from numpyvit.errors import ConfigError
from numpyvit.functional import softmax
from numpyvit.serve import Limits, Served
from numpyvit.serve.batching import Batcher
from numpyvit.serve.server import following, serve, stamp
from numpyvit.weights.checkpoint import save_checkpoint

IMAGE = gray()
SMALL = Limits(max_body_mb=0.02, max_megapixels=1, max_images=3)


@pytest.fixture(scope="module")
def client():
    with serving(tiny_model(), SMALL) as (client, _):
        yield client


def pixels_of(content):
    """(1, H, W) of a gray image file."""
    return np.array(Image.open(io.BytesIO(content)))[None]


def numbers(answer):
    values = np.frombuffer(base64.b64decode(answer["values"]), "<u2") / 65535
    return values.reshape(answer["shape"])


# ---- answers --------------------------------------------------------------------------------------------------------


def test_an_image_is_answered_alike_however_it_is_sent(client):
    served = tiny_model()
    logits = served.model(served.model.preprocessing.normalize(pixels_of(IMAGE)[None]))
    status, found, _ = client.post("/predict", IMAGE)
    assert status == 200 and [row["class"] for row in found["classes"]] == [
        f"class {i}" for i in np.argsort(-logits[0])
    ]
    by_index = [row["probability"] for row in sorted(found["classes"], key=lambda row: row["index"])]
    np.testing.assert_allclose(by_index, softmax(logits)[0], atol=1e-6)
    assert client.post("/predict", *form(IMAGE))[1] == client.post("/predict", in_json(IMAGE), "application/json")[1]
    assert client.post("/predict", *form(IMAGE))[1] == found
    assert client.post("/predict?top=1", IMAGE)[1] == {"classes": found["classes"][:1]}


def test_several_files_of_a_form_are_answered_in_order(client):
    images = [gray(seed) for seed in range(3)]
    alone = [client.post("/predict", image)[1] for image in images]
    together = client.post("/predict", *form(*images))[1]["images"]
    shares = [[row["probability"] for row in answer["classes"]] for answer in (*alone, *together)]
    np.testing.assert_allclose(shares[:3], shares[3:], atol=1e-6)
    assert len({json.dumps(answer) for answer in alone}) == 3


def test_the_image_as_the_model_sees_it_comes_along_where_it_is_wanted(client):
    image = client.post("/predict?image=true", png(np.full((16, 16, 3), 90, np.uint8)))[1]["image"]
    pixels = pixels_of(base64.b64decode(image["url"].removeprefix("data:image/png;base64,")))
    np.testing.assert_array_equal(pixels, np.full((1, 8, 8), 90))


def test_the_requests_that_docs_print_are_answered(tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    for name in ("seven.png", "three.png"):
        (tmp_path / name).write_bytes(IMAGE)
    printed = [line for text in blocks((ROOT / "docs" / "serve.md").read_text(), "") for line in text.splitlines()]
    commands = [line for line in printed if line.startswith("curl ")]
    with serving(tiny_model()) as (client, _):
        for command in commands:
            typed = command.replace("http://127.0.0.1:8000", client.address)
            done = subprocess.run(["bash", "-c", typed], cwd=tmp_path, capture_output=True, timeout=60)
            assert done.returncode == 0 and {"classes", "images"} & set(json.loads(done.stdout)), typed
    assert len(commands) == 3


def test_info_tells_of_the_model_and_nothing_of_the_machine(client):
    assert client.get("/health")[:2] == (200, {"status": "ok"})
    assert client.get("/info")[1] == {
        "model": "VisionTransformer",
        "kind": "classification",
        "classes": ["class 0", "class 1", "class 2"],
        "input_shape": [1, 8, 8],
        "attention": {"layers": 2, "rollout": True},
        "epoch": None,
        "version": 0,
        "watched": False,
    }


def test_attention_is_that_of_the_library(client):
    served = tiny_model()
    x = served.model.preprocessing.normalize(pixels_of(IMAGE))
    maps = nv.viz.attention_maps(served.model, x)
    for layer in (1, 2):
        answer = client.post(f"/attention?layer={layer}", IMAGE)[1]
        assert answer["grid"] == [2, 2] and answer["tokens"] == [[-1, 0, 1, 2, 3]]
        np.testing.assert_allclose(numbers(answer)[:, 0], maps[layer - 1], atol=1e-5)
    head = client.post("/attention?layer=1&head=2", IMAGE)[1]
    np.testing.assert_allclose(numbers(head)[0, 0], maps[0, 1], atol=1e-5)
    rollout = client.post("/attention?rollout=true", IMAGE)[1]
    np.testing.assert_allclose(numbers(rollout)[0, 0], nv.viz.attention_rollout(maps), atol=1e-5)


def test_attention_of_a_swin_comes_window_by_window():
    options = dict(img_size=16, patch_size=2, in_chans=1, num_classes=3, embed_dim=8, depths=(2, 1), num_heads=(2, 4))
    model = nv.SwinTransformer(**options, window_size=4)
    image = gray(size=(16, 16))
    x = model.preprocessing.normalize(pixels_of(image))
    with serving(Served(model)) as (client, _):
        for layer in range(3):
            answer = client.post(f"/attention?layer={layer + 1}", image)[1]
            rows, columns = answer["grid"]
            values, tokens = numbers(answer), np.array(answer["tokens"])
            looks = nv.viz.attention_grids(model, x, patch=(2, 5))[layer] / tokens.shape[1]
            token = (2 >> (layer // 2)) * columns + (5 >> (layer // 2))
            (window,), (own,) = np.nonzero(tokens == token)
            found = np.zeros((len(values), rows * columns))
            found[:, tokens[window]] = values[:, window, own]
            np.testing.assert_allclose(found.reshape(looks.shape), looks, atol=1e-4)
        assert client.post("/attention?rollout=true", image)[0] == 422


def test_a_detector_answers_boxes_and_what_each_query_looked_at():
    model = nv.create_model("detr_micro_64", num_classes=2)
    image = png(np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8))
    with serving(Served(model)) as (client, _):
        assert client.post("/predict", image)[:2] == (200, {"boxes": []})
        answer = client.post("/attention?layer=1", image)[1]
        pixels, size = Served(model).read(io.BytesIO(image))
        assert size == (32, 48)
        found = nv.viz.query_attention_maps(model, model.preprocessing.normalize(pixels))
        query = answer["queries"][0]
        assert {"query", "class", "index", "score", "left", "top", "right", "bottom"} == set(query)
        np.testing.assert_allclose(numbers(answer)[:, 0], found[0][:, query["query"] - 1], atol=1e-4)
        assert client.get("/info")[1]["kind"] == "detection"


# ---- batches --------------------------------------------------------------------------------------------------------


def test_concurrent_requests_share_batches_and_are_answered_as_alone():
    images, sizes, served = [gray(seed) for seed in range(16)], [], tiny_model()
    expected = [served.predict([(pixels_of(image), None)])[0]["classes"] for image in images]
    run, served.run = served.run, lambda x: (sizes.append(len(x)), run(x))[1]
    with serving(served, Limits(max_wait_ms=500)) as (client, _):
        turns = iter(range(16))
        answers = call_in_threads(16, lambda: (i := next(turns), client.post("/predict", images[i])))
    assert sum(sizes) == 16 and len(sizes) < 8
    for i, (status, found, _) in answers:
        assert status == 200
        for row, alone in zip(found["classes"], expected[i]):
            assert row["class"] == alone["class"] and row["probability"] == pytest.approx(
                alone["probability"], abs=1e-6
            )


def test_an_item_waits_no_longer_than_max_wait_for_others():
    started = threading.Event()
    batcher = Batcher(lambda items: (started.set(), items)[1], max_batch=1000, max_wait=0.05)
    assert batcher.submit(1).result(10) == 1 and started.is_set()
    batcher.close()


def test_the_thread_that_works_has_what_was_chosen_around_it():
    """Such as a set of kernels."""
    choice = contextvars.ContextVar("choice", default="none")
    before = choice.set("mine")
    batcher = Batcher(lambda items: [choice.get() for _ in items])
    choice.reset(before)
    assert batcher.submit(0).result(10) == "mine"
    batcher.close()


def test_an_item_that_fails_spoils_no_other_of_its_batch():
    def work(items):
        if 0 in items:
            raise ZeroDivisionError
        return [1 / item for item in items]

    batcher = Batcher(work, max_batch=8, max_wait=0.2)
    futures = [batcher.submit(item) for item in (2, 0, 4)]
    assert futures[0].result(10) == 0.5 and futures[2].result(10) == 0.25
    with pytest.raises(ZeroDivisionError):
        futures[1].result(10)
    batcher.close()


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "said", "body", "kind"),
    [
        (415, "send an image", IMAGE, "text/plain"),
        (415, "nothing", IMAGE, None),
        (415, "urlencoded", b"image=1", "application/x-www-form-urlencoded"),
        (413, "more than 20,000 bytes", bytes(20_001), "image/png"),
        (413, "more than 20,000 bytes", (bytes(1000) for _ in range(30)), "image/png"),
        (413, "2000×1000 pixels", png(np.zeros((1000, 2000), np.uint8)), "image/png"),
        (422, "is not an image", b"", "image/png"),
        (422, "is not an image", b"GIF is what I say", "image/gif"),
        (422, "is not an image", b'{"image": 1}', "image/png"),
        (422, "can be read", IMAGE[:60], "image/png"),
        (422, "image 2", *form(IMAGE, b"no image")),
        (400, "no files in its field", *form(IMAGE, field="picture")),
        (413, "4 files, expected at most 3", *form(*[IMAGE] * 4)),
        (400, "boundary", b"", "multipart/form-data"),
        (400, "cannot be read", b"nothing", "multipart/form-data; boundary=limit"),
        (400, "base64", b"{", "application/json"),
        (400, "base64", b"[]", "application/json"),
        (400, "base64", b'{"image": 5}', "application/json"),
        (400, "base64", b'{"image": "\xc3\xa9"}', "application/json"),
        (400, "base64", b"[" * 15_000, "application/json"),
        (400, "base64", b"\xff\xfe", "application/json"),
        (400, "base64", b'{"image": "/etc/passwd?"}', "application/json"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_request_that_cannot_be_answered_is_told_why(client, status, said, body, kind):
    found, answer, headers = client.post("/predict", body, kind)
    assert found == status and list(answer) == ["error"] and said in answer["error"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    ["/predict?top=0", "/predict?top=x", "/predict?top=-1", "/predict?image=1", "/attention?layer=", "/predict?top=²"],
)
def test_a_wrong_option_in_the_address_is_400(client, path):
    assert client.post(quote(path, safe="/?="), IMAGE)[0] == 400


@pytest.mark.parametrize("path", ["/attention?layer=3", "/attention?head=3"])
def test_a_layer_or_head_that_is_not_there_is_422(client, path):
    status, answer, _ = client.post(path, IMAGE)
    assert status == 422 and "there are 2, counted from 1" in answer["error"]


def test_other_addresses_and_methods_are_refused(client):
    assert client.get("/nothing")[:2] == (404, {"error": "Not Found"})
    assert client.get("/../serve/app.py")[0] == 404 and client.get("/%2e%2e/app.py")[0] == 404
    assert client.get("/predict")[0] == 405


def test_pages_of_others_cannot_ask(client):
    """Neither from another origin, nor by a name of theirs that points to this machine."""
    assert client.get("/info", Origin="http://elsewhere.example")[0] == 403
    assert client.get("/info", Origin="null")[0] == 403
    assert client.get("/info", Origin=client.address)[0] == 200
    status, answer, headers = client.get("/info", Host="elsewhere.example:8000")
    assert status == 400 and answer["error"] == "this server is not elsewhere.example:8000; ask localhost"
    assert headers["x-content-type-options"] == "nosniff"
    for host in ("127.0.0.1.elsewhere.example", "localhost:1:2", "", "[::2]"):
        assert client.get("/info", Host=host)[0] == 400
    for host in ("localhost", "LocalHost:1", "127.0.0.1:8000", "[::1]:8000", "[::1]"):
        assert client.get("/info", Host=host)[0] == 200


def test_open_to_other_machines_it_answers_to_any_name():
    with serving(tiny_model(), hosts=["*"]) as (client, _):
        assert client.get("/info", Host="elsewhere.example")[0] == 200


def test_the_page_may_load_nothing_from_elsewhere(client):
    status, text, headers = client.get("/")
    assert status == 200 and "http://" not in text and "https://" not in text
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy


class Slow(Served):
    """A model that waits until it may go on."""

    def __init__(self, model):
        super().__init__(model, threads=1)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def predict(self, requests):
        self.begun.set()
        self.go_on.wait(30)
        return super().predict(requests)


def test_more_requests_than_may_wait_are_told_to_come_again():
    slow = Slow(tiny_model().model)
    with serving(slow, Limits(queue=1)) as (client, _):
        first = threading.Thread(target=lambda: client.post("/predict", IMAGE))
        first.start()
        assert slow.begun.wait(30)
        status, answer, headers = client.post("/predict", IMAGE)
        assert status == 503 and headers["retry-after"] == "1" and "again" in answer["error"]
        assert client.get("/health")[0] == 200
        slow.go_on.set()
        first.join()
        assert client.post("/predict", IMAGE)[0] == 200


def test_an_answer_that_takes_too_long_is_504():
    slow = Slow(tiny_model().model)
    with serving(slow, Limits(timeout=0.3)) as (client, _):
        assert client.post("/predict", IMAGE)[0] == 504
        slow.go_on.set()
        assert client.post("/predict", IMAGE)[0] == 200


def test_a_request_that_arrives_too_slowly_is_408():
    with serving(tiny_model(), Limits(timeout=0.3)) as (client, _):
        head = (
            f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: {len(IMAGE)}\r\n"
        )
        with socket.create_connection(("127.0.0.1", client.port), timeout=30) as peer:
            peer.sendall(head.encode() + b"\r\n" + IMAGE[:10])
            assert b" 408 " in peer.recv(1000)
        assert client.post("/predict", IMAGE)[0] == 200


def test_a_failure_inside_is_500_without_its_details():
    class Broken(Served):
        def predict(self, requests):
            raise RuntimeError("a secret")

    with serving(Broken(tiny_model().model)) as (client, _):
        status, answer, _ = client.post("/predict", IMAGE)
        assert status == 500 and "secret" not in answer["error"]
        assert client.get("/health")[0] == 200


# ---- hostile bodies -------------------------------------------------------------------------------------------------

BROKEN = IMAGE[:45]  # its header is whole, its pixels are not there
HOSTILE = [(BROKEN, "image/png"), form(BROKEN, BROKEN), (in_json(BROKEN), "application/json")]
CHARSETS = ("utf-7", "idna", "undefined", "base64", "unicode_escape", "punycode", "none")


def hostile(count, seed):
    """(body, content type) of requests with one to five changes, and no image that could be read."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        content, kind = HOSTILE[i % 3]
        body = bytearray(content)
        for _ in range(int(rng.integers(1, 6))):
            place, length = int(rng.integers(0, len(body) + 1)), int(rng.integers(1, 40))
            change = rng.choice(["noise", "cut", "repeat", "end"])
            if change == "noise":
                body[place : place + length] = rng.bytes(length)
            elif change == "cut":
                del body[place : place + length]
            elif change == "repeat":
                body[place:place] = body[place : place + length]
            else:
                del body[place:]
        if rng.random() < 0.2:
            kind = HOSTILE[int(rng.integers(3))][1]
        if rng.random() < 0.1:
            kind += f"; charset={rng.choice(CHARSETS)}"
        yield bytes(body), kind


def check_hostile(client, count, seed):
    for i, (body, kind) in enumerate(hostile(count, seed)):
        path = ("/predict", "/attention", "/predict?image=true")[i % 3]
        status, answer, _ = client.post(path, body, kind)
        assert 400 <= status < 500 and list(answer) == ["error"], (status, kind, body)
    assert client.post("/predict", IMAGE)[0] == 200


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_hostile_bodies_are_refused_and_the_server_lives(client):
    check_hostile(client, 100, 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("seed", range(4))
def test_many_hostile_bodies_are_refused_and_the_server_lives(client, seed):
    check_hostile(client, 500, seed + 1)


# ---- under load -----------------------------------------------------------------------------------------------------


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.serve")


def test_the_benchmark_asks_with_many_clients_at_once(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark, "_WARM_UP", 0.1)
    message = benchmark.request((8, None, 1))
    with serving(tiny_model()) as (client, _):
        figures = asyncio.run(benchmark.load(client.port, message, 8, 0.4, lambda: 100.0))
    assert figures["errors"] == 0 and figures["requests/s"] > 0 and figures["median ms"] <= figures["p99 ms"]
    assert benchmark.troubles(figures) == []


def test_the_benchmark_tells_growth_from_noise_and_counts_errors(benchmark):
    def troubles(memory, errors=0):
        first, last = benchmark.quarters(memory)
        return benchmark.troubles({"errors": errors, "MiB at first": first, "MiB at last": last})

    assert troubles([130.0, 150, 131, 129, 131, 130, 170, 131] * 10) == []
    assert troubles(list(range(100, 120))) == ["the memory grew by 15 MiB"]
    assert troubles([100.0], errors=3) == ["3 answers were not 200"]


# ---- watching, and the command line ---------------------------------------------------------------------------------


def test_weights_that_are_written_again_are_loaded_and_broken_ones_are_not(tmp_path, capsys):
    file, loaded = tmp_path / "last.safetensors", []
    file.write_bytes(b"1")

    def load():
        if file.read_bytes() == b"broken":
            raise ConfigError("broken")
        return file.read_bytes()

    def wait_for(condition):
        end = time.monotonic() + 30
        while not condition() and time.monotonic() < end:
            time.sleep(0.01)
        assert condition()

    said = []
    with following(file, stamp(file), load, loaded.append, seconds=0.01):
        (tmp_path / "new").write_bytes(b"broken")
        (tmp_path / "new").replace(file)
        wait_for(lambda: said.append(capsys.readouterr().err) or "weights before are kept" in "".join(said))
        (tmp_path / "new").write_bytes(b"22")
        (tmp_path / "new").replace(file)
        wait_for(lambda: loaded == [b"22"])


def test_the_next_batch_after_a_replacement_is_the_new_models():
    with serving(tiny_model()) as (client, service):
        before = client.post("/predict", IMAGE)[1]
        service.replace(tiny_model(seed=7))
        assert client.post("/predict", IMAGE)[1] != before
        assert client.get("/info")[1]["version"] == 1


def test_the_command_serves_a_checkpoint_until_it_is_stopped(tmp_path, monkeypatch, capsys):
    save_checkpoint(tmp_path / "best.safetensors", nv.create_model("vit_micro_patch2_8", num_classes=4), epoch=3)
    served = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: served.append(server.config.app.state.service))
    args = ["serve", "--checkpoint", str(tmp_path), "--port", "0", "--max-batch", "4", "--timeout", "2.5"]
    assert cli.main(args) == 0
    assert "serving at http://127.0.0.1:" in capsys.readouterr().out
    assert served[0].limits == Limits(max_batch=4, timeout=2.5)
    assert served[0].served.info()["epoch"] == 3 and served[0].served.info()["model"] == "vit_micro_patch2_8"


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1, port {port}"):
            serve(tiny_model, port=port)


def test_without_the_extra_the_command_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.main(["serve", "--checkpoint", str(tmp_path)]) == 2
    assert "pip install 'numpyvit[serve]'" in capsys.readouterr().err


def test_a_model_without_classes_is_refused():
    with pytest.raises(ConfigError, match="no classes"):
        tiny_model(num_classes=0)
