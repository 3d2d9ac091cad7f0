"""Downloads: what arrives is what was promised, and nothing else ever gets its name."""

import gzip
import hashlib
import http.client
import io
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import data.fetch
from configs.errors import UserError
from data.digits import MNIST_URL, mnist_file
from data.fetch import Source, download, fetch
from data.find import SHAKESPEARE, find_files
from tests.conftest import data_folder

CONTENT = bytes(range(256)) * 700  # more than two blocks
SOURCE = Source("some/file.txt", "https://example.org/file.txt", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


class Response(io.BytesIO):
    """What urlopen returns; it counts what is read of it."""

    url = SOURCE.url
    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(size)
        self.taken += len(block)
        return block


class Endless(Response):
    """A server that never stops."""

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None and size > 0, "all of an endless answer was asked for"
        self.taken += size
        return b"x" * size


class Breaking(Response):
    """A connection that breaks in the middle, in a way of its own."""

    def __init__(self, error: Exception) -> None:
        super().__init__(CONTENT[:1000])
        self.error = error

    def read(self, size: int | None = -1, /) -> bytes:
        if block := super().read(size):
            return block
        raise self.error


Answer = Callable[[io.BytesIO | Exception], list[str]]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Answer:
    """Let every request be answered so, with an empty data folder; returns the list of addresses asked for."""
    monkeypatch.setattr(data.fetch, "FILES", tmp_path / "files")
    monkeypatch.delenv("PELLUCID_DATA", raising=False)

    def set_answer(given: io.BytesIO | Exception) -> list[str]:
        asked: list[str] = []

        def urlopen(url: str, timeout: float) -> io.BytesIO:
            assert timeout > 0, "a silent server would be waited for without end"
            asked.append(url)
            if isinstance(given, Exception):
                raise given
            return given

        monkeypatch.setattr(urllib.request, "urlopen", urlopen)
        return asked

    return set_answer


def refusal(tmp_path: Path) -> str:
    """The one line with which a download fails; nothing may lie under the file's name then."""
    with pytest.raises(UserError) as caught:
        fetch(SOURCE)
    assert not (tmp_path / "files" / SOURCE.path).exists()
    return str(caught.value)


def test_a_good_download_lies_under_its_name_and_is_asked_for_only_once(answer, tmp_path):
    asked = answer(Response(CONTENT))
    path = fetch(SOURCE)
    assert (path, path.read_bytes()) == (tmp_path / "files" / "some" / "file.txt", CONTENT)
    assert fetch(SOURCE) == path and asked == [SOURCE.url]
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_wrong_bytes_are_thrown_away(answer, tmp_path):
    answer(Response(CONTENT[:-1] + b"?"))
    assert SOURCE.sha256 in refusal(tmp_path)
    assert not list((tmp_path / "files" / "some").iterdir())


@settings(deadline=None, max_examples=30)
@given(sent=st.binary(max_size=6))
def test_only_the_promised_bytes_are_ever_kept(sent, tmp_path_factory):
    promised = b"abc"
    source = Source("file", SOURCE.url, hashlib.sha256(promised).hexdigest(), len(promised))
    target = tmp_path_factory.mktemp("download") / "file"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(urllib.request, "urlopen", lambda url, timeout: Response(sent))
        try:
            download(source, target)
        except UserError:
            assert sent != promised and not target.exists()
        else:
            assert sent == promised == target.read_bytes()


def test_a_short_body_says_how_much_came(answer, tmp_path):
    answer(Response(CONTENT[:1000]))
    assert "after 1000 of 179200 bytes" in refusal(tmp_path)


def test_an_endless_body_is_cut_off_and_does_not_fill_the_disk(answer, tmp_path):
    body = Endless()
    answer(body)
    assert "more than the expected 179200 bytes" in refusal(tmp_path)
    assert body.taken <= 2 * SOURCE.size
    assert sum(p.stat().st_size for p in (tmp_path / "files" / "some").iterdir()) <= SOURCE.size


def test_a_redirect_to_http_is_not_followed(answer, tmp_path):
    body = Response(CONTENT)
    body.url = "http://example.org/file.txt"
    answer(body)
    assert "only https" in refusal(tmp_path)
    assert body.taken == 0


@pytest.mark.parametrize("url", ["http://example.org/x", "file:///etc/passwd", "ftp://example.org/x", "HTTP://x.org"])
def test_only_https_is_asked(answer, tmp_path, url):
    asked = answer(Response(CONTENT))
    with pytest.raises(UserError, match="only https"):
        fetch(SOURCE._replace(url=url))
    assert asked == []


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("no address"),
        urllib.error.HTTPError(SOURCE.url, 404, "Not Found", http.client.HTTPMessage(), None),
        TimeoutError("timed out"),
        ConnectionResetError("reset"),
        http.client.RemoteDisconnected("closed"),
        http.client.BadStatusLine("???"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_without_a_network_one_line_names_the_place_for_the_file(answer, tmp_path, error):
    answer(error)
    message = refusal(tmp_path)
    assert str(tmp_path / "files" / "some" / "file.txt") in message and "PELLUCID_DATA" in message
    assert "\n" not in message and SOURCE.url in message


@pytest.mark.parametrize(
    "error",
    [TimeoutError("timed out"), ConnectionResetError("reset"), http.client.IncompleteRead(b"")],
    ids=lambda error: type(error).__name__,
)
def test_a_connection_that_breaks_leaves_nothing_under_the_files_name(answer, tmp_path, error):
    answer(Breaking(error))
    assert SOURCE.url in refusal(tmp_path)


def test_after_a_broken_download_the_next_one_begins_afresh(answer, tmp_path):
    answer(Response(CONTENT[:1000]))
    refusal(tmp_path)
    answer(Response(CONTENT))
    assert fetch(SOURCE).read_bytes() == CONTENT


def test_a_file_in_the_users_data_folder_is_taken_without_a_download(answer, tmp_path, monkeypatch):
    asked = answer(urllib.error.URLError("no network"))
    monkeypatch.setenv("PELLUCID_DATA", str(tmp_path / "mine"))
    place = tmp_path / "mine" / SOURCE.path
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    assert fetch(SOURCE) == place and asked == []


@pytest.mark.parametrize("folder", ["mine", "files"])
def test_a_wrong_file_in_a_data_folder_is_named_and_left_alone(answer, tmp_path, monkeypatch, folder):
    asked = answer(Response(CONTENT))
    monkeypatch.setenv("PELLUCID_DATA", str(tmp_path / "mine"))
    place = tmp_path / folder / SOURCE.path
    place.parent.mkdir(parents=True)
    place.write_bytes(b"something else")
    with pytest.raises(UserError) as caught:
        fetch(SOURCE)
    assert str(place) in str(caught.value) and asked == []
    assert place.read_bytes() == b"something else"


def test_a_packed_file_of_mnists_is_unpacked_once_and_found_afterwards(answer):
    packed = gzip.compress(CONTENT, mtime=0)
    known = (SOURCE.sha256, hashlib.sha256(packed).hexdigest(), len(packed))
    asked = answer(Response(packed))
    assert mnist_file("some-idx3-ubyte", *known).read_bytes() == CONTENT
    assert mnist_file("some-idx3-ubyte", *known).read_bytes() == CONTENT
    assert asked == [MNIST_URL + "some-idx3-ubyte.gz"]


@pytest.mark.data
def test_tiny_shakespeare_is_the_file_that_its_source_describes():
    content = (data_folder() / SHAKESPEARE.path).read_bytes()
    assert (hashlib.sha256(content).hexdigest(), len(content)) == (SHAKESPEARE.sha256, SHAKESPEARE.size)
    assert [file.name for file in find_files(["shakespeare"], [])] == ["tinyshakespeare.txt"]
