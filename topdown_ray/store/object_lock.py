"""Lock a folder in an S3 bucket, so that it has only one driver.

The lock is an object that is created only if it is absent, and that its holder replaces every few seconds. A
driver that was killed leaves it behind. Such a lock is ignored if its process is known to have ended (on the
same machine), or if it has not been replaced for a while. The requests use boto3, because pyarrow cannot
create an object only if it is absent."""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote

from topdown_ray.addresses import without_secrets
from topdown_ray.errors import UserError
from topdown_ray.store.filesystems import reason
from topdown_ray.store.lock import LOCK
from topdown_ray.terminal import say

RENEW_S = 10.0  # the interval in which the holder replaces the object
STALE_S = 60.0  # a lock that has not been replaced for this long was left behind
_POLL_S = 1.0
_PATIENCE_S = 5.0  # how long a release waits for a renewal that is in progress
_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_ABSENT = {"NoSuchKey", "404"}


class _Found(NamedTuple):
    """The lock object in the bucket."""

    etag: str
    holder: dict[str, Any]
    age_s: float  # seconds since it was replaced, by the store's own clock


class ObjectLock:
    """A lock object in the folder that it locks. uri, parts: the URI of the folder, whole and split. root:
    bucket and folder. name: the name of the folder, which begins messages.
    """

    def __init__(self, uri: str, parts: SplitResult, root: str, region: str, name: str):
        self._uri = uri
        self._parts = parts
        self._region = region
        self._bucket, _, folder = root.partition("/")
        self._key = f"{folder}/{LOCK}".lstrip("/")
        self._name = name
        self._me = {**_this_process(), "token": uuid.uuid4().hex}
        self._etag: str | None = None
        self._renewed_at = 0.0  # by a clock that continues while the machine is suspended
        self._taken_by: str | None = None
        self._renewal = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._s3: Any = None

    @property
    def mine(self) -> bool:
        """Whether this object holds the lock."""
        return self._etag is not None

    def check(self) -> None:
        """Do nothing, because only an object can have its name in a bucket."""

    def hold(self) -> bool:
        """Take the lock. Returns False if another driver has it. Raises UserError."""
        if self.mine:
            return True
        while True:
            if etag := self._put(IfNoneMatch="*"):
                if again := self._put(IfNoneMatch="*"):
                    etag = again
                    say(
                        f"{self._name}: this server ignores If-None-Match, so the folder cannot be locked "
                        "against a second driver."
                    )
                break
            found = self._get()
            if found is None:  # released in the meantime
                continue
            if found.holder.get("token") == self._me["token"]:  # the answer to the first request was lost
                etag = found.etag
                break
            if not self._left_behind(found):
                return False
            if etag := self._put(IfMatch=found.etag):
                break
        self._etag, self._taken_by, self._renewed_at = etag, None, _uptime()
        self._ended.clear()
        self._thread = threading.Thread(target=self._renew_until_released, name="lock", daemon=True)
        self._thread.start()
        return True

    def release(self) -> None:
        """Release the lock."""
        if not self.mine:
            return
        from botocore.exceptions import BotoCoreError, ClientError

        self._ended.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE_S)
        self._etag = None
        # if it cannot be deleted, others can take it after STALE_S, because nobody replaces it
        with contextlib.suppress(UserError, BotoCoreError, ClientError):
            found = self._get()
            if found is not None and found.holder.get("token") == self._me["token"]:
                self._client().delete_object(Bucket=self._bucket, Key=self._key)

    remove = release

    def held(self) -> bool | None:
        """Whether another process has the lock; None if this is not known."""
        if self.mine:
            return None
        try:
            found = self._get()
        except UserError:
            return None
        return found is not None and found.age_s < STALE_S and _runs(found.holder) is not False

    def surely_held(self) -> bool:
        """Whether another process of this machine certainly has the lock."""
        found = None if self.mine else self._get()
        return found is not None and found.age_s < STALE_S and _runs(found.holder) is True

    def taken_by(self) -> str | None:
        """Return who has taken over the lock because this holder did not renew it in time, or None. If this
        holder has not renewed it for a while because its machine was suspended, it does so first.
        """
        if self.mine and self._taken_by is None and _uptime() - self._renewed_at > STALE_S / 2:
            self._renew()
        return self._taken_by

    def _left_behind(self, found: _Found) -> bool:
        """Whether the lock's holder has ended. If this is not known, wait for the rest of the time in which
        it would renew the lock.
        """
        runs = _runs(found.holder)
        left_s = STALE_S - found.age_s
        if runs is False or left_s <= 0:
            return True
        if runs:
            return False
        say(
            f"{self._name}: waiting up to {left_s:.0f} s to see whether {_described(found.holder)} "
            "still runs ..."
        )
        until = time.monotonic() + left_s
        while time.monotonic() < until:
            time.sleep(_POLL_S)
            now = self._get()
            if now is None or now.etag != found.etag:
                return now is None
        return True

    def _renew_until_released(self) -> None:
        while self._taken_by is None and not self._ended.wait(RENEW_S):
            self._renew()

    def _renew(self) -> None:
        """Replace the object, unless another driver has taken over the lock. If the store does not answer,
        the next renewal tries again.
        """
        with self._renewal, contextlib.suppress(UserError):
            etag = self._put(IfMatch=self._etag)
            if etag is None:
                found = self._get()
                if found is None:  # somebody has deleted it
                    etag = self._put(IfNoneMatch="*")
                elif found.holder.get("token") == self._me["token"]:
                    etag = found.etag  # replaced by a request whose answer was lost
            if etag is None:
                self._taken_by = "another driver" if found is None else _described(found.holder)
            elif self.mine:
                self._etag, self._renewed_at = etag, _uptime()

    def _put(self, **condition: Any) -> str | None:
        """Write the object if the condition holds. Returns its tag, or None. Raises UserError."""
        from botocore.exceptions import BotoCoreError, ClientError

        body = json.dumps({**self._me, "renewed_at": _now().isoformat()}).encode()
        try:
            done = self._client().put_object(Bucket=self._bucket, Key=self._key, Body=body, **condition)
        except (BotoCoreError, ClientError) as error:
            if _code(error) in _TAKEN or ("IfMatch" in condition and _code(error) in _ABSENT):
                return None
            raise self._unusable(error) from error
        return str(done["ETag"])

    def _get(self) -> _Found | None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            found = self._client().get_object(Bucket=self._bucket, Key=self._key)
            text = found["Body"].read(10_000)
        except (BotoCoreError, ClientError) as error:
            if _code(error) in _ABSENT:
                return None
            raise self._unusable(error) from error
        holder = None
        with contextlib.suppress(ValueError):  # not a lock of this package: only its age counts
            holder = json.loads(text)
        told = found["ResponseMetadata"]["HTTPHeaders"].get("date")
        now = email.utils.parsedate_to_datetime(told) if told else _now()
        age_s = (now - found["LastModified"]).total_seconds()
        return _Found(str(found["ETag"]), holder if isinstance(holder, dict) else {}, age_s)

    def _unusable(self, error: Exception) -> UserError:
        found = without_secrets(reason(error), self._uri)
        return UserError(
            f"{self._name}: expected an existing bucket that accepts conditional writes of {LOCK}, "
            f"found {found}"
        )

    def _client(self) -> Any:
        if self._s3 is None:
            import boto3
            from botocore.config import Config

            query = {name: values[-1] for name, values in parse_qs(self._parts.query).items()}
            options: dict[str, Any] = {"region_name": self._region}
            style = "auto"
            if endpoint := query.get("endpoint_override"):
                options["endpoint_url"] = f"{query.get('scheme', 'https')}://{endpoint}"
                style = "virtual" if query.get("force_virtual_addressing") == "true" else "path"
            if self._parts.username is not None:
                options["aws_access_key_id"] = unquote(self._parts.username)
                options["aws_secret_access_key"] = unquote(self._parts.password or "")
            config = Config(
                request_checksum_calculation="when_required",  # other servers may not support checksums
                s3={"addressing_style": style},
                connect_timeout=5,
                read_timeout=10,
                retries={"total_max_attempts": 2},
            )
            try:
                self._s3 = boto3.client("s3", config=config, **options)
            except ValueError as error:
                raise self._unusable(error) from error
        return self._s3


