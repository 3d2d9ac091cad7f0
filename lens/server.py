"""HTTP server of the live page, on localhost only, with a secret in the address.

All paths are under http://127.0.0.1:PORT/SECRET/: the page's files, and its API as POST api/NAME.
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
HOST, PORT = "127.0.0.1", 8000  # the port is tried first
LONGEST_BODY = 400_000  # bytes of a request
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Reject requests without the secret, strip it from the path, and add HEADERS to every response."""

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
            app: ASGIApp = error_response("wrong address: open the one printed by explore.py, with its secret", 403)
        elif not length.isdigit() or int(length) > LONGEST_BODY:
            app = error_response(f"the request needs a content-length of at most {LONGEST_BODY} bytes", 413)
        else:
            app, scope = self.app, {**scope, "path": "/" + "/".join(rest[:-1])}
        await app(scope, receive, send_with_headers)


def error_response(message: str, status: int) -> Response:
    return Response(json.dumps({"error": one_line(message)}), status, media_type="application/json")


def page_server(answers: Answers, secret: str) -> FastAPI:
    """The app that serves one network's page. API requests are answered one at a time."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"], www_redirect=False)
    app.add_middleware(Guard, secret=secret)
    files = {file.name: file for file in PAGE.iterdir() if file.suffix in TYPES}
    worker = ThreadPoolExecutor(1)

    def reply(name: str, body: bytes) -> Response:
        if name not in answers.questions:
            return error_response(f"unknown request {name!r}", 404)
        question = answers.questions[name]
        try:
            return json_response(question.answer(question.asked.model_validate_json(body)))
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            return error_response(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", 422)
        except UserError as error:
            return error_response(str(error), 400)

    @app.get("/api/about")
    def about() -> Response:
        return json_response(answers.about())

    @app.post("/api/{name}")
    async def ask(name: str, request: Request) -> Response:
        body = await request.body()
        return await asyncio.get_running_loop().run_in_executor(worker, reply, name, body)

    @app.get("/{name:path}")
    def file(name: str) -> Response:
        path = files.get(name or "index.html")
        if path is None:
            return error_response(f"file not found: {name!r}", 404)
        return Response(path.read_bytes(), media_type=TYPES[path.suffix])

    return app


def json_response(answer: Answer) -> Response:
    return Response(json.dumps(answer, separators=(",", ":")), media_type="application/json")


def listen(port: int | None) -> socket.socket:
    """A localhost socket on the given port; by default 8000, or any free port if that is taken.

    Raises UserError if the given port is unavailable.
    """
    for number in (PORT, 0) if port is None else (port,):
        # With IPPROTO_TCP asyncio sets TCP_NODELAY; without it every response takes 40 ms longer.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if sys.platform != "win32":  # so that a port closed a moment ago can be reused
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
    """Serve the page until Ctrl-C. Print its address, and open it in a browser if there is a display."""
    listener, secret = listen(port), secrets.token_urlsafe(24)
    address = f"http://{HOST}:{listener.getsockname()[1]}/{secret}/"
    print(address, flush=True)
    print(f"serving {answers.name} at this address; stop with Ctrl-C", file=sys.stderr, flush=True)
    if browser and (sys.platform in ("win32", "darwin") or environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")):
        webbrowser.open(address)
    config = uvicorn.Config(page_server(answers, secret), log_level="warning", access_log=False, server_header=False)
    uvicorn.Server(config).run(sockets=[listener])
