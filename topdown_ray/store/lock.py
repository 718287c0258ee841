"""Lock a local folder, so that it has only one driver. The lock ends with its process."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import filelock

from topdown_ray.errors import UserError
from topdown_ray.store.filesystems import reason

LOCK = ".lock"
LOCK_TIMEOUT_S = 2.0  # a process that only checks for a driver holds the lock for a moment


class FolderLock:
    """A lock file in the folder that it locks. name: the name of the folder, which begins messages."""

    def __init__(self, folder: Path, name: str):
        self._path = folder / LOCK
        self._name = name
        self._held: filelock.FileLock | None = None

    @property
    def mine(self) -> bool:
        """Whether this object holds the lock."""
        return self._held is not None

    def check(self) -> None:
        """Raise UserError if something other than a lock file has its name."""
        if os.path.lexists(self._path) and not stat.S_ISREG(os.lstat(self._path).st_mode):
            raise UserError(
                f"{self._name.rstrip('/')}/{LOCK}: expected a lock that is a regular file, "
                "found something else"
            )

    def hold(self) -> bool:
        """Take the lock. Returns False if another process has it. Raises UserError."""
        if self.mine:
            return True
        lock = filelock.FileLock(self._path)
        try:
            lock.acquire(timeout=LOCK_TIMEOUT_S)
        except filelock.Timeout:
            return False
        except (OSError, NotImplementedError) as error:
            raise UserError(
                f"{self._name}: expected a filesystem that can lock a file, found {reason(error)}"
            ) from error
        self._held = lock
        return True

    def release(self) -> None:
        """Release the lock."""
        if self._held is not None:
            self._held.release()
            self._held = None

    def held(self) -> bool | None:
        """Whether another process has the lock; None if this is not known."""
        if self.mine:
            return None
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
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

    def surely_held(self) -> bool:
        """Whether another process certainly has the lock."""
        return self.held() is True

    def taken_by(self) -> str | None:
        """Return None, because this lock cannot be taken over from its holder."""
        return None

    def remove(self) -> None:
        """Delete the lock file, if this object holds the lock."""
        if self.mine:
            self._path.unlink(missing_ok=True)
