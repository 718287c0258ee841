"""List, find, download and verify the published artefacts: predictors, latency tables and supernet weights.

A file is looked for in ``$TOPDOWN_RAY_ASSETS``, then in the user's cache folder. If it is in neither, it is
downloaded into the cache from the Once-for-All authors' file repository or from the mirror
``$TOPDOWN_RAY_MIRROR``, and its SHA-256 is checked. ``TOPDOWN_RAY_OFFLINE=1`` forbids downloads. A missing
file is an error; no other file is used instead."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import platformdirs

from topdown_ray.addresses import checked, shown
from topdown_ray.errors import UserError
from topdown_ray.files import check_output, replacing
from topdown_ray.files import sha256_of as sha256_of

if TYPE_CHECKING:
    from topdown_ray.download import OnBytes

UPSTREAM = "https://raw.githubusercontent.com/han-cai/files/master/ofa/"
_ADVICE = "set TOPDOWN_RAY_ASSETS to a folder that contains it"
_WITHOUT = ", or use the files that come with the package: --predictor embedded --cost epyc_1thread"


@dataclass(frozen=True)
class Asset:
    """A published file: its path below an assets folder (and upstream), its pinned hash (None if no hash is
    published), and a description.
    """

    path: str
    sha256: str | None
    about: str
    name: str  # its name in ``assets fetch``; several files may share one
    url: str = ""  # its full address, if it is not below the upstream address


ASSETS: dict[str, Asset] = {
    asset.path: asset
    for asset in (
        Asset(
            "acc_predictor.pth",
            "48685122a3540636b06699af66cd816456b25f29b69563e2fda9bed4018eeba0",
            "top-1 predictor of MobileNetV3 (width 1.2)",
            "acc_predictor.pth",
        ),
        Asset(
            "ofa_resnet50_acc_predictor.pth",
            "68912b4b4be38feb504c5b773dc847af23a637984d5eaabf548de72cd0f79529",
            "top-1 predictor of ResNet50D",
            "ofa_resnet50_acc_predictor.pth",
        ),
        *(
            Asset(
                f"note10/{resolution}_lookup_table.yaml",
                sha256,
                f"Note10 block latencies (ms) at {resolution} pixels",
                "note10",
            )
            for resolution, sha256 in zip(
                (160, 176, 192, 208, 224),
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
        # no SHA-256 is published for these two, and ofa checks none
        Asset(
            "ofa_nets/ofa_mbv3_d234_e346_k357_w1.2",
            None,
            "supernet weights of MobileNetV3 (width 1.2)",
            "ofa_mbv3_d234_e346_k357_w1.2",
        ),
        Asset(
            "ofa_nets/ofa_proxyless_d234_e346_k357_w1.3",
            None,
            "supernet weights of ProxylessNAS (width 1.3)",
            "ofa_proxyless_d234_e346_k357_w1.3",
        ),
        Asset(
            "ofa_nets/ofa_resnet50_d0-1-2_e0.2-0.25-0.35_w0.65-0.8-1.0",
            # from the authors' Git LFS pointer
            "3406a4c852f4573a58e9a01f35406baa4ad3787044ffadc6ea45571ad2b9123a",
            "supernet weights of ResNet50D (193 MB)",
            "ofa_resnet50_d0-1-2_e0.2-0.25-0.35_w0.65-0.8-1.0",
            "https://media.githubusercontent.com/media/han-cai/files/master/ofa/"
            "ofa_nets/ofa_resnet50_d0-1-2_e0.2-0.25-0.35_w0.65-0.8-1.0",
        ),
    )
}


# --- on this machine ----------------------------------------------------------------------------------------


class Folder(NamedTuple):
    """A folder that is searched, and the reason in words."""

    path: Path
    why: str


def cache_folder() -> Path:
    """Return the user's cache folder for downloaded artefacts."""
    return platformdirs.user_cache_path("topdown_ray")


def folders() -> list[Folder]:
    """Return the folders that are searched, in order."""
    named = os.environ.get("TOPDOWN_RAY_ASSETS")
    first = [Folder(Path(named), "$TOPDOWN_RAY_ASSETS")] if named else []
    return [*first, Folder(cache_folder(), "the user's cache")]


def upstream() -> str:
    """Return the address below which the files are published: the mirror, if one is set."""
    address = os.environ.get("TOPDOWN_RAY_MIRROR") or UPSTREAM
    if not address.startswith(("http://", "https://")):
        raise UserError(f"TOPDOWN_RAY_MIRROR: expected an http or https address, found {shown(address)!r}")
    try:
        checked(address)
    except UserError as error:
        raise UserError(f"TOPDOWN_RAY_MIRROR: {error}") from error
    return address.rstrip("/") + "/"


def offline() -> bool:
    """Whether ``TOPDOWN_RAY_OFFLINE`` forbids downloads."""
    return os.environ.get("TOPDOWN_RAY_OFFLINE", "0") not in ("", "0")


def local(path: str) -> Path | None:
    """Return the file of this path in the assets folder, else in the cache, else None. Hashes are not
    checked.
    """
    return next((folder.path / path for folder in folders() if (folder.path / path).is_file()), None)


