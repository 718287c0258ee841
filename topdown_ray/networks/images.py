"""Image folders as OFA reads ImageNet: ``train/CLASS/*`` and ``val/CLASS/*``, with torchvision's transforms.

Validation images are resized to r / 0.875 and cropped to the middle r x r pixels; calibration images are
training images, cropped and flipped at random (``ofa.imagenet_classification.data_providers.imagenet``). All
of it is fixed by a seed: which training images calibrate is OFA's own choice (``DataProvider.SUB_SEED``), and
how each is cropped is a function of the seed and its place, so a subnet's accuracy does not depend on what
was measured before, or where."""

from __future__ import annotations

import concurrent.futures
import hashlib
import io
import math
import os
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import folder as torchvision_folder

from topdown_ray.errors import UserError, one_line
from topdown_ray.files import LARGEST_DOCUMENT, brief_path, check_regular, read_bytes
from topdown_ray.networks.weights import Description

SUB_SEED = 937162211  # ofa.imagenet_classification.data_providers.base_provider.DataProvider.SUB_SEED
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Bad = Literal["error", "skip"]

# Pillow knows others, some of which run programs (EPS: Ghostscript)
FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "BMP",
    "PPM",
    "TIFF",
)
MOST_PIXELS = 89_478_485  # of an image, width x height: Pillow's own bound
MOST_BYTES = LARGEST_DOCUMENT  # of an image's file
# times the shorter one: resizing makes the shorter side as long as the resolution, the other as much longer
LONGEST_SIDE = 200


class Sample(NamedTuple):
    """An image: its path below the data folder, and its class."""

    path: str
    label: int


@dataclass(frozen=True)
class Settings:
    """How images are chosen and batched; all but ``bad``, ``loaders`` and ``memory_mib`` may change an
    accuracy.
    """

    calibration: int = 2000  # training images; OFA's run manager
    calibration_batch: int = 200
    batch: int = 100
    seed: int = SUB_SEED
    bad: Bad = (
        "error"  # an image that does not decode, a class without images: an error, or left out and counted
    )
    loaders: int = 0  # processes that decode images; 0: the one that measures
    memory_mib: int = 1024  # decoded images that are kept for the next subnet of the same resolution

    def decisive(self) -> list[int]:
        """What an evaluation's identity holds of the settings. Skipping changes nothing where all is well,
        and is counted.
        """
        return [self.calibration, self.calibration_batch, self.batch, self.seed]


@dataclass(frozen=True)
class ImageData:
    """The images that measure a subnet. ``sha256`` is of the names and contents of all of them, in order."""

    root: Path
    validation: tuple[Sample, ...]
    calibration: tuple[Sample, ...]
    classes: tuple[str, ...]
    missing_classes: int  # of the network's classes, those without validation images
    sha256: str
    settings: Settings
    resize_scale: float
    flip: bool


def find_images(root: Path, description: Description, settings: Settings) -> ImageData:
    """Scan a data folder and check it against a network. Raises UserError: missing, half-empty, another
    number of classes.
    """
    if settings.calibration < 1 or settings.batch < 1 or settings.calibration_batch < 1:
        raise UserError(
            f"calibration, batch: expected at least 1, found {settings.calibration}, {settings.batch}"
        )
    train, train_classes, _ = _scan(root / "train", settings.bad)
    validation, classes, empty = _scan(root / "val", settings.bad)
    if classes != train_classes:
        odd = sorted(set(classes) ^ set(train_classes))[0]
        where = "train" if odd in train_classes else "val"
        raise UserError(
            f"{root}: expected the same class folders in train and val, found {odd} in {where} only"
        )
    absent = 0
    if len(classes) != description.n_classes or (description.classes and classes != description.classes):
        known = description.classes
        if not (settings.bad == "skip" and known and set(classes) < set(known)):
            odd_names = sorted(set(classes) - set(known)) if known else []
            found = f"{len(classes)}" + (
                f", {odd_names[0]!r} among them, which the network does not know" if odd_names else ""
            )
            raise UserError(
                f"{root}: expected {description.n_classes} class folders, as the network has outputs, found "
                f"{found}"
            )
        place = [known.index(name) for name in classes]
        train, validation = (
            [Sample(path, place[label]) for path, label in part] for part in (train, validation)
        )
        absent = len(known) - len(classes)
    generator = torch.Generator()
    generator.manual_seed(settings.seed)
    chosen = torch.randperm(len(train), generator=generator)[: settings.calibration].tolist()
    calibration = [train[i] for i in chosen]
    return ImageData(
        root=root.resolve(),
        validation=tuple(validation),
        calibration=tuple(calibration),
        classes=classes,
        missing_classes=absent + empty,
        sha256=_digest(root, [*validation, *calibration], settings.bad),
        settings=settings,
        resize_scale=description.resize_scale,
        flip=description.flip,
    )