def _code(error: Exception) -> str:
    """The server's code for an error of boto3; "" for other errors."""
    response: dict[str, Any] = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code", ""))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _uptime() -> float:
    """Seconds since the machine started, including those in which it was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _described(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid', '?')} on {holder.get('host', 'another machine')}"


def _this_process() -> dict[str, Any]:
    """Facts that distinguish this process from all others, on this machine and elsewhere."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "machine": _machine(),
    }


def _runs(holder: dict[str, Any]) -> bool | None:
    """Whether the process of a lock still runs; None if this is not known, for example because it is on
    another machine or in another container.
    """
    pid = holder.get("pid")
    if holder.get("machine") != _machine() or type(pid) is not int:
        return None
    started = _started(pid)
    if started is None and _hidden(pid):
        return None
    return started is not None and started == holder.get("started")


def _started(pid: int) -> int | None:
    """The start of a process in ticks since the machine's start; None if it has ended or is not visible."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *numbers = status.rpartition(")")[2].split()
    return None if state == "Z" else int(numbers[18])  # fields 3 and 22, see proc(5)


def _hidden(pid: int) -> bool:
    """Whether a process exists that /proc does not show to this user."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return not Path(f"/proc/{pid}").exists()
    except OSError:
        pass
    return False


def _machine() -> str:
    """The boot identity of this machine, and its container."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
