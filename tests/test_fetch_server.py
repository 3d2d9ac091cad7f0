"""Downloads from a server that lies: whatever it sends over a real connection, nothing bad is accepted."""

import gc
import hashlib
import http.client
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from configs.errors import UserError
from data.fetch import Source, download

GOOD = bytes(range(256)) * 300  # more than one block
PART = 20_000  # bytes that a broken body has


class Unencrypted(urllib.request.HTTPSHandler):
    """https without its encryption, for a server that has no certificate; all else is as it is."""

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(http.client.HTTPConnection, request)


class Server(BaseHTTPRequestHandler):
    """Answers each path in its own way."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = True
        ANSWERS[self.path](self)

    def begin(self, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def body(self, content: bytes, promised: int | None = None) -> None:
        self.begin(Content_Length=str(len(content) if promised is None else promised))
        self.wfile.write(content)

    def endless(self) -> None:
        self.begin()
        while True:  # until the other side hangs up
            self.wfile.write(bytes(1 << 16))

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def redirect(to: str) -> Callable[[Server], None]:
    return lambda s: s.begin(302, Location=to.format(s.server.server_address[1]), Content_Length="0")


ANSWERS: dict[str, Callable[[Server], None]] = {
    "/good": lambda s: s.body(GOOD),
    "/wrong": lambda s: s.body(GOOD[::-1]),
    "/one-bit": lambda s: s.body(GOOD[:-1] + b"\xfe"),
    "/short": lambda s: s.body(GOOD[:PART]),
    "/breaks-off": lambda s: s.body(GOOD[:PART], promised=len(GOOD)),
    "/nothing": lambda s: s.body(b""),
    "/long": lambda s: s.body(GOOD + b"x"),
    "/endless": Server.endless,
    "/page": lambda s: s.body(b"<html>please log in to this network</html>"),
    "/500": lambda s: s.begin(500, Content_Length="0"),
    "/404": lambda s: s.begin(404, Content_Length="0"),
    "/no-http": lambda s: (s.wfile.write(b"\0" * 100), None)[1],
    "/long-header": lambda s: s.begin(Long="x" * 100_000),
    "/to-http": redirect("http://127.0.0.1:{}/good"),
    "/to-file": redirect("file:///etc/hostname"),
    "/to-itself": redirect("/to-itself"),
    "/to-good": redirect("/good"),
    "/to-wrong": redirect("/wrong"),
}
ACCEPTED = ("/good", "/to-good")


@pytest.fixture
def server(monkeypatch) -> Iterator[str]:
    """The address of the server, which is trusted as far as https goes."""
    monkeypatch.setattr(urllib.request, "_opener", urllib.request.build_opener(Unencrypted))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        running.handle_error = lambda *_: None  # type: ignore[method-assign]  # that we hung up is no news
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"https://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
    gc.collect()  # what urllib has left open is closed here, not in the middle of another test


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # urllib leaves some sockets open
@pytest.mark.parametrize("path", ANSWERS)
def test_only_the_promised_bytes_are_accepted_from_a_server(server, path, tmp_path):
    source = Source("x", server + path, hashlib.sha256(GOOD).hexdigest(), len(GOOD))
    target = tmp_path / "x"
    if path in ACCEPTED:
        assert download(source, target).read_bytes() == GOOD
        return
    with pytest.raises(UserError) as error:
        download(source, target)
    assert server + path in str(error.value)
    assert not target.exists()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= len(GOOD) + (1 << 16)
    assert download(source._replace(url=f"{server}/good"), target).read_bytes() == GOOD  # what was left does no harm
    assert [file.name for file in tmp_path.iterdir()] == ["x"]