def find(path: str) -> Path:
    """Return the verified file of a published asset, and download it if necessary. Raises UserError if the
    hash is wrong or the file cannot be downloaded.
    """
    asset = ASSETS[path]
    found = local(path) or fetch(asset, cache_folder(), brisk=True)
    digest = sha256_of(found)
    if digest != asset.sha256:
        raise UserError(
            f"{found}: expected SHA-256 {asset.sha256}, found {digest}; delete the file to download it again"
        )
    return found


class AssetCheck(NamedTuple):
    """The result of hashing one file."""

    path: Path
    right: bool | None  # None: there is nothing to compare with
    finding: str


def verify() -> Iterator[AssetCheck]:
    """Hash every published file in the folders. Raises UserError if one cannot be read."""
    for asset in ASSETS.values():
        for folder in folders():
            path = folder.path / asset.path
            if not path.is_file():
                continue
            try:
                digest, expected = sha256_of(path), asset.sha256 or _recorded(path)
            except OSError as error:
                raise UserError(f"{path}: expected a readable file, found none ({error.strerror})") from error
            if expected is None:
                yield AssetCheck(path, None, f"no SHA-256 is published or recorded; found {digest}")
            elif digest != expected:
                yield AssetCheck(path, False, f"expected SHA-256 {expected}, found {digest}")
            else:
                yield AssetCheck(
                    path,
                    True,
                    "SHA-256 as published" if asset.sha256 else "SHA-256 as when it was downloaded",
                )


# --- downloads ----------------------------------------------------------------------------------------------


def named(names: list[str]) -> list[Asset]:
    """Return the files of these names; without names, all files except supernet weights. Raises UserError for
    an unknown name.
    """
    known = sorted({asset.name for asset in ASSETS.values()})
    for name in names:
        if name not in known:
            raise UserError(f"NAME: expected some of {', '.join(known)}, found {name!r}")
    return [
        asset
        for asset in ASSETS.values()
        if asset.name in names or (not names and not asset.path.startswith("ofa_nets/"))
    ]


def present(asset: Asset, folder: Path | None = None) -> Path | None:
    """Return an intact file in this folder (by default in the folders that are searched), or None if it must
    be downloaded.

    A broken file in the cache or in ``folder`` will be replaced. A broken one in ``$TOPDOWN_RAY_ASSETS``
    would hide the downloaded file, so it raises UserError."""
    found = local(asset.path) if folder is None else folder / asset.path
    if found is None or not found.is_file():
        return None
    digest, expected = sha256_of(found), asset.sha256 or _recorded(found)
    if expected in (None, digest):
        return found
    if folder is None and found != cache_folder() / asset.path:
        raise UserError(
            f"{found}: expected SHA-256 {expected}, found {digest}; delete the file to download it again"
        )
    return None


DownloadDisplay = Callable[[Asset], AbstractContextManager["OnBytes"]]  # shows the progress of a download


def provide(names: list[str], to: Path | None, display: DownloadDisplay) -> Iterator[tuple[Path, bool]]:
    """Make sure that the files of these names are in a folder, and yield each path and whether it was
    downloaded by this call. Raises UserError.

    to: the folder; None for any folder that is searched, with downloads into the cache.
    """
    wanted = named(names)
    if to is not None:
        check_output(to, "--to", folder=True)
    for asset in wanted:
        path = present(asset, to)
        if path is not None:
            yield path, False
            continue
        with display(asset) as show:
            path = fetch(asset, cache_folder() if to is None else to, show=show)
        yield path, True


def fetch(asset: Asset, folder: Path, brisk: bool = False, show: OnBytes | None = None) -> Path:
    """Download one file into a folder, and return its path. brisk: give up soon, for commands in which the
    download is only a first step. Raises UserError if the file cannot be downloaded or its hash is wrong.

    If no SHA-256 is published, that of the downloaded file is written next to it, and ``verify`` compares the
    file with it later."""
    if offline():
        raise UserError(
            f"{asset.path}: expected an intact local file, found none, and TOPDOWN_RAY_OFFLINE forbids "
            f"downloads; unset it, or {_advice(asset)}"
        )
    from topdown_ray.download import BRISK, PATIENT, download  # brings an HTTP client, which few need

    destination = folder / asset.path
    try:
        mirrored = upstream() != UPSTREAM
        address = upstream() + asset.path if mirrored or not asset.url else asset.url
        digest = download(address, destination, asset.sha256, BRISK if brisk else PATIENT, show)
        if asset.sha256 is None:
            with replacing(_record(destination)) as temporary:
                temporary.write_text(f"{digest}  {destination.name}\n")  # sha256sum's form
    except UserError as error:
        raise UserError(
            f"{asset.path}: expected an intact local file, found none, and the download failed: {error}; "
            f"{_advice(asset)}"
        ) from error
    except OSError as error:
        where = error.filename or destination
        raise UserError(
            f"{asset.path}: expected to be able to write {where}, found {error.strerror or error}"
        ) from error
    return destination


def _advice(asset: Asset) -> str:
    """Return what a user can do if a file cannot be downloaded."""
    return _ADVICE if asset.path.startswith("ofa_nets/") else _ADVICE + _WITHOUT


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _recorded(path: Path) -> str | None:
    words = _record(path).read_text().split() if _record(path).is_file() else []
    return words[0] if words else None
