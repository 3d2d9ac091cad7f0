"""No network but this machine's own: importing this file makes Python refuse every other connection and every lookup.

An audit hook sees what Python's own sockets do, whichever library uses them, and it cannot be removed again. It covers
connections, datagrams and name lookups in the tests' process, in its forks, and, by `sitecustomize.py` beside this
file and PYTHONPATH, in every Python that a test starts. It covers no sockets made in C++ (gloo and NCCL, which tests
use on this machine only) and no other programs (chromium is told itself to look up no names).
"""

import os
import sys
from typing import Any

VARIABLES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy")  # a proxy on loopback would lead out


class NetworkRefusedError(BaseException):
    """A test tried to leave this machine. No `except Exception` turns it into a message that a test may expect."""


def allowed(host: Any) -> bool:
    """Whether a host is this machine: a loopback address, localhost, its own name (torchrun asks for it), or none."""
    import ipaddress
    import socket

    name = host.decode("ascii", "replace") if isinstance(host, bytes | bytearray) else host
    if name is None or name in ("", "localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Raise NetworkRefusedError for what leads away from this machine."""
    if not event.startswith("socket."):
        return
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        import socket

        end, address = arguments[:2]
        if end.family == getattr(socket, "AF_UNIX", None) or address is None:
            return
        if end.family in (socket.AF_INET, socket.AF_INET6) and allowed(address[0]):
            return
        raise NetworkRefusedError(f"a test tried to connect to {address}; tests use no network")
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr") and not allowed(arguments[0]):
        raise NetworkRefusedError(f"a test tried to look up {arguments[0]!r}; tests use no network")
    if event == "socket.getnameinfo" and not allowed(arguments[0][0]):
        raise NetworkRefusedError(f"a test tried to look up {arguments[0]}; tests use no network")


for variable in VARIABLES:
    os.environ.pop(variable, None)
    os.environ.pop(variable.upper(), None)
os.environ["no_proxy"] = "*"
sys.addaudithook(refuse)
