"""A server of numpyvit on this machine, for tests: its address, and requests to it."""

import base64
import contextlib
import http.client
import io
import json
import threading
import time

import numpy as np
from conftest import tiny
from PIL import Image

from numpyvit.serve import Limits, Served, create_app


@contextlib.contextmanager
def serving(served, limits=None, **options):
    """The address of a running server, and its service."""
    import uvicorn

    app = create_app(served, limits or Limits(), **options)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", access_log=False, ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Client(port), app.state.service
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


class Client:
    def __init__(self, port):
        self.port, self.address = port, f"http://127.0.0.1:{port}"

    def get(self, path, **headers):
        return self.request("GET", path, None, headers)

    def post(self, path, body=b"", kind="image/png", **headers):
        return self.request("POST", path, body, {"Content-Type": kind, **headers} if kind else headers)

    def request(self, method, path, body, headers):
        """-> (status, JSON or text, headers)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers, encode_chunked=not isinstance(body, bytes | None))
            answer = connection.getresponse()
            text = answer.read().decode()
            is_json = answer.headers.get_content_type() == "application/json"
            return answer.status, json.loads(text) if is_json else text, answer.headers


def tiny_model(**options):
    """Served: a ViT for gray images of 8×8 pixels and three classes."""
    return Served(tiny(**options), threads=1)


def png(pixels, form="PNG"):
    Image.fromarray(pixels).save(buffer := io.BytesIO(), form)
    return buffer.getvalue()


def gray(seed=0, size=(8, 8)):
    """An image file of noise."""
    return png(np.random.default_rng(seed).integers(0, 256, size, np.uint8))


def form(*files, field="image"):
    """(body, content type) of a form with files."""
    lines = []
    for i, content in enumerate(files):
        head = f'--limit\r\nContent-Disposition: form-data; name="{field}"; filename="{i}.png"\r\n\r\n'
        lines.append(head.encode() + content + b"\r\n")
    return b"".join(lines) + b"--limit--\r\n", "multipart/form-data; boundary=limit"


def in_json(content):
    return json.dumps({"image": base64.b64encode(content).decode()}).encode()