def _scan(root: Path, bad: Bad) -> tuple[list[Sample], tuple[str, ...], int]:
    """All images below a split's folder, the names of its classes, and how many of these have no image."""
    if not root.is_dir():
        raise UserError(
            f"{root}: expected a folder with one folder of images a class, found "
            f"{'a file' if root.exists() else 'none'}"
        )
    try:
        classes, places = torchvision_folder.find_classes(str(root))
    except FileNotFoundError as error:
        raise UserError(f"{root}: expected one folder of images a class, found none") from error
    samples = [
        Sample(str(path.relative_to(root.parent)), places[name])
        for name in classes
        for path in _files(root / name, bad)
    ]
    empty = [name for label, name in enumerate(classes) if label not in {sample.label for sample in samples}]
    if not samples:
        raise UserError(f"{root}: expected images, found {len(classes)} class folders without any")
    if empty and bad == "error":
        others = f" ({len(empty)} such folders)" if len(empty) > 1 else ""
        raise UserError(
            f"{root / empty[0]}: expected images of the class, found none{others}; --bad skip goes on without"
        )
    return samples, tuple(classes), len(empty)


def _files(folder: Path, bad: Bad) -> Iterator[Path]:
    """The files of a class that are named as images, in a fixed order. Links to folders are not followed:
    they may form loops.
    """
    for name, inner, files in sorted(os.walk(folder)):
        for link in inner if bad == "error" else ():
            if (Path(name) / link).is_symlink():
                where = brief_path(Path(name) / link)
                raise UserError(
                    f"{where}: expected images, found a link to a folder; --bad skip goes on without it"
                )
        yield from (Path(name) / file for file in sorted(files) if torchvision_folder.is_image_file(file))


def read_image(path: Path) -> Image.Image:
    """An image file as RGB. Raises UserError: not a regular file, too large, too long, of another format,
    broken.
    """
    data = read_bytes(path, "an image", MOST_BYTES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                short, long = sorted(image.size)
                if short * long > MOST_PIXELS or long > LONGEST_SIDE * short:
                    size = f"{image.width} x {image.height}"
                    bounds = (
                        f"at most {MOST_PIXELS:,} pixels, one side at most {LONGEST_SIDE} times the other"
                    )
                    raise UserError(f"{brief_path(path)}: expected an image of {bounds}, found {size}")
                return image.convert("RGB")
    except (UserError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        found = one_line(error)
        raise UserError(
            f"{brief_path(path)}: expected an image of at most {MOST_PIXELS:,} pixels, found {found}"
        ) from error
    except Exception as error:  # Pillow raises nearly anything for a broken file
        reason = one_line(error).split(" <_io.")[0]  # without the buffer's address
        raise UserError(
            f"{brief_path(path)}: expected an image ({', '.join(FORMATS)}), found {reason}"
        ) from error


def _digest(root: Path, samples: Sequence[Sample], bad: Bad) -> str:
    """Of names, labels and contents; files are read by threads, hashed in order. What is never decoded has no
    contents.
    """

    def one(sample: Sample) -> bytes:
        path = root / sample.path
        try:
            check_regular(path, "an image", MOST_BYTES)
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        except UserError as error:
            if bad == "skip":
                return b"none"
            raise UserError(f"{error}; --bad skip goes on without it") from error
        except OSError as error:
            raise UserError(f"{path}: expected a readable image, found {error.strerror}") from error

    total = hashlib.sha256()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for sample, digest in zip(samples, pool.map(one, samples), strict=True):
            total.update(f"{sample.path}\0{sample.label}\0".encode() + digest)
    return total.hexdigest()


def validation_transform(resolution: int) -> Any:
    """PIL image -> uint8 (3, r, r): the part of OFA's validation transform before ``ToTensor`` and
    ``Normalize``.
    """
    parts = [
        transforms.Resize(math.ceil(resolution / 0.875)),
        transforms.CenterCrop(resolution),
        transforms.PILToTensor(),
    ]
    return transforms.Compose(parts)


def training_transform(resolution: int, resize_scale: float, flip: bool) -> Any:
    """The same of OFA's training transform; draws from torch's global generator."""
    parts = [transforms.RandomResizedCrop(resolution, scale=(resize_scale, 1.0))]
    return transforms.Compose(
        [*parts, *([transforms.RandomHorizontalFlip()] if flip else []), transforms.PILToTensor()]
    )


def normalise(images: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 3, r, r) -> float32, with the bits of torchvision's ``ToTensor`` and ``Normalize``."""
    mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return images.float().div(255).sub_(mean).div_(std)


class _Decoded(NamedTuple):
    image: torch.Tensor | None  # None: it does not decode
    label: int
    reason: str


class _Images(Dataset[_Decoded]):
    """Decodes and transforms; each image by a generator of its own."""

    def __init__(self, root: Path, samples: Sequence[Sample], transform: Any, seed: int):
        self.root, self.samples, self.transform, self.seed = root, samples, transform, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> _Decoded:
        path, label = self.samples[index]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self.seed * 1_000_003 + index) % 2**63)
            try:
                return _Decoded(self.transform(read_image(self.root / path)), label, "")
            except UserError as error:
                return _Decoded(None, label, str(error))


