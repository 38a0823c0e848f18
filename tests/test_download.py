"""Downloads, from a server on this machine that behaves well or badly."""

import hashlib
import http.client
import http.server
import os
import threading
import urllib.request

import pytest

from numpyvit import data
from numpyvit.data.download import Published, download, https_only
from numpyvit.errors import DataError

CONTENT = bytes(range(256)) * 8192  # 2 MiB
FILE = Published("file.gz", len(CONTENT), hashlib.md5(CONTENT).hexdigest())


class Loopback(urllib.request.HTTPSHandler):
    """https without encryption, so that a server on this machine is enough."""

    def https_open(self, request):
        return self.do_open(http.client.HTTPConnection, request)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.address, self.asked, self.stopping = f"127.0.0.1:{self.server_port}", [], threading.Event()

    def handle_error(self, request, client_address):
        """A client that hangs up is no error."""


class Handler(http.server.BaseHTTPRequestHandler):
    """The first part of the path says how to behave."""

    def do_GET(self):
        range_ = self.headers["Range"]
        self.server.asked.append((self.path, range_))
        self.first = int(range_.removeprefix("bytes=").removesuffix("-")) if range_ else 0
        getattr(self, self.path.split("/")[1])()

    def log_message(self, *args):
        pass

    def head(self, status=200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def send_rest(self, content=CONTENT):
        last = f"bytes {self.first}-{len(content) - 1}/{len(content)}"
        self.head(206 if self.first else 200, Content_Length=len(content) - self.first, Content_Range=last)
        self.wfile.write(content[self.first :])

    def good(self):
        self.send_rest()

    def no_ranges(self):
        self.head(Content_Length=len(CONTENT))
        self.wfile.write(CONTENT)

    def missing(self):
        self.send_error(404)

    def other(self):
        self.send_rest(bytes(len(CONTENT)))

    def shorter(self):
        self.send_error(416) if self.first > 1000 else self.send_rest(CONTENT[:1000])

    def cut(self):
        """A megabyte, then the connection ends, whatever was announced."""
        self.head(206 if self.first else 200, Content_Length=len(CONTENT), Content_Range=f"bytes {self.first}-/*")
        self.wfile.write(CONTENT[self.first : self.first + (1 << 20)])

    def endless(self):
        self.head()
        while True:
            self.wfile.write(CONTENT)

    def drip(self):
        self.head(Content_Length=len(CONTENT))
        while not self.server.stopping.wait(0.05):
            self.wfile.write(b"x")

    def silent(self):
        self.head(Content_Length=len(CONTENT))
        self.server.stopping.wait(60)

    def to_http(self):
        self.head(302, Location=f"http://{self.server.address}/good/file.gz")

    def to_https(self):
        self.head(302, Location=f"https://{self.server.address}/good/file.gz")

    def to_file(self):
        self.head(302, Location="file:///etc/passwd")

    def in_circles(self):
        self.head(302, Location=f"https://{self.server.address}/in_circles/file.gz")


@pytest.fixture
def server():
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.stopping.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def fetch(server, tmp_path):
    """Download from mirrors that behave as named; -> the path, which is checked to hold the whole."""

    def fetch(*behaviors, patience=5.0):
        mirrors = [f"https://{server.address}/{name}/" for name in behaviors]
        path = download(FILE, mirrors, tmp_path / "new", opener=https_only(Loopback()), patience=patience)
        assert path.read_bytes() == CONTENT and os.listdir(path.parent) == ["file.gz"]
        return path

    return fetch


def test_a_file_comes_whole_with_the_rights_of_others(fetch, tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    assert fetch("good").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("bad", ["missing", "other", "shorter", "cut", "endless", "drip", "silent", "to_http"])
def test_a_download_goes_on_to_the_next_mirror(fetch, bad):
    fetch(bad, "good", patience=0.5)


def test_a_download_goes_on_where_it_ended(fetch, server, tmp_path):
    with pytest.raises(DataError, match=r"ends after 1,048,576 of 2,097,152 bytes"):
        fetch("cut", "missing")
    assert os.listdir(tmp_path / "new") == ["file.gz.part"]
    fetch("good")
    assert [asked for _, asked in server.asked] == [None, "bytes=1048576-", "bytes=1048576-"]


def test_a_mirror_without_ranges_begins_again(fetch, server):
    fetch("cut", "no_ranges")
    assert server.asked[-1] == ("/no_ranges/file.gz", "bytes=1048576-")


@pytest.mark.parametrize("kept", [b"other bytes", bytes(len(CONTENT)), bytes(len(CONTENT) + 1), CONTENT[:-1] + b"x"])
def test_kept_bytes_that_are_not_the_beginning_of_the_file_are_dropped(fetch, tmp_path, kept):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "file.gz.part").write_bytes(kept)
    fetch("good")


def test_a_whole_part_needs_no_server(tmp_path):
    (tmp_path / "file.gz.part").write_bytes(CONTENT)
    assert download(FILE, ["https://0.0.0.0:1/"], tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "behavior, message",
    [
        ("missing", "404 Not Found"),
        ("other", "the checksum differs"),
        ("shorter", "ends after 1,000 of 2,097,152 bytes"),
        ("endless", "sends more than the 2,097,152 bytes that were published"),
        ("drip", "sends less than 1,024 bytes a second"),
        ("silent", "timed out"),
        ("to_http", "only https is used, not http"),
        ("to_file", "not allowed"),
        ("in_circles", "infinite loop"),
    ],
)
def test_what_failed_is_said_in_one_line_and_nothing_wrong_is_left(fetch, tmp_path, behavior, message):
    with pytest.raises(DataError, match=f"file.gz could not be fetched .*{message}") as caught:
        fetch(behavior, patience=0.5)
    assert "\n" not in str(caught.value)
    assert all(path.name.endswith(".part") for path in (tmp_path / "new").iterdir())


def test_https_may_redirect_to_https(fetch):
    fetch("to_https")


@pytest.mark.parametrize("address", ["http://{}/good/", "ftp://{}/good/", "file:///etc/", "data:,"])
def test_nothing_but_https_is_asked(server, tmp_path, address, monkeypatch):
    monkeypatch.setenv("http_proxy", f"https://{server.address}")
    with pytest.raises(DataError, match="only https is used"):
        download(FILE, [address.format(server.address)], tmp_path)
    assert server.asked == []


def test_every_mirror_is_one_of_https():
    mirrors = [mirror for source in data.SOURCES.values() for mirror in source.mirrors]
    assert len(mirrors) >= 8 and all(mirror.startswith("https://") and mirror.endswith("/") for mirror in mirrors)


def test_a_download_with_another_checksum_leaves_nothing(fetch, tmp_path):
    with pytest.raises(DataError, match="checksum differs"):
        fetch("other")
    assert os.listdir(tmp_path / "new") == []


def test_two_processes_do_not_write_into_one_part(fetch, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "new").mkdir()
    with open(tmp_path / "new" / "file.gz.part", "ab") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        with pytest.raises(DataError, match=r"file\.gz\.part: another process is fetching this file"):
            fetch("good")
    fetch("good")


def test_a_folder_that_cannot_be_written_is_named(fetch, tmp_path):
    (tmp_path / "new").write_bytes(b"")
    with pytest.raises(DataError, match=f"cannot write to {tmp_path}/new: .*--data-dir"):
        fetch("good")


def test_a_full_disk_is_named(fetch, monkeypatch):
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
        with pytest.raises(DataError, match=r"cannot write .*file\.gz\.part: File too large; free space"):
            fetch("good")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    fetch("good")
