"""Published artefacts: find them, fetch them, verify them.

Looked for in ``$TOPDOWN_RAY_ASSETS``, then in the user's cache folder, then fetched from upstream (the Once-for-All authors'
file repository) into the cache: pinned SHA-256, temporary file, ``os.replace``, time-out. ``TOPDOWN_RAY_OFFLINE=1`` forbids the
last step. Nothing falls back to something else silently.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import requests

from topdown_ray.errors import UserError

UPSTREAM = "https://raw.githubusercontent.com/han-cai/files/master/ofa/"
TIMEOUT_S = 20


@dataclass(frozen=True)
class Asset:
    """A published file: its path below an assets folder (and upstream), its pinned hash, and what it is."""

    path: str
    sha256: str
    about: str
    url: str = ""  # where it is not below UPSTREAM


NOTE10_RESOLUTIONS = (160, 176, 192, 208, 224)

ASSETS: dict[str, Asset] = {
    asset.path: asset
    for asset in (
        Asset(
            "acc_predictor.pth",
            "48685122a3540636b06699af66cd816456b25f29b69563e2fda9bed4018eeba0",
            "top-1 predictor of MobileNetV3 (width 1.2)",
        ),
        Asset(
            "ofa_resnet50_acc_predictor.pth",
            "68912b4b4be38feb504c5b773dc847af23a637984d5eaabf548de72cd0f79529",
            "top-1 predictor of ResNet50D",
        ),
        *(
            Asset(f"note10/{resolution}_lookup_table.yaml", sha256, f"Note10 block latencies (ms) at {resolution} pixels")
            for resolution, sha256 in zip(
                NOTE10_RESOLUTIONS,
                (
                    "a2671a45e9400542679ed03de946b45d6a35010f9ab21834af3e7ba8341d36d1",
                    "34223ae037d5719a5f33261bdfd9341f590a2999edf520f174309605dc06307c",
                    "0ff5ca0649e56ad34a42d6a8a6f20adb5121c8d12d135299397b310472db79e2",
                    "41aa63af766a8298354e6aa5ae69d512ac68656a6e7d0a4fa5dc725c8d438633",
                    "c13a9bcb3f4becae844bce4897129c4e42975984c1029cbd5acb48c970136530",
                ),
                strict=True,
            )
        ),
    )
}


def cache_folder() -> Path:
    """The user's cache folder for fetched artefacts."""
    return platformdirs.user_cache_path("topdown_ray")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def local(path: str) -> Path | None:
    """Where a file of this path lies on this machine: the assets folder, else the cache, else None. Hashes are not checked."""
    folders = [Path(folder) for folder in [os.environ.get("TOPDOWN_RAY_ASSETS")] if folder] + [cache_folder()]
    return next((folder / path for folder in folders if (folder / path).is_file()), None)


def find(path: str) -> Path:
    """The verified file of a published asset, fetched if need be. Raises UserError: wrong hash, offline, not to be had."""
    return find_asset(ASSETS[path])


def find_asset(asset: Asset) -> Path:
    """As :func:`find`, of any pinned file."""
    found = local(asset.path) or _fetch(asset)
    digest = sha256_of(found)
    if digest != asset.sha256:
        raise UserError(f"{found}: expected SHA-256 {asset.sha256}, found {digest}; delete the file to fetch it again")
    return found


def _fetch(asset: Asset) -> Path:
    advice = "set TOPDOWN_RAY_ASSETS to a folder that holds it"
    if os.environ.get("TOPDOWN_RAY_OFFLINE", "0") not in ("", "0"):
        raise UserError(f"{asset.path}: not on this machine, and TOPDOWN_RAY_OFFLINE forbids fetching it; {advice}")
    destination = cache_folder() / asset.path
    temporary = None
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        response = requests.get(asset.url or UPSTREAM + asset.path, timeout=TIMEOUT_S)
        response.raise_for_status()
        digest = hashlib.sha256(response.content).hexdigest()
        if digest != asset.sha256:
            raise UserError(f"{asset.url or UPSTREAM + asset.path}: expected SHA-256 {asset.sha256}, found {digest}; {advice}")
        with tempfile.NamedTemporaryFile(dir=destination.parent, prefix=".", delete=False) as file:
            temporary = Path(file.name)
            file.write(response.content)
        temporary.replace(destination)
    except (requests.RequestException, OSError) as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise UserError(f"{asset.path}: not on this machine and not fetched ({type(error).__name__}); {advice}") from error
    return destination