class Batch(NamedTuple):
    """Images uint8 (B, 3, r, r) and labels int64 (B,); how many images of the batch did not decode."""

    images: torch.Tensor
    labels: torch.Tensor
    bad: int


class Loader:
    """Batches of a data folder in a fixed order; keeps decoded ones within a bound, the resolution used last
    the longest.
    """

    def __init__(self, data: ImageData):
        self.data = data
        self._kept: OrderedDict[tuple[str, int], list[Batch]] = OrderedDict()

    def validation(self, resolution: int) -> Iterator[Batch]:
        """The validation images at a resolution. Raises UserError on one that does not decode, unless they
        are to be skipped.
        """
        data = self.data
        return self._batches(
            "validation", data.validation, resolution, validation_transform(resolution), data.settings.batch
        )

    def calibration(self, resolution: int) -> Iterator[Batch]:
        """The calibration images at a resolution, as above."""
        data = self.data
        transform = training_transform(resolution, data.resize_scale, data.flip)
        return self._batches(
            "calibration", data.calibration, resolution, transform, data.settings.calibration_batch
        )

    def _batches(
        self, name: str, samples: Sequence[Sample], resolution: int, transform: Any, batch: int
    ) -> Iterator[Batch]:
        key = (name, resolution)
        if key in self._kept:
            self._kept.move_to_end(key)
            yield from self._kept[key]
            return
        keep = self._make_room(len(samples) * 3 * resolution**2)
        decoded = _Images(self.data.root, samples, transform, self.data.settings.seed)
        loaders = self.data.settings.loaders
        # typed loosely: the collate function is the identity, so a batch is a list of what the dataset gives
        batches: Any = DataLoader(decoded, batch_size=batch, collate_fn=list, num_workers=loaders)
        done = []
        for items in batches:
            made = self._stack(items)
            if keep:
                done.append(made)
            yield made
        if keep:
            self._kept[key] = done

    def _stack(self, items: list[_Decoded]) -> Batch:
        reasons = [item.reason for item in items if item.image is None]
        if reasons and self.data.settings.bad == "error":
            raise UserError(f"{reasons[0]}; --bad skip goes on without it")
        good = [item.image for item in items if item.image is not None]
        labels = torch.tensor([item.label for item in items if item.image is not None], dtype=torch.int64)
        return Batch(torch.stack(good) if good else torch.empty(0), labels, len(reasons))

    def _make_room(self, wanted: int) -> bool:
        """Let go of the oldest resolutions until this many bytes fit; False: they never do."""
        bound = self.data.settings.memory_mib * 2**20
        if wanted > bound:
            return False

        def used() -> int:
            return sum(batch.images.numel() for batches in self._kept.values() for batch in batches)

        while self._kept and used() + wanted > bound:
            self._kept.popitem(last=False)
        return True
