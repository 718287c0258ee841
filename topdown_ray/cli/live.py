"""Serve a page on loopback that shows the progress of a sweep: ``topdown-ray status DIR --serve``.

The page asks for the status every few seconds. The folder is read only when a page asks, and at most once in
``--every`` seconds, however many pages are open. A separate thread draws the pictures, so that no request
waits for them. A request must name a loopback host: otherwise a page from elsewhere could read the status
through a DNS name that resolves to 127.0.0.1 (DNS rebinding).
"""

from __future__ import annotations

import dataclasses
import http.server
import json
import re
import secrets
import socketserver
import sys
import threading
import time
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import jinja2
import typer
from markupsafe import Markup

from topdown_ray.errors import UserError, one_line
from topdown_ray.files import data
from topdown_ray.sweeps.status import Reader, Status
from topdown_ray.terminal import say

if TYPE_CHECKING:
    from topdown_ray.report.live import Album

HOST = "127.0.0.1"
PAUSE_S = 3.0  # the shortest time between two drawings
PAUSES = 5  # the pause after a drawing in multiples of its time, so that drawing uses at most 1/6 of a core
RETRY_S = 30.0  # after a drawing that failed
_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_HTML, _JSON, _SVG, _TEXT = (
    f"{kind}; charset=utf-8" for kind in ("text/html", "application/json", "image/svg+xml", "text/plain")
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class Follower:
    """Keeps the latest status of one sweep and the latest pictures of its searches.

    Raises UserError if there is no sweep.
    """

    def __init__(self, where: str | Path, every_s: float):
        self.every_s = every_s
        self._where = where
        self._reader = Reader(where)
        self._status, self._read_at = self._reader.read(), time.monotonic()
        self._reading = threading.Lock()
        self._drawing = threading.Lock()  # held for a moment, not while the thread draws
        self._drawer: threading.Thread | None = None  # None if nothing is being drawn
        self._closed = False
        self._next_at = 0.0  # when the next drawing may begin
        self._drawn: tuple[str, int] | None = None  # the sweep and number of searches that the album shows
        self._album: Album | None = None
        self._problem = ""
        self._version = 0  # of the album

    def status(self) -> Status:
        """The status, at most ``every_s`` old. Raises UserError where the folder cannot be read."""
        with self._reading:
            if time.monotonic() - self._read_at >= self.every_s:
                self._status = self._reader.read()
                self._read_at = time.monotonic()
            return self._status

    def pictures(self) -> dict[str, Any]:
        """Return the version, the message and the captions of the pictures. Have them drawn again if searches
        have finished since the last drawing. Raises UserError as :meth:`status`.
        """
        status = self.status()
        wanted = (status.run_id, status.done)
        with self._drawing:
            due = status.done and wanted != self._drawn and time.monotonic() >= self._next_at
            if due and self._drawer is None and not self._closed:
                self._drawer = threading.Thread(target=self._draw, args=(wanted,), daemon=True)
                self._drawer.start()
            album = self._album
            message = self._problem or (_waiting(status) if album is None else album.note)
            captions = [picture.caption for picture in album.pictures] if album else []
            return {"version": self._version, "message": message, "captions": captions}

    def picture(self, panel: int) -> bytes | None:
        """Return a picture as SVG, or None if there is no picture of this number."""
        with self._drawing:
            pictures = self._album.pictures if self._album else ()
        return pictures[panel].svg if 0 <= panel < len(pictures) else None

    def close(self) -> None:
        """Wait until reading and drawing have ended, and start neither again. Python aborts if it ends while
        one of its threads is in C++ code, such as that of pyarrow or matplotlib.
        """
        self._reading.acquire()
        with self._drawing:
            self._closed = True
            drawer = self._drawer
        if drawer is not None:
            drawer.join()

    def _draw(self, wanted: tuple[str, int]) -> None:
        began = time.monotonic()
        album, problem = None, ""
        try:
            from topdown_ray.report.live import draw_album

            album = draw_album(self._where)
        except Exception as error:  # the rest of the page must continue to work
            problem = f"The pictures cannot be drawn: {one_line(error)}"
        now = time.monotonic()
        with self._drawing:
            self._drawer, self._problem = None, problem
            if album is None:
                self._next_at = now + RETRY_S
                return
            self._next_at = now + max(PAUSE_S, PAUSES * (now - began))
            self._album, self._drawn = album, wanted
            self._version += 1


def _waiting(status: Status) -> str:
    """Return the text that replaces pictures which are not drawn yet."""
    if status.done:
        return "The pictures are being drawn."
    if status.state == "running":
        return "The first searches are running. The pictures appear when one of them has finished."
    return "No search has finished."


class LiveServer(socketserver.ThreadingTCPServer):
    """Serves the page of one sweep on loopback. Raises UserError where the port cannot be opened."""

    # not http.server's own server, which asks the resolver for the name of this machine
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, follower: Follower, port: int = 0):
        self.follower = follower
        self._environment = jinja2.Environment(
            autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UserError(
                f"--port: expected a free port, found {port} ({error.strerror or one_line(error)})"
            ) from error

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.server_address[1]}/"

    def page(self, nonce: str) -> str:
        """Return the page. nonce: for its style and its script."""
        template = self._environment.from_string(data("live.html.j2").read_text(encoding="utf-8"))
        css = Markup(data("report.css").read_text(encoding="utf-8"))
        every_ms = round(1000 * max(self.follower.every_s, 1.0))
        return template.render(css=css, nonce=nonce, every_ms=every_ms, name=self.follower.status().name)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the error of a request, unless the browser only closed the connection."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            say(f"error: a request failed: {type(error).__name__}: {one_line(error)}")


