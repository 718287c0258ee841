"""Download one file over HTTP with retries, resume it after an interruption, and check its SHA-256.

The bytes so far are kept in a hidden ``.part`` file next to the destination, which is renamed when the file
is complete. If the hash of the file is known, a later attempt or process requests only the rest (HTTP Range).
If a server does not support ranges, the file is read from the start. Proxies are taken from the environment
(``HTTPS_PROXY``, ``HTTP_PROXY``, ``NO_PROXY``)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import filelock
import requests
import tenacity

from topdown_ray.addresses import shown, without_secrets
from topdown_ray.errors import UserError, one_line
from topdown_ray.files import sha256_of

CHUNK = 1 << 13  # bytes; an unfinished chunk is lost when the connection breaks
MOST_ATTEMPTS = 100  # in total
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}  # HTTP states that may be temporary


@dataclass(frozen=True)
class Patience:
    """How long to try: attempts in a row without a new byte, seconds of back-off, and seconds of silence on
    a connection.
    """

    attempts: int = 5
    first_wait_s: float = 0.5
    longest_wait_s: float = 15.0
    connect_s: float = 10.0
    silence_s: float = 20.0


PATIENT = Patience()  # a download that the user asked for
BRISK = Patience(attempts=2, connect_s=5.0)  # a download that a sweep needs before it can start

OnBytes = Callable[[int, int | None], None]  # bytes so far, of how many (None: the server did not say)


class _PassingError(Exception):
    """A failure that may not occur again in another attempt; its message says what happened."""


def download(
    url: str,
    destination: Path,
    sha256: str | None,
    patience: Patience = PATIENT,
    show: OnBytes | None = None,
) -> str:
    """Download a file to ``destination``, completely or not at all, and return its SHA-256. If ``sha256`` is
    None, the content is not checked.

    If several processes want the same file, one downloads it and the others wait. Raises UserError that says
    what the server did, and OSError for errors of the disk."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(destination.with_name(f".{destination.name}.lock")):
        if sha256 is not None and destination.is_file() and sha256_of(destination) == sha256:
            return sha256  # another process has downloaded it
        transfer = _Transfer(url, destination.with_name(f".{destination.name}.part"), sha256, patience, show)
        digest = transfer.run()
        transfer.part.replace(destination)
        return digest


class _Transfer:
    """The attempts to fetch one file."""

    def __init__(self, url: str, part: Path, sha256: str | None, patience: Patience, show: OnBytes | None):
        self.url, self.part, self.sha256, self.patience, self.show = url, part, sha256, patience, show
        if sha256 is None:  # without a hash, two halves of different files would not be noticed
            part.unlink(missing_ok=True)
        # the largest number of bytes so far; attempts in a row that added none
        self.most, self.fruitless = (
            self._size(),
            0,
        )
        self.resumed, self.started_over = False, False
        self.version: str | None = None  # the file's version (ETag), if the server sends one

    def run(self) -> str:
        """Try until the file is complete, and return its SHA-256."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_PassingError),
            # wait longer after each further attempt without a new byte
            wait=lambda _: min(
                self.patience.first_wait_s * 2.0 ** max(0, self.fruitless - 1), self.patience.longest_wait_s
            ),
            stop=lambda state: (
                self.fruitless >= self.patience.attempts or state.attempt_number >= MOST_ATTEMPTS
            ),
            reraise=True,
        )
        with requests.Session() as session:
            try:
                return retrying(self._attempt, session)
            except _PassingError as failure:
                raise UserError(f"{shown(self.url)}: {failure}") from failure

    def _attempt(self, session: requests.Session) -> str:
        before = self.most
        try:
            self._receive(session)
        except requests.RequestException as error:
            raise _PassingError(_in_words(error, self.url, self._size())) from error
        finally:
            self.most = max(self.most, self._size())
            self.fruitless = 0 if self.most > before else self.fruitless + 1
        digest = sha256_of(self.part)
        if self.sha256 in (None, digest):
            return digest
        self.part.unlink()
        # its first half may be from another version of the file: once more from the start
        if self.resumed and not self.started_over:
            self.started_over, self.most = True, 0
            raise _PassingError(f"expected SHA-256 {self.sha256}, found {digest}")
        raise UserError(f"{shown(self.url)}: expected SHA-256 {self.sha256}, found {digest}")

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _receive(self, session: requests.Session) -> None:
        """Make one request, and append the bytes to the part or start it again."""
        start = self._size()
        headers = {"Accept-Encoding": "identity"}  # a range of compressed bytes would be of no use
        if start and (self.sha256 is not None or self.version is not None):
            headers["Range"] = f"bytes={start}-"
            headers |= {"If-Range": self.version} if self.version is not None else {}
        timeouts = (self.patience.connect_s, self.patience.silence_s)
        with session.get(self.url, headers=headers, stream=True, timeout=timeouts) as response:
            status = response.status_code
            if status == 416:  # the part is as long as the file, or longer
                self.part.unlink(missing_ok=True)
                raise _PassingError(f"the server's file is shorter than the {start} bytes received before")
            if status in _TRY_AGAIN:
                raise _PassingError(f"the server answered {status} {response.reason}")
            if status not in (200, 206):
                raise UserError(
                    f"{shown(self.url)}: expected the file, found the answer {status} {response.reason}"
                )
            if status == 206 and _first_byte(response) != start:
                self.part.unlink(missing_ok=True)
                raise _PassingError(
                    f"expected the bytes from {start} on, found Content-Range "
                    f"{response.headers.get('Content-Range', 'missing')}"
                )
            start = start if status == 206 else 0
            mark = response.headers.get("ETag", "W/")
            self.version = None if mark.startswith("W/") else mark  # a weak ETag does not identify the bytes
            length = response.headers.get("Content-Length")
            total = start + int(length) if length is not None else None
            if total is None and self.sha256 is None:
                raise UserError(
                    f"{shown(self.url)}: expected a Content-Length, found none; without it, an incomplete "
                    "download could not be detected"
                )
            self.resumed = start > 0
            with self.part.open("ab" if start else "wb") as file:
                done = start
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    done += len(chunk)
                    if self.show is not None:
                        self.show(done, total)


def _first_byte(response: requests.Response) -> int:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _in_words(error: requests.RequestException, url: str, done: int) -> str:
    """Describe a failed request in a few words for the user."""
    host = shown(url).partition("://")[2].partition("/")[0]
    if isinstance(error, requests.exceptions.ProxyError):
        return f"no connection to {host} through the proxy in HTTPS_PROXY or HTTP_PROXY"
    if isinstance(error, requests.exceptions.SSLError):
        return f"no trusted connection to {host} (its certificate cannot be verified)"
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return f"no connection to {host} in time"
    if isinstance(error, requests.exceptions.Timeout) or "Read timed out" in str(error):
        return f"{host} stopped sending after {done} bytes"
    if isinstance(error, requests.exceptions.ChunkedEncodingError) or done:
        return f"the connection to {host} broke after {done} bytes"
    if isinstance(error, requests.exceptions.ConnectionError):
        return f"no connection to {host}"
    return one_line(without_secrets(str(error), url), 120)
