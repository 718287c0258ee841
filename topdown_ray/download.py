"""One file over HTTP: retries with back-off, resumed where it broke off, checked against its SHA-256, renamed
when whole.

The bytes so far lie in a hidden ``.part`` file beside the destination; a later attempt, or a later process,
asks for the rest of a file whose hash is known (HTTP Range). A server that refuses ranges is read from the
start. Proxies are taken from the environment (``HTTPS_PROXY``, ``HTTP_PROXY``, ``NO_PROXY``)."""

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

CHUNK = 1 << 13  # bytes; what a connection brought of an unfinished chunk when it broke is lost
MOST_ATTEMPTS = 100  # whatever they achieve
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}  # HTTP states that may pass


@dataclass(frozen=True)
class Patience:
    """How long to try: attempts in a row without a new byte, the seconds of back-off, and of silence on a
    connection.
    """

    attempts: int = 5
    first_wait_s: float = 0.5
    longest_wait_s: float = 15.0
    connect_s: float = 10.0
    silence_s: float = 20.0


PATIENT = Patience()  # a download that the user asked for
BRISK = Patience(attempts=2, connect_s=5.0)  # one that a sweep found to be needed

OnBytes = Callable[[int, int | None], None]  # bytes so far, of how many (None: the server did not say)


class _PassingError(Exception):
    """A failure that another attempt may mend; its message says what happened."""


def download(
    url: str,
    destination: Path,
    sha256: str | None,
    patience: Patience = PATIENT,
    show: OnBytes | None = None,
) -> str:
    """Fetch a file to ``destination``, whole or not at all, and return its SHA-256; ``sha256`` None: whatever
    arrives is taken.

    Processes that want the same file wait for one of them. Raises UserError that says what the server did;
    OSError of the disk."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(destination.with_name(f".{destination.name}.lock")):
        if sha256 is not None and destination.is_file() and sha256_of(destination) == sha256:
            return sha256  # another process was quicker
        transfer = _Transfer(url, destination.with_name(f".{destination.name}.part"), sha256, patience, show)
        digest = transfer.run()
        transfer.part.replace(destination)
        return digest


class _Transfer:
    """The attempts to fetch one file."""

    def __init__(self, url: str, part: Path, sha256: str | None, patience: Patience, show: OnBytes | None):
        self.url, self.part, self.sha256, self.patience, self.show = url, part, sha256, patience, show
        if sha256 is None:  # without a hash nothing would tell that two halves belong to different files
            part.unlink(missing_ok=True)
        # the most bytes there ever were; attempts in a row that added none
        self.most, self.fruitless = (
            self._size(),
            0,
        )
        self.resumed, self.started_over = False, False
        self.version: str | None = None  # the server's mark of the file's version (ETag), if it gives one

    def run(self) -> str:
        """Attempts until the file is whole; its SHA-256."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_PassingError),
            # the longer, the more attempts in a row brought no new byte
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
        # perhaps its first half was another file's: once more from the start
        if self.resumed and not self.started_over:
            self.started_over, self.most = True, 0
            raise _PassingError(f"expected SHA-256 {self.sha256}, found {digest}")
        raise UserError(f"{shown(self.url)}: expected SHA-256 {self.sha256}, found {digest}")

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _receive(self, session: requests.Session) -> None:
        """One request; what arrives is appended to the part, or begins it anew."""
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
                raise _PassingError(f"the server holds less than the {start} bytes that came before")
            if status in _TRY_AGAIN:
                raise _PassingError(f"the server answered {status} {response.reason}")
            if status not in (200, 206):
                raise UserError(
                    f"{shown(self.url)}: expected the file, the server answered {status} {response.reason}"
                )
            if status == 206 and _first_byte(response) != start:
                self.part.unlink(missing_ok=True)
                raise _PassingError(
                    f"asked for the bytes from {start}, the server sent "
                    f"{response.headers.get('Content-Range')}"
                )
            start = start if status == 206 else 0
            mark = response.headers.get("ETag", "W/")
            self.version = None if mark.startswith("W/") else mark  # a weak one does not tell bytes apart
            length = response.headers.get("Content-Length")
            total = start + int(length) if length is not None else None
            if total is None and self.sha256 is None:
                raise UserError(
                    f"{shown(self.url)}: expected a Content-Length, without which a broken file would pass "
                    "for a whole one"
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
    """What a failed request means to the one who waits for it."""
    host = shown(url).partition("://")[2].partition("/")[0]
    if isinstance(error, requests.exceptions.ProxyError):
        return f"no way to {host} through the proxy of the environment"
    if isinstance(error, requests.exceptions.SSLError):
        return f"no trusted connection to {host}"
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return f"no connection to {host} in time"
    if isinstance(error, requests.exceptions.Timeout) or "Read timed out" in str(error):
        return f"{host} fell silent after {done} bytes"
    if isinstance(error, requests.exceptions.ChunkedEncodingError) or done:
        return f"the connection to {host} broke after {done} bytes"
    if isinstance(error, requests.exceptions.ConnectionError):
        return f"no connection to {host}"
    return one_line(without_secrets(str(error), url), 120)