class _Handler(http.server.BaseHTTPRequestHandler):
    server: LiveServer
    server_version = "topdown-ray"
    sys_version = ""
    timeout = 30.0  # after which a client that sends nothing is disconnected

    def do_GET(self) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not _LOOPBACK.fullmatch(hosts[0].strip()):
            self._send(HTTPStatus.FORBIDDEN, _TEXT, "expected a loopback host in the request\n")
            return
        try:
            self._answer()
        except UserError as error:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, _JSON, json.dumps({"error": one_line(error)}))

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self) -> None:
        url, follower = urlsplit(self.path), self.server.follower
        if url.path == "/":
            nonce = secrets.token_urlsafe(16)
            policy = f"{_NOTHING}; connect-src 'self'; img-src 'self' data:"
            policy += f"; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'"
            self._send(HTTPStatus.OK, _HTML, self.server.page(nonce), policy)
        elif url.path == "/status.json":
            self._send(HTTPStatus.OK, _JSON, json.dumps(dataclasses.asdict(follower.status())))
        elif url.path == "/pictures.json":
            self._send(HTTPStatus.OK, _JSON, json.dumps(follower.pictures()))
        elif url.path == "/anytime.svg" and (svg := follower.picture(_panel(url.query))) is not None:
            self._send(HTTPStatus.OK, _SVG, svg, f"{_NOTHING}; style-src 'unsafe-inline'")
        else:
            self._send(HTTPStatus.NOT_FOUND, _TEXT, "found nothing of this name\n")

    def _send(self, status: HTTPStatus, kind: str, body: str | bytes, policy: str = _NOTHING) -> None:
        content = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        facts = {"Content-Type": kind, "Content-Length": str(len(content)), "Content-Security-Policy": policy}
        for name, value in {**facts, **_HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Print nothing, because a page asks every few seconds."""


def _panel(query: str) -> int:
    """Return the number of the picture in a query ``panel=N`` (default 0), or -1 if it is not a number."""
    (text,) = parse_qs(query).get("panel", ["0"])[:1]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else -1


def serve(where: str, port: int, every_s: float) -> None:
    """Serve the page of a sweep until interrupted, which ends the command with exit status 130.

    Raises UserError if there is no sweep or the port cannot be opened.
    """
    follower = Follower(where, every_s)
    with LiveServer(follower, port) as server:
        try:
            name = one_line(follower.status().name)
            print(f"Showing the sweep {name} at {server.url} until you press Ctrl-C.", flush=True)
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        finally:
            follower.close()
