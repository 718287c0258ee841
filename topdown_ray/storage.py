"""Where results lie: a local folder, or any URI that pyarrow's filesystems know, behind the same few operations.

A file appears whole or not at all. On a local disk it is written under a temporary name, flushed and renamed; on an object store
(``s3://``, ``gs://``, ``abfs://``) an object is one request and needs no more; elsewhere (``hdfs://``) temporary name and rename again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import filelock
import pyarrow as pa
import pyarrow.fs as pafs
import tenacity

from topdown_ray.errors import StoreError, UserError
from topdown_ray.files import TEMPORARY, replacing

LOCK = ".lock"  # held by the driver that writes to a local folder
OBJECT_STORES = ("s3", "gs", "gcs", "abfs", "abfss")
LOCK_TIMEOUT_S = 2.0  # who only asks whether a driver is at work holds the lock for a moment
WRITE_ATTEMPTS = 4  # of an object, on top of the client library's own


class Entry(NamedTuple):
    """A file in a listing."""

    size: int
    written_at: float  # seconds since the epoch


def is_uri(where: str | Path) -> bool:
    """Whether this names a place by URI, ``scheme://...``."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", str(where)) is not None


def shown(where: str | Path) -> str:
    """A place as messages name it: a URI without the secret that it may hold."""
    return re.sub(r"//[^/@]*@", "//", str(where)) if is_uri(where) else str(where)


