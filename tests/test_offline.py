"""Tests run as on a newcomer's machine: no network, no files from outside, unless one is marked `data`."""

import asyncio
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import data_folder

ELSEWHERE = "192.0.2.1"  # an address for documentation: RFC 5737
ELSEWHERE_6 = "2001:db8::1"  # RFC 3849
Refused = sys.modules["no_network"].NetworkRefusedError


def datagram() -> None:
    """One packet to a name server."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.sendto(b"?", (ELSEWHERE, 53))


def connect(family: int, address: str, way: str) -> None:
    """A socket's own connection."""
    with socket.socket(family) as end:
        getattr(end, way)((address, 80))


WAYS: dict[str, Callable[[], object]] = {
    "connect": lambda: connect(socket.AF_INET, ELSEWHERE, "connect"),
    "connect_ex": lambda: connect(socket.AF_INET, ELSEWHERE, "connect_ex"),
    "IPv6": lambda: connect(socket.AF_INET6, ELSEWHERE_6, "connect"),
    "create_connection": lambda: socket.create_connection((ELSEWHERE, 80)),
    "urlopen": lambda: urllib.request.urlopen(f"http://{ELSEWHERE}/", timeout=1),
    "asyncio": lambda: asyncio.run(asyncio.open_connection(ELSEWHERE, 80)),
    "datagram": datagram,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_connection_to_another_machine_fails_and_names_it(way):
    with pytest.raises(Refused, match=f"{ELSEWHERE}|{ELSEWHERE_6}"):
        WAYS[way]()


@pytest.mark.parametrize("look_up", [lambda name: socket.getaddrinfo(name, 443), socket.gethostbyname])
def test_a_name_is_not_looked_up(look_up):
    with pytest.raises(Refused, match=r"example\.org"):
        look_up("example.org")


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "localhost")])
def test_this_machine_can_be_reached(family, host):
    with socket.socket(family) as server:
        server.bind((host, 0))
        server.listen()
        with socket.create_connection(server.getsockname(), timeout=10) as client:
            assert client.getpeername() == server.getsockname()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no unix sockets")
def test_a_unix_socket_can_be_reached(workplace):
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("s")
        server.listen()
        client.connect("s")
        assert client.getpeername() == "s"


def test_a_process_that_a_test_starts_has_no_network_either():
    code = f"import socket; socket.create_connection(('{ELSEWHERE}', 80), 1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and f"a test tried to look up '{ELSEWHERE}'" in done.stderr


def test_a_download_is_a_failure_even_where_its_errors_become_messages(shell, tiny):
    with pytest.raises(Refused, match="tried to look up"):
        shell("train.py", *tiny, "--data.path", "shakespeare")


def test_without_the_marker_a_test_has_no_data_and_says_what_is_missing():
    assert not {"PELLUCID_DATA", "TIKTOKEN_CACHE_DIR"} & os.environ.keys()
    with pytest.raises(pytest.fail.Exception, match=r"must be marked: @pytest\.mark\.data"):
        data_folder()


@pytest.mark.data
def test_with_the_marker_a_test_has_all_files_from_outside():
    assert all((data_folder() / name).is_file() for name in needs.OUTSIDE)
    assert os.environ["TIKTOKEN_CACHE_DIR"] == str(data_folder() / "tiktoken")


def whole(folder: Path) -> Path:
    """A data folder with every file, each of them empty."""
    for name in needs.OUTSIDE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_why_data_tests_are_skipped_names_the_variable_and_the_file(tmp_path, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    assert "PELLUCID_DATA is not set" in (needs.without_data(None) or "")
    folder = whole(tmp_path)
    assert needs.without_data(folder) is None
    (folder / "tinyshakespeare.txt").unlink()
    assert needs.without_data(folder) == f"PELLUCID_DATA={folder} has no tinyshakespeare.txt"
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.UsageError, match=r"has no tinyshakespeare\.txt"):
        needs.without_data(folder)


MISSING: dict[str, Callable[[], object]] = {
    "package": lambda: needs.require("no_such_package"),
    "browser": needs.chromium,
}


@pytest.mark.parametrize("missing", MISSING)
def test_what_is_missing_skips_a_test_and_in_ci_fails_it(missing, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    for ci in ("", "0", "false"):
        monkeypatch.setenv("CI", ci)
        with pytest.raises(pytest.skip.Exception):
            MISSING[missing]()
    for ci in ("1", "true"):
        monkeypatch.setenv("CI", ci)
        with pytest.raises(BaseException) as caught:  # a skip too, or it would skip this test
            MISSING[missing]()
        assert isinstance(caught.value, ImportError | pytest.fail.Exception)
