"""Read and write files in a local folder or at a URI through the same few operations.

A file is written completely or not at all. On a local disk it is written under a temporary name, flushed and
renamed. On an object store (``s3://``, ``gs://``, ``abfs://``) one request writes an object atomically.
Elsewhere (``hdfs://``) it is written under a temporary name and renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs
import tenacity

from topdown_ray.addresses import check_local, checked, without_secrets
from topdown_ray.addresses import is_uri as is_uri
from topdown_ray.addresses import shown as shown
from topdown_ray.errors import StoreError, UserError, one_line
from topdown_ray.files import LARGEST_DOCUMENT, TEMPORARY, parse_json, replacing
from topdown_ray.store.filesystems import opened, reason
from topdown_ray.store.lock import LOCK, FolderLock
from topdown_ray.store.object_lock import ObjectLock

WRITE_ATTEMPTS = 4  # for an object, in addition to the client library's own


class PlacedFile(NamedTuple):
    """A file in a listing."""

    size: int
    written_at: float  # seconds since the epoch


class Place:
    """A folder, local or remote. Names in it are relative, with slashes. Raises UserError for a URI that
    cannot be used.
    """

    def __init__(self, where: str | Path):
        self.where = where
        self.name = shown(where)
        self.local: Path | None = None
        self.objects = False
        self._lock: FolderLock | ObjectLock | None = None  # for a disk and an S3 bucket
        self._made: list[Path] = []  # folders that :meth:`prepare` made, the outermost first
        if not is_uri(where):
            check_local(where)
            self._be_local(Path(where))
            return
        parts, uri = checked(where), str(where)
        if parts.scheme == "file":
            self._be_local(Path(unquote(parts.path)))
            return
        self._filesystem, self._root, self.objects = opened(uri, parts, self.name)
        if isinstance(self._filesystem, pafs.S3FileSystem):
            self._lock = ObjectLock(uri, parts, self._root, self._filesystem.region, self.name)

    def _be_local(self, folder: Path) -> None:
        """Raise UserError for a path that no folder can have: too long, with a NUL, or a link to itself."""
        try:
            folder.stat()
        except (OSError, ValueError) as error:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise UserError(
                    f"{one_line(self.name, 120)}: expected a folder, found {reason(error)}"
                ) from error
        self.local, self._lock = folder, FolderLock(folder, self.name)

    def reason(self, error: BaseException) -> str:
        """Return the message of an error as one line, without the secrets of this place."""
        return without_secrets(reason(error), self.where)

    def of(self, relative: str) -> str:
        """Return the name of a file in this folder for messages and commands."""
        base, mark, query = self.name.partition("?") if is_uri(self.name) else (self.name, "", "")
        return f"{base.rstrip('/') or '/'}/{relative}{mark}{query}"

    def exists(self, relative: str) -> bool:
        """Whether this file exists. Raises UserError if something other than a file has its name."""
        if self.local is not None:
            return _is_regular(self.local / relative, self.of(relative))
        return bool(self._filesystem.get_file_info(self._at(relative)).type == pafs.FileType.File)

    def read(self, relative: str, most: int | None = None) -> bytes:
        """Return a file's content. Raises FileNotFoundError and OSError, and UserError if it is not a regular
        file or has more than ``most`` bytes.
        """
        if self.local is not None:
            path = self.local / relative
            if _is_regular(path, self.of(relative)) and most is not None and path.stat().st_size > most:
                raise UserError(
                    f"{self.of(relative)}: expected at most {most:,} bytes, found {path.stat().st_size:,}"
                )
            return path.read_bytes()
        with self._filesystem.open_input_file(self._at(relative)) as file:
            if most is not None and file.size() > most:
                raise UserError(
                    f"{self.of(relative)}: expected at most {most:,} bytes, found {file.size():,}"
                )
            return bytes(file.readall())

    def document(self, relative: str) -> Any:
        """Return the value of a JSON file. Raises FileNotFoundError, OSError, UserError."""
        return parse_json(self.read(relative, LARGEST_DOCUMENT), self.of(relative))

    def open(self, relative: str) -> Any:
        """Open a file for pyarrow's readers, which can read parts of it. Raises FileNotFoundError, OSError,
        UserError.
        """
        if self.local is not None:
            if not _is_regular(self.local / relative, self.of(relative)):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.local / relative))
            return pa.OSFile(str(self.local / relative))
        return self._filesystem.open_input_file(self._at(relative))

    def files(self, folder: str) -> Mapping[str, PlacedFile]:
        """Return the files directly in a subfolder; none if it does not exist.

        Raises OSError, and UserError if the subfolder is not a folder or contains pipes, devices or broken
        links.
        """
        if self.local is None:
            selector = pafs.FileSelector(self._at(folder), allow_not_found=True)
            return {
                info.base_name: PlacedFile(info.size or 0, info.mtime.timestamp() if info.mtime else 0.0)
                for info in self._filesystem.get_file_info(selector)
                if info.type == pafs.FileType.File
            }
        found = {}
        try:
            with os.scandir(self.local / folder) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):  # deleted in the meantime
                        if not entry.is_dir() and _is_regular(
                            Path(entry.path), self.of(f"{folder}/{entry.name}".lstrip("/"))
                        ):
                            status = entry.stat()
                            found[entry.name] = PlacedFile(status.st_size, status.st_mtime)
        except FileNotFoundError:
            return {}
        except NotADirectoryError as error:
            raise UserError(f"{self.of(folder)}: expected a folder, found a file") from error
        return found

    def empty(self, folders: Collection[str] = ()) -> bool:
        """Whether the folder is empty except for the files of a driver that was killed at its start: a lock,
        and these folders without files.
        """
        if self.local is None:
            found = self._filesystem.get_file_info(
                pafs.FileSelector(self._root, allow_not_found=True, recursive=not self.objects)
            )
            if self.objects:
                return all(info.path == self._at(LOCK) for info in found)
            return all(info.type == pafs.FileType.Directory for info in found)
        if not self.local.is_dir():
            return True
        for path in self.local.iterdir():
            of_a_driver = path.name == LOCK or (path.name.startswith(".") and path.suffix == TEMPORARY)
            if not of_a_driver and not (path.name in folders and path.is_dir() and not any(path.iterdir())):
                return False
        return True

    def check(self) -> None:
        """Raise UserError unless this folder can be written to, as far as this is known without writing."""
        if self.local is None:
            try:
                self._filesystem.get_file_info(self._root)
                bucket = self._root.partition("/")[0]
                if self.objects and self._filesystem.get_file_info(bucket).type == pafs.FileType.NotFound:
                    raise UserError(f"{self.name}: expected an existing bucket, found no {bucket}")
            except OSError as error:
                raise UserError(
                    f"{self.name}: expected a store that answers, found {self.reason(error)}"
                ) from error
            return
        if self.local.exists() and not self.local.is_dir():
            raise UserError(f"{self.name}: expected a folder, found a file")
        nearest = next(folder for folder in [self.local, *self.local.absolute().parents] if folder.exists())
        if not nearest.is_dir():
            raise UserError(f"{self.name}: expected a folder to write to, found that {nearest} is a file")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise UserError(f"{self.name}: expected a folder to write to, found {nearest} not writable")
        if self._lock is not None:
            self._lock.check()

    def hold(self) -> bool:
        """Become the only driver of a folder on a disk or in an S3 bucket. Returns False if there is another
        one. In other places, returns True. Raises UserError.
        """
        return self._lock is None or self._lock.hold()

    def release(self) -> None:
        """Release the lock, so that other drivers can use the folder."""
        if self._lock is not None:
            self._lock.release()

    def held(self) -> bool | None:
        """Whether another driver works in the folder; None if this is not known."""
        return None if self._lock is None else self._lock.held()

    def surely_held(self) -> bool:
        """Whether another driver certainly works in the folder, so that :meth:`hold` would return False
        without waiting. Raises UserError.
        """
        return self._lock is not None and self._lock.surely_held()

    def _check_held(self) -> None:
        """Raise StoreError if another driver has taken over the folder that this process held."""
        if self._lock is not None and (other := self._lock.taken_by()) is not None:
            raise StoreError(
                f"{self.name}: expected to be the only driver of this folder, found that {other} has taken "
                "it over, because this driver could not reach the bucket for a while"
            )

    def write(self, relative: str, data: bytes | pa.Buffer) -> None:
        """Write or replace a file, completely or not at all. Raises StoreError."""
        self._check_held()
        try:
            if self.local is not None:
                self._replace(self.local / relative, data)
            elif self.objects:
                self._put(relative, data)
            else:
                self._move(relative, data)
        except OSError as error:
            raise StoreError(
                f"{self.of(relative)}: expected free space and permission to write, found: "
                f"{self.reason(error)}"
            ) from error

    def delete(self, relative: str) -> None:
        """Delete a file, if it exists. Raises StoreError."""
        self._check_held()
        try:
            with contextlib.suppress(FileNotFoundError):
                if self.local is not None:
                    (self.local / relative).unlink()
                else:
                    self._filesystem.delete_file(self._at(relative))
        except OSError as error:
            raise StoreError(
                f"{self.of(relative)}: expected permission to delete, found: {self.reason(error)}"
            ) from error

    def set_aside(self, relative: str, folder: str) -> str:
        """Move a file into a subfolder, and keep files of the same name there. Returns its new name. Raises
        StoreError.
        """
        self._check_held()
        name, number = f"{folder}/{relative}", 0
        try:
            while self.exists(name):
                number += 1
                name = f"{folder}/{relative}.{number}"
            if self.local is not None:
                (self.local / name).parent.mkdir(parents=True, exist_ok=True)
                (self.local / relative).rename(self.local / name)
            else:
                if not self.objects:
                    self._filesystem.create_dir(self._at(name.rpartition("/")[0]), recursive=True)
                self._filesystem.move(self._at(relative), self._at(name))
        except OSError as error:
            raise StoreError(
                f"{self.of(relative)}: expected permission to move it, found: {self.reason(error)}"
            ) from error
        return name

    def prepare(self, folders: tuple[str, ...]) -> None:
        """Make the folders. Raises UserError if they cannot be written to. :meth:`abandon` removes the
        folders that this made.
        """
        try:
            if self.local is None:
                if not self.objects:  # an object store has no folders
                    for folder in folders:
                        self._filesystem.create_dir(self._at(folder), recursive=True)
                return
            wanted: Iterable[Path] = [self.local, *(self.local / folder for folder in folders)]
            missing = [path for inner in wanted for path in (inner, *inner.parents) if not path.exists()]
            self._made = sorted(set(missing), key=lambda path: len(path.parts))
            for path in wanted:
                path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.local):
                pass
        except OSError as error:
            self.abandon()
            raise UserError(
                f"{self.name}: expected a folder to write to, found {self.reason(error)}"
            ) from error

    def abandon(self) -> None:
        """Release the lock, and remove the empty folders that :meth:`prepare` made."""
        if self._lock is not None and self.local in self._made:
            self._lock.remove()
        self.release()
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):  # not made yet, or not empty
                folder.rmdir()
        self._made = []

    def clear_away(self, folders: tuple[str, ...]) -> None:
        """Delete the temporary files of a killed writer in these local subfolders. Only the holder of the
        lock may call this.
        """
        if self.local is not None:
            for folder in folders:
                for leftover in (self.local / folder).glob(f".*{TEMPORARY}"):
                    leftover.unlink(missing_ok=True)

    def settle(self, folder: str) -> None:
        """Make renames in a local folder survive a power cut. In other places, this does nothing."""
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
        except OSError:  # hdfs does not move onto an existing file
            self._filesystem.delete_file(self._at(relative))
            self._filesystem.move(temporary, self._at(relative))


def _is_regular(path: Path, name: str) -> bool:
    """Whether a local file exists. Raises OSError, and UserError for a folder, a pipe, a device or a broken
    link.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.is_symlink():
            raise UserError(f"{name}: expected a regular file, found a broken link") from error
        return False
    if not stat.S_ISREG(mode):
        raise UserError(
            f"{name}: expected a regular file, found "
            f"{'a folder' if stat.S_ISDIR(mode) else 'a pipe or device'}"
        )
    return True
