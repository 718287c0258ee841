"""Published artefacts: what there is, where it lies on this machine, fetching and verifying it.

Looked for in ``$TOPDOWN_RAY_ASSETS``, then in the user's cache folder, then fetched from upstream (the
Once-for-All authors' file repository, or the mirror ``$TOPDOWN_RAY_MIRROR``) into the cache: pinned SHA-256,
temporary file, ``os.replace``, time-outs. ``TOPDOWN_RAY_OFFLINE=1`` forbids the last step. Nothing falls back
to something else silently."""

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
_ADVICE = "set TOPDOWN_RAY_ASSETS to a folder that holds it"
_WITHOUT = ", or use what comes with the package: --predictor embedded --cost epyc_1thread"


@dataclass(frozen=True)
class Asset:
    """A published file: its path below an assets folder (and upstream), its pinned hash (None: not known),
    and what it is.
    """

    path: str
    sha256: str | None
    about: str
    name: str  # what ``fetch`` calls it; several files may share one
    url: str = ""  # where it is not below the upstream address


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
        # of these two no sum is published, and ofa checks none
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
            # the authors' own, of their Git LFS pointer
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
    """A folder that is searched, and why."""

    path: Path
    why: str


def cache_folder() -> Path:
    """The user's cache folder for fetched artefacts."""
    return platformdirs.user_cache_path("topdown_ray")


def folders() -> list[Folder]:
    """The folders that are searched, in order."""
    named = os.environ.get("TOPDOWN_RAY_ASSETS")
    first = [Folder(Path(named), "$TOPDOWN_RAY_ASSETS")] if named else []
    return [*first, Folder(cache_folder(), "the user's cache")]


def upstream() -> str:
    """The address below which the files are published: a mirror, if one is named."""
    address = os.environ.get("TOPDOWN_RAY_MIRROR") or UPSTREAM
    if not address.startswith(("http://", "https://")):
        raise UserError(f"TOPDOWN_RAY_MIRROR: expected an http or https address, found {shown(address)!r}")
    try:
        checked(address)
    except UserError as error:
        raise UserError(f"TOPDOWN_RAY_MIRROR: {error}") from error
    return address.rstrip("/") + "/"


def offline() -> bool:
    """Whether ``TOPDOWN_RAY_OFFLINE`` forbids fetching."""
    return os.environ.get("TOPDOWN_RAY_OFFLINE", "0") not in ("", "0")


def local(path: str) -> Path | None:
    """Where a file of this path lies on this machine: the assets folder, else the cache, else None. Hashes
    are not checked.
    """
    return next((folder.path / path for folder in folders() if (folder.path / path).is_file()), None)


def find(path: str) -> Path:
    """The verified file of a published asset, fetched if need be. Raises UserError: wrong hash, offline, not
    to be had.
    """
    asset = ASSETS[path]
    found = local(path) or fetch(asset, cache_folder(), brisk=True)
    digest = sha256_of(found)
    if digest != asset.sha256:
        raise UserError(
            f"{found}: expected SHA-256 {asset.sha256}, found {digest}; delete the file to fetch it again"
        )
    return found


class AssetCheck(NamedTuple):
    """What hashing a present file found."""

    path: Path
    right: bool | None  # None: there is nothing to compare with
    finding: str


def verify() -> Iterator[AssetCheck]:
    """Hash every published file that lies in one of the folders. Raises UserError where one cannot be
    read.
    """
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
                yield AssetCheck(path, None, f"no sum is published or recorded; SHA-256 {digest}")
            elif digest != expected:
                yield AssetCheck(path, False, f"expected SHA-256 {expected}, found {digest}")
            else:
                yield AssetCheck(
                    path, True, "SHA-256 as pinned" if asset.sha256 else "SHA-256 as when it was fetched"
                )


# --- fetching -----------------------------------------------------------------------------------------------


def named(names: list[str]) -> list[Asset]:
    """The files of these names; of no name: all but supernet weights. Raises UserError for a name that there
    is not.
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
    """The file as it should be, in this folder or (None) in those that are searched; None: to be fetched.

    A broken file of the cache or of ``folder`` will be replaced. Raises UserError for one in
    ``$TOPDOWN_RAY_ASSETS``, which would hide the fetched one."""
    found = local(asset.path) if folder is None else folder / asset.path
    if found is None or not found.is_file():
        return None
    digest, expected = sha256_of(found), asset.sha256 or _recorded(found)
    if expected in (None, digest):
        return found
    if folder is None and found != cache_folder() / asset.path:
        raise UserError(
            f"{found}: expected SHA-256 {expected}, found {digest}; delete the file to fetch it again"
        )
    return None


DownloadDisplay = Callable[[Asset], AbstractContextManager["OnBytes"]]  # shows how far a download is


def provide(names: list[str], to: Path | None, display: DownloadDisplay) -> Iterator[tuple[Path, bool]]:
    """Have the files of these names in a folder (None: in any that is searched, else the cache): each path,
    and whether it was fetched now. Raises UserError.
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
    """Fetch one file into a folder, and return it. brisk: give up soon, where somebody waits for something
    else. Raises UserError: offline, wrong hash, not to be had.

    A file of which no sum is published gets the one it came with recorded beside it, which ``verify`` holds
    it to."""
    if offline():
        raise UserError(
            f"{asset.path}: not on this machine, and TOPDOWN_RAY_OFFLINE forbids fetching it; "
            f"{_advice(asset)}"
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
            f"{asset.path}: not on this machine and not fetched: {error}; {_advice(asset)}"
        ) from error
    except OSError as error:
        where = error.filename or destination
        raise UserError(
            f"{asset.path}: expected to write it to {where}, found {error.strerror or error}"
        ) from error
    return destination


def _advice(asset: Asset) -> str:
    """What to do where a file cannot be had."""
    return _ADVICE if asset.path.startswith("ofa_nets/") else _ADVICE + _WITHOUT


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _recorded(path: Path) -> str | None:
    words = _record(path).read_text().split() if _record(path).is_file() else []
    return words[0] if words else None
