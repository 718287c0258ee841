"""Check the addresses of folders and clusters, and show them without their secrets.

A URI may contain credentials before the ``@`` and in its query. Every message, log, record and page therefore
shows an address through :func:`shown` only."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from topdown_ray.errors import UserError, brief

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SLASHES_FORGOTTEN = re.compile(r"(?i)(s3[an]?|gc?s|abfss?|hdfs|viewfs|https?|ftp|file):(?!//)/?")
_HOST = re.compile(r"([A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_ENCODE = "write /, #, ?, @ and spaces in a key or secret as %2F, %23, %3F, %40 and %20"

#: Query parameters of pyarrow's filesystems that contain no secret. The others are never shown.
_PLAIN = {
    "allow_bucket_creation",
    "allow_bucket_deletion",
    "allow_delayed_open",
    "background_writes",
    "blob_storage_authority",
    "blob_storage_scheme",
    "dfs_storage_authority",
    "dfs_storage_scheme",
    "enable_tls",
    "endpoint_override",
    "force_virtual_addressing",
    "project_id",
    "region",
    "replication",
    "retry_limit_seconds",
    "scheme",
}


def is_uri(where: str | Path) -> bool:
    """Whether this is a URI, ``scheme://...``."""
    return _SCHEME.match(str(where)) is not None


def shown(where: str | Path) -> str:
    """Return an address as messages show it: without credentials, secret parameters and control characters.

    A local path stays as it is. An ambiguous URI loses everything up to its last ``@``, because a secret may
    contain any character."""
    text = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(where)
    )
    scheme = _SCHEME.match(text) or _SLASHES_FORGOTTEN.match(text)
    if scheme is None:
        return text
    rest = text[scheme.end() :]
    authority = _authority(rest)
    if "@" in rest and ("@" in authority or ":" in authority):
        rest = rest.rpartition("@")[2]
    elif not _HOST.fullmatch(authority) and ":" in authority:  # a key and a secret without the @ behind them
        rest = f"...{rest[len(authority) :]}"
    base, _, query = rest.partition("#")[0].partition("?")
    plain = [
        pair for pair in query.split("&") if pair.partition("=")[0] in _PLAIN and "@" not in unquote(pair)
    ]
    return scheme[0] + base + ("?" + "&".join(plain) if plain else "")


def without_secrets(text: str, where: str | Path) -> str:
    """Remove the secrets of an address from another library's message about it."""
    given = str(where)
    scheme = _SCHEME.match(given)
    if scheme is None:
        return text
    parts = urlsplit(given)
    login = parts.netloc.rpartition("@")[0]
    secrets = [
        login,
        *login.split(":"),
        *(value for name, value in parse_qsl(parts.query) if name not in _PLAIN),
    ]
    text = text.replace(given, shown(given))
    for secret in sorted(
        {form for each in secrets for form in (each, unquote(each)) if len(form) > 2}, key=len, reverse=True
    ):
        text = text.replace(secret, "...")
    return text


def hidden(text: str) -> str:
    """Shorten every address with credentials in a message, as a last safeguard before it is printed."""
    return re.sub(r"(?i)\b([a-z][a-z0-9+.-]*://|(?:s3|gs|abfss?):/?)(?=[^\s/?#]*[:@])\S*@", r"\1", text)


def checked(where: str | Path) -> SplitResult:
    """Split a URI into its parts. Raises UserError unless it is unambiguous."""
    text, name = str(where), shown(where)
    scheme = _SCHEME.match(text)
    assert scheme is not None
    rest = text[scheme.end() :]
    authority = _authority(rest)
    _, at, host = authority.rpartition("@")
    if not re.fullmatch(r"[!-~]*", rest) and scheme[1] != "file":
        raise UserError(
            f"{name}: expected a URI of ASCII characters without spaces, found other characters; {_ENCODE}"
        )
    if "#" in rest:
        raise UserError(f"{name}: expected a URI without #, found one; {_ENCODE}")
    if "@" in rest and (rest.count("@") > 1 if at else ":" in authority):
        raise UserError(
            f"{name}: expected one @, between the secret and the bucket, found another form; {_ENCODE}"
        )
    found = _HOST.fullmatch(host)
    if not found or int((found[2] or ":0")[1:]) > 65535:
        raise UserError(f"{name}: expected a bucket or host name after the scheme, found another form")
    if "@" in unquote(rest.partition("?")[2]):
        raise UserError(
            f"{name}: expected credentials before the bucket or in the environment, found an @ in the query"
        )
    if "%00" in rest or "\0" in rest:
        raise UserError(f"{name}: expected a URI without NUL, found one")
    if scheme[1] == "file" and (
        at or host not in ("", "localhost") or not rest[len(authority) :].startswith("/")
    ):
        raise UserError(f"{name}: expected file:/// and an absolute path on this machine, found another form")
    if scheme[1] == "file" and "?" in rest:
        raise UserError(f"{name}: expected a file URI without a query, found one")
    return urlsplit(text)


def check_local(where: str | Path) -> None:
    """Raise UserError for a path that looks like a URI without its slashes."""
    found = _SLASHES_FORGOTTEN.match(str(where))
    if found:
        advice = "file:/// and an absolute path" if found[1].lower() == "file" else f"{found[1]}://"
        raise UserError(
            f"{shown(where)}: expected {advice}, or ./ before a local folder of this name, found {found[0]}"
        )


def _authority(rest: str) -> str:
    """Return the part between ``://`` and the path."""
    return re.split(r"[/?#]", rest, maxsplit=1)[0]


CLIENT = "ray://"  # before the address of a cluster's Ray Client server


def check_address(address: str) -> str:
    """Return the address of a Ray cluster if a command can use it. Raises UserError."""
    host, colon, port = address.removeprefix(CLIENT).rpartition(":")
    numeric = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 1 << 16
    named = bool(host) and host.isascii() and host.isprintable() and not set(host) & set(" /@?#")
    if address not in ("none", "local", "auto") and not (colon and numeric and named):
        raise UserError(
            f"--address: expected none, local, auto, HOST:PORT or ray://HOST:PORT, found {brief(address)}"
        )
    return address