def reason(error: BaseException) -> str:
    """What an error says, on one line and without the call that met it."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())[:300]


class Place:
    """A folder, local or remote. Names in it are relative, with slashes. Raises UserError for a URI that will not do."""

    def __init__(self, where: str | Path):
        self.where = where
        self.name = shown(where)
        self.local: Path | None = None
        self.objects = False
        self._lock: filelock.FileLock | None = None
        if not is_uri(where):
            self.local = Path(where)
            return
        parts = urlsplit(str(where))
        if parts.scheme == "file":
            self.local = Path(unquote(parts.path))
            return
        try:
            self._filesystem, path = pafs.FileSystem.from_uri(str(where))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(
                f"{self.name}: expected a folder, or a URI that pyarrow can open (s3, gs, hdfs, file), found {reason(error)}"
            ) from error
        self._root = path.rstrip("/")
        if not self._root:
            raise UserError(f"{self.name}: expected a bucket or folder after the scheme, found none")
        self.objects = parts.scheme in OBJECT_STORES

    def of(self, relative: str) -> str:
        """The name of a file in here, for messages and commands: before the query of a URI."""
        base, mark, query = self.name.partition("?") if is_uri(self.name) else (self.name, "", "")
        return f"{base.rstrip('/') or '/'}/{relative}{mark}{query}"

    def exists(self, relative: str) -> bool:
        """Whether there is such a file."""
        if self.local is not None:
            return (self.local / relative).is_file()
        return bool(self._filesystem.get_file_info(self._at(relative)).type == pafs.FileType.File)

    def read(self, relative: str) -> bytes:
        """A file's content. Raises FileNotFoundError, OSError."""
        if self.local is not None:
            return (self.local / relative).read_bytes()
        with self._filesystem.open_input_file(self._at(relative)) as file:
            return bytes(file.readall())

    def open(self, relative: str) -> Any:
        """A file to read parts of; what pyarrow's readers take. Raises FileNotFoundError, OSError."""
        if self.local is not None:
            return pa.OSFile(str(self.local / relative))
        return self._filesystem.open_input_file(self._at(relative))

    def files(self, folder: str) -> Mapping[str, Entry]:
        """The files right in a folder of here (``""`` for all that lies right in here itself); none where there is no folder."""
        if self.local is None:
            selector = pafs.FileSelector(self._at(folder), allow_not_found=True)
            return {
                info.base_name: Entry(info.size or 0, info.mtime.timestamp() if info.mtime else 0.0)
                for info in self._filesystem.get_file_info(selector)
                if info.type == pafs.FileType.File
            }
        found = {}
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.local / folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # deleted since
                    if entry.is_file():
                        stat = entry.stat()
                        found[entry.name] = Entry(stat.st_size, stat.st_mtime)
        return found

    def empty(self, folders: Collection[str] = ()) -> bool:
        """Whether nothing lies in here but what a driver leaves that was killed as it began: a lock, these folders, empty."""
        if self.local is None:
            found = self._filesystem.get_file_info(
                pafs.FileSelector(self._root, allow_not_found=True, recursive=not self.objects)
            )
            return not found if self.objects else all(info.type == pafs.FileType.Directory for info in found)
        if not self.local.is_dir():
            return True
        for path in self.local.iterdir():
            of_a_driver = path.name == LOCK or (path.name.startswith(".") and path.suffix == TEMPORARY)
            if not of_a_driver and not (path.name in folders and path.is_dir() and not any(path.iterdir())):
                return False
        return True

    def check(self) -> None:
        """Raise UserError unless one can write here, as far as can be told without writing."""
        if self.local is None:
            try:
                self._filesystem.get_file_info(self._root)
                bucket = self._root.partition("/")[0]
                if self.objects and self._filesystem.get_file_info(bucket).type == pafs.FileType.NotFound:
                    raise UserError(f"{self.name}: expected an existing bucket, found no {bucket}")
            except OSError as error:
                raise UserError(f"{self.name}: expected a place that answers, found {reason(error)}") from error
            return
        if self.local.exists() and not self.local.is_dir():
            raise UserError(f"{self.name}: expected a folder, found a file")
        nearest = next(folder for folder in [self.local, *self.local.absolute().parents] if folder.exists())
        if not nearest.is_dir():
            raise UserError(f"{self.name}: expected a folder to write to, found that {nearest} is a file")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise UserError(f"{self.name}: expected a folder to write to, found {nearest} not writable")

    def hold(self) -> bool:
        """Become the only driver of a local folder; the lock dies with the process. False where another one is. Elsewhere: True."""
        if self.local is None or self._lock is not None:
            return True
        lock = filelock.FileLock(self.local / LOCK)
        try:
            lock.acquire(timeout=LOCK_TIMEOUT_S)
        except filelock.Timeout:
            return False
        except (OSError, NotImplementedError) as error:
            raise UserError(f"{self.name}: expected a filesystem that can lock a file, found {reason(error)}") from error
        self._lock = lock
        return True

    def release(self) -> None:
        """Let other drivers in."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def held(self) -> bool | None:
        """Whether a driver is at work in a local folder; None where that cannot be told."""
        if self.local is None or self._lock is not None:
            return None
        try:
            descriptor = os.open(self.local / LOCK, os.O_RDONLY)
        except FileNotFoundError:
            return False
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return None
        finally:
            os.close(descriptor)
        return False

    def write(self, relative: str, data: bytes | pa.Buffer) -> None:
        """Write a file: whole or not at all, in the place of one of this name. Raises StoreError."""
        try:
            if self.local is not None:
                self._replace(self.local / relative, data)
            elif self.objects:
                self._put(relative, data)
            else:
                self._move(relative, data)
        except OSError as error:
            raise StoreError(f"{self.of(relative)}: expected room and leave to write, found: {reason(error)}") from error

    def delete(self, relative: str) -> None:
        """Delete a file, if it is there. Raises StoreError."""
        try:
            with contextlib.suppress(FileNotFoundError):
                if self.local is not None:
                    (self.local / relative).unlink()
                else:
                    self._filesystem.delete_file(self._at(relative))
        except OSError as error:
            raise StoreError(f"{self.of(relative)}: expected leave to delete, found: {reason(error)}") from error

    def prepare(self, folders: tuple[str, ...]) -> None:
        """Make the folders. Raises UserError where one cannot write."""
        try:
            if self.local is None:
                if not self.objects:  # an object store has no folders
                    for folder in folders:
                        self._filesystem.create_dir(self._at(folder), recursive=True)
                return
            for folder in folders:
                (self.local / folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.local):
                pass
        except OSError as error:
            raise UserError(f"{self.name}: expected a folder to write to, found {reason(error)}") from error

    def clear_away(self, folders: tuple[str, ...]) -> None:
        """Delete what a killed writer left in a local folder; only who holds it may."""
        if self.local is not None:
            for folder in (".", *folders):
                for leftover in (self.local / folder).glob(f".*{TEMPORARY}"):
                    leftover.unlink(missing_ok=True)

    def settle(self, folder: str) -> None:
        """Make renames in a local folder survive a power cut; a no-op elsewhere."""
        if self.local is not None:
            descriptor = os.open(self.local / folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _at(self, relative: str) -> str:
        return f"{self._root}/{relative}" if relative else self._root

    @staticmethod
    def _replace(path: Path, data: bytes | pa.Buffer) -> None:
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(data)

    @tenacity.retry(
        retry=tenacity.retry_if_exception_type(OSError),
        stop=tenacity.stop_after_attempt(WRITE_ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=10),
        reraise=True,
    )
    def _put(self, relative: str, data: bytes | pa.Buffer) -> None:
        with self._filesystem.open_output_stream(self._at(relative)) as stream:
            stream.write(data)

    def _move(self, relative: str, data: bytes | pa.Buffer) -> None:
        folder, _, name = relative.rpartition("/")
        temporary = self._at(f"{folder}/.{name}.{os.getpid()}{TEMPORARY}".lstrip("/"))
        with self._filesystem.open_output_stream(temporary) as stream:
            stream.write(data)
        try:
            self._filesystem.move(temporary, self._at(relative))
        except OSError:  # hdfs does not move onto a file that is there
            self._filesystem.delete_file(self._at(relative))
            self._filesystem.move(temporary, self._at(relative))
