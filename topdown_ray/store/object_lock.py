"""The lock of a folder in an S3 bucket, which makes its holder the only driver.

It is an object that is created only if it is absent, and that its holder replaces every few seconds. A driver
that was killed leaves it behind: it counts no more as soon as its process is known to have ended (on the same
machine), or when nobody has replaced it for a while. The requests are boto3's, since pyarrow cannot create an
object only if it is absent."""

from __future__ import annotations

import contextlib
import datetime
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

RENEW_S = 10.0  # the holder replaces the object so often
STALE_S = 60.0  # a lock that nobody has replaced for so long was left behind
_POLL_S = 1.0
_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_ABSENT = {"NoSuchKey", "404"}


class _Found(NamedTuple):
    """The lock of some driver, as it lies in the bucket."""

    etag: str
    holder: dict[str, Any]
    age_s: float  # by this machine's clock, which may differ from the store's


class ObjectLock:
    """An object in the folder that it locks. uri, parts: of the folder, whole and split. root: bucket and
    folder. name: of the folder, begins messages.
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
        self._ended = threading.Event()
        self._renewing: threading.Thread | None = None
        self._s3: Any = None
        self.lost: str | None = None  # who has taken it over from this holder

    @property
    def mine(self) -> bool:
        """Whether this object holds it."""
        return self._etag is not None

    def check(self) -> None:
        """Nothing else can bear its name in a bucket."""

    def hold(self) -> bool:
        """Take it. False where another driver has it. Raises UserError."""
        if self.mine:
            return True
        self.lost = None
        while True:
            if etag := self._put(IfNoneMatch="*"):
                break
            found = self._get()
            if found is None:  # released since
                continue
            if not self._left_behind(found):
                return False
            if etag := self._put(IfMatch=found.etag):
                break
        self._etag = etag
        self._ended.clear()
        self._renewing = threading.Thread(target=self._renew, name="lock", daemon=True)
        self._renewing.start()
        return True

    def release(self) -> None:
        """Let others take it."""
        if not self.mine:
            return
        self._ended.set()
        if self._renewing is not None:
            self._renewing.join()
        self._etag = None
        from botocore.exceptions import BotoCoreError, ClientError

        # where it cannot be deleted, others may take it soon, since nobody replaces it any more
        with contextlib.suppress(UserError, BotoCoreError, ClientError):
            found = self._get()
            if found is not None and found.holder.get("token") == self._me["token"]:
                self._client().delete_object(Bucket=self._bucket, Key=self._key)

    remove = release

    def held(self) -> bool | None:
        """Whether another process has it; None where that cannot be told."""
        if self.mine:
            return None
        try:
            found = self._get()
        except UserError:
            return None
        if found is None:
            return False
        runs = _runs(found.holder)
        return found.age_s < STALE_S if runs is None else runs

    def _left_behind(self, found: _Found) -> bool:
        """Whether the lock's holder has ended: known on its own machine, elsewhere waited for."""
        runs = _runs(found.holder)
        if runs is not None:
            return not runs
        say(
            f"{self._name}: waiting up to {STALE_S:.0f} s to see whether the driver on "
            f"{found.holder.get('host', 'another machine')} still runs ..."
        )
        until = time.monotonic() + STALE_S
        while time.monotonic() < until:
            time.sleep(_POLL_S)
            now = self._get()
            if now is None or now.etag != found.etag:
                return now is None
        return True

    def _renew(self) -> None:
        """Replace the object until the lock is released, or another driver has taken it over."""
        while not self._ended.wait(RENEW_S):
            with contextlib.suppress(UserError):  # a store that does not answer may do so next time
                if etag := self._put(IfMatch=self._etag):
                    self._etag = etag
                    continue
                found = self._get()
                if found is not None and found.holder.get("token") == self._me["token"]:
                    self._etag = found.etag  # replaced by a request whose answer was lost
                    continue
                self.lost = "nobody" if found is None else _described(found.holder)
                return

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
            holder = json.loads(found["Body"].read(10_000))
        except ValueError:  # not a lock of ours: its age alone tells
            holder = {}
        except (BotoCoreError, ClientError) as error:
            if _code(error) in _ABSENT:
                return None
            raise self._unusable(error) from error
        age_s = (_now() - found["LastModified"]).total_seconds()
        return _Found(str(found["ETag"]), holder if isinstance(holder, dict) else {}, age_s)

    def _unusable(self, error: Exception) -> UserError:
        found = without_secrets(reason(error), self._uri)
        return UserError(
            f"{self._name}: expected a bucket in which {LOCK} can be created only if it is absent, "
            f"found {found}"
        )

    def _client(self) -> Any:
        if self._s3 is None:
            import boto3
            from botocore.config import Config

            query = {name: values[-1] for name, values in parse_qs(self._parts.query).items()}
            # other servers than Amazon's may not know the newer checksums
            config = Config(request_checksum_calculation="when_required")
            options: dict[str, Any] = {"region_name": self._region, "config": config}
            if endpoint := query.get("endpoint_override"):
                options["endpoint_url"] = f"{query.get('scheme', 'https')}://{endpoint}"
            if self._parts.username is not None:
                options["aws_access_key_id"] = unquote(self._parts.username)
                options["aws_secret_access_key"] = unquote(self._parts.password or "")
            self._s3 = boto3.client("s3", **options)
        return self._s3


def _code(error: Exception) -> str:
    """What an error of boto3 is called by the server; "" for any other."""
    response: dict[str, Any] = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code", ""))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _described(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid', '?')} on {holder.get('host', 'another machine')}"


def _this_process() -> dict[str, Any]:
    """What tells this process from all others, on this machine and elsewhere."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "machine": _machine(),
    }


def _runs(holder: dict[str, Any]) -> bool | None:
    """Whether the process of a lock still runs; None where it is one of another machine or container."""
    if holder.get("machine") != _machine() or type(holder.get("pid")) is not int:
        return None
    return _started(holder["pid"]) == holder.get("started")


def _started(pid: int) -> int | None:
    """When a process started, in ticks since the machine did; None where there is no such process."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *numbers = status.rpartition(")")[2].split()
    return None if state == "Z" else int(numbers[18])  # fields 3 and 22, see proc(5)


def _machine() -> str:
    """This start of this machine, and the container on it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
