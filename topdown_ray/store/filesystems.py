"""Open a URI with one of pyarrow's filesystems, after a check that its server answers."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
from urllib.parse import SplitResult

import pyarrow as pa
import pyarrow.fs as pafs

from topdown_ray.addresses import without_secrets
from topdown_ray.errors import UserError, one_line

OBJECT_STORES = ("s3", "gs", "gcs", "abfs", "abfss")
# their clients may hang for minutes or abort the process
PROBED = (
    "gs",
    "gcs",
    "abfs",
    "abfss",
    "hdfs",
    "viewfs",
)
PROBE_S = 60
GS_RETRY_S = 20  # pyarrow's own limit is 15 minutes, even without credentials


def opened(uri: str, parts: SplitResult, name: str) -> tuple[pafs.FileSystem, str, bool]:
    """Return the filesystem, the folder in it, and whether it is an object store. name: the start of
    messages. Raises UserError.
    """
    if parts.scheme in ("gs", "gcs") and "retry_limit_seconds=" not in parts.query:
        uri += f"{'&' if parts.query else '?'}retry_limit_seconds={GS_RETRY_S}"
    if parts.scheme in PROBED:
        _probe(uri, name)
    try:
        filesystem, path = pafs.FileSystem.from_uri(uri)
    except (OSError, ValueError, ImportError, pa.ArrowException) as error:
        raise UserError(
            f"{name}: expected a folder, or a URI that pyarrow can open (s3, gs, abfs, hdfs, file), "
            f"found {without_secrets(reason(error), uri)}"
        ) from error
    root = path.rstrip("/")
    if not root:
        raise UserError(f"{name}: expected a bucket or folder after the scheme, found none")
    return filesystem, root, parts.scheme in OBJECT_STORES


def reason(error: BaseException) -> str:
    """Return the message of an error as one line, without the call that raised it."""
    return getattr(error, "strerror", None) or one_line(error)


_PROBE = """
import sys
import pyarrow.fs
try:
    files, path = pyarrow.fs.FileSystem.from_uri(sys.stdin.read())
    files.get_file_info([path.partition("/")[0], path])
except Exception as error:
    sys.exit(str(error) or type(error).__name__)
"""


@functools.cache
def _probe(uri: str, name: str) -> None:
    """Raise UserError unless the server of a URI answers.

    The first request runs in a process of its own, because some clients try for minutes, and Azure's client
    ends the process with an uncaught C++ exception if it finds no credentials."""
    problem = f"none within {PROBE_S} s"
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            [sys.executable, "-c", _PROBE],
            input=uri,
            capture_output=True,
            text=True,
            timeout=PROBE_S,
            check=False,
        )
        if done.returncode == 0:
            return
        problem = (
            one_line(without_secrets(done.stderr, uri))
            or f"that its client ended with status {done.returncode}"
        )
    raise UserError(f"{name}: expected a store that answers and accepts your credentials, found {problem}")
