"""The live page's server: on this machine alone, for whoever has the address with its secret, and nothing else.

Everything lies under http://127.0.0.1:PORT/SECRET/: the page's own files, and its questions as POST api/NAME.
"""

import asyncio
import json
import secrets
import socket
import sys
import webbrowser
from concurrent.futures import ThreadPoolExecutor
from os import environ
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response
from pydantic import ValidationError
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from configs.errors import UserError, one_line
from lens.answers.pack import Answer, Answers

PAGE = Path(__file__).parent / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HOST, PORT = "127.0.0.1", 8000  # the port is the first to try
LONGEST_BODY = 400_000  # bytes of a question
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Lets through what comes under the secret, cut off the path, and gives every answer the headers."""

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self.app, self.secret = app, secret

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            await send(message)

        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # no websockets
            return None
        _, given, *rest = (scope["path"] + "/").split("/")
        length = dict(scope["headers"]).get(b"content-length", b"0" if scope["method"] == "GET" else b"")
        if not secrets.compare_digest(given.encode(errors="replace"), self.secret.encode()):
            app: ASGIApp = said("the address lacks its secret: use the one that explore.py printed", 403)
        elif not length.isdigit() or int(length) > LONGEST_BODY:
            app = said(f"a question has a length, of at most {LONGEST_BODY} bytes", 413)
        else:
            app, scope = self.app, {**scope, "path": "/" + "/".join(rest[:-1])}
        await app(scope, receive, send_with_headers)


def said(message: str, status: int) -> Response:
    """A mistake in one line."""
    return Response(json.dumps({"error": one_line(message)}), status, media_type="application/json")


def page_server(answers: Answers, secret: str) -> FastAPI:
    """The page of one network. What it asks is answered one question at a time."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"], www_redirect=False)
    app.add_middleware(Guard, secret=secret)
    files = {file.name: file for file in PAGE.iterdir() if file.suffix in TYPES}
    one_by_one = ThreadPoolExecutor(1)

    def reply(name: str, body: bytes) -> Response:
        if name not in answers.questions:
            return said(f"there is no question {name!r}", 404)
        question = answers.questions[name]
        try:
            return told(question.answer(question.asked.model_validate_json(body)))
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            return said(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", 422)
        except UserError as error:
            return said(str(error), 400)

    @app.get("/api/about")
    def about() -> Response:
        return told(answers.about())

    @app.post("/api/{name}")
    async def ask(name: str, request: Request) -> Response:
        body = await request.body()
        return await asyncio.get_running_loop().run_in_executor(one_by_one, reply, name, body)

    @app.get("/{name:path}")
    def file(name: str) -> Response:
        found = files.get(name or "index.html")
        if found is None:
            return said(f"there is no file {name!r}", 404)
        return Response(found.read_bytes(), media_type=TYPES[found.suffix])

    return app


def told(answer: Answer) -> Response:
    """What the network answers."""
    return Response(json.dumps(answer, separators=(",", ":")), media_type="application/json")


def listen(port: int | None) -> socket.socket:
    """A socket on this machine alone: at the port that is asked for, else 8000 or, if that is taken, any.

    Raises UserError if the port that is asked for is taken.
    """
    for number in (PORT, 0) if port is None else (port,):
        # Named as TCP, else asyncio leaves small packets to wait for one another: 40 ms for every answer.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if sys.platform != "win32":  # a port that was just given up is free
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, number))
            listener.listen()
            return listener
        except OSError as error:
            listener.close()
            reason = error.strerror
    raise UserError(f"--port {port}: {reason}", 1)


def serve(answers: Answers, port: int | None, browser: bool) -> None:
    """Show the page until Ctrl-C; its address goes to stdout, and to a browser where there is a display."""
    listener, secret = listen(port), secrets.token_urlsafe(24)
    address = f"http://{HOST}:{listener.getsockname()[1]}/{secret}/"
    print(address, flush=True)
    print(f"{answers.name}: the page is at this address until Ctrl-C", file=sys.stderr, flush=True)
    if browser and (sys.platform in ("win32", "darwin") or environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")):
        webbrowser.open(address)
    config = uvicorn.Config(page_server(answers, secret), log_level="warning", access_log=False, server_header=False)
    uvicorn.Server(config).run(sockets=[listener])
