"""Read image folders in the form of ImageNet, ``train/CLASS/*`` and ``val/CLASS/*``, with torchvision's
transforms as OFA does.

Validation images are resized to r / 0.875 and cropped to the middle r x r pixels. Calibration images are
training images that are cropped and flipped at random
(``ofa.imagenet_classification.data_providers.imagenet``). A seed fixes all of this: the choice of calibration
images is OFA's own (``DataProvider.SUB_SEED``), and the crop of each is a function of the seed and its place.
The accuracy of a subnet therefore does not depend on what was measured before, or on which machine.
"""

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

# Pillow can read others, some of which run programs (EPS: Ghostscript)
FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "BMP",
    "PPM",
    "TIFF",
)
MOST_PIXELS = 89_478_485  # width x height of an image: Pillow's own limit
MOST_BYTES = LARGEST_DOCUMENT  # size of an image file
# times the shorter one: resizing makes the shorter side as long as the resolution, the other as much longer
LONGEST_SIDE = 200


class Sample(NamedTuple):
    """An image: its path below the data folder, and its class."""

    path: str
    label: int


@dataclass(frozen=True)
class Settings:
    """How images are chosen and batched. Every setting except ``bad``, ``loaders`` and ``memory_mib`` may
    change an accuracy.
    """

    calibration: int = 2000  # training images; OFA's run manager
    calibration_batch: int = 200
    batch: int = 100
    seed: int = SUB_SEED
    bad: Bad = (
        "error"  # an image that does not decode, a class without images: an error, or left out and counted
    )
    loaders: int = 0  # processes that decode images; 0: the measuring process itself
    memory_mib: int = 1024  # for decoded images, which the next subnet of the same resolution uses again

    def decisive(self) -> list[int]:
        """The settings that are part of the identity of an evaluation. Skipping is not one of them: it
        changes nothing if all images are good, and skipped images are counted.
        """
        return [self.calibration, self.calibration_batch, self.batch, self.seed]


@dataclass(frozen=True)
class ImageData:
    """The images that measure a subnet. ``sha256`` is the hash of the names and contents of all of them, in
    order.
    """

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
    """Scan a data folder and check it against a network. Raises UserError if it is missing or incomplete, or
    has another number of classes.
    """
    sizes = {"--calibration": settings.calibration, "--batch": settings.batch}
    for name, size in {**sizes, "calibration_batch": settings.calibration_batch}.items():
        if size < 1:
            raise UserError(f"{name}: expected at least 1, found {size}")
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
                f"{root}: expected {description.n_classes} class folders, one for each output of the "
                f"network, found {found}"
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
    """Return all images below the folder of a split, the names of its classes, and the number of classes
    without images.
    """
    if not root.is_dir():
        raise UserError(
            f"{root}: expected a folder with one folder of images for each class, found "
            f"{'a file' if root.exists() else 'none'}"
        )
    try:
        classes, places = torchvision_folder.find_classes(str(root))
    except FileNotFoundError as error:
        raise UserError(f"{root}: expected one folder of images for each class, found none") from error
    samples = [
        Sample(str(path.relative_to(root.parent)), places[name])
        for name in classes
        for path in _files(root / name, bad)
    ]
    empty = [name for label, name in enumerate(classes) if label not in {sample.label for sample in samples}]
    if not samples:
        raise UserError(f"{root}: expected images, found {len(classes)} class folders without images")
    if empty and bad == "error":
        others = f" ({len(empty)} such folders)" if len(empty) > 1 else ""
        raise UserError(
            f"{root / empty[0]}: expected images of the class, found none{others}; --bad skip leaves it out"
        )
    return samples, tuple(classes), len(empty)


def _files(folder: Path, bad: Bad) -> Iterator[Path]:
    """Return the image files of a class in a fixed order. Links to folders are not followed, because they may
    form loops.
    """
    for name, inner, files in sorted(os.walk(folder)):
        for link in inner if bad == "error" else ():
            if (Path(name) / link).is_symlink():
                where = brief_path(Path(name) / link)
                raise UserError(
                    f"{where}: expected images, found a link to a folder; --bad skip leaves it out"
                )
        yield from (Path(name) / file for file in sorted(files) if torchvision_folder.is_image_file(file))


def read_image(path: Path) -> Image.Image:
    """Read an image file as RGB. Raises UserError if it is not a regular file, is too large or too elongated,
    has another format, or is broken.
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
    except Exception as error:  # Pillow raises many kinds of exceptions for a broken file
        reason = one_line(error).split(" <_io.")[0]  # without the buffer's address
        raise UserError(
            f"{brief_path(path)}: expected an image ({', '.join(FORMATS)}), found {reason}"
        ) from error


def _digest(root: Path, samples: Sequence[Sample], bad: Bad) -> str:
    """Return the hash of names, labels and contents. Threads read the files, which are hashed in order. Files
    that are never decoded count without their contents.
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
            raise UserError(f"{error}; --bad skip leaves it out") from error
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
    """Return the same part of OFA's training transform. It draws from torch's global generator."""
    parts = [transforms.RandomResizedCrop(resolution, scale=(resize_scale, 1.0))]
    return transforms.Compose(
        [*parts, *([transforms.RandomHorizontalFlip()] if flip else []), transforms.PILToTensor()]
    )


def normalise(images: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 3, r, r) -> float32, with the bits of torchvision's ``ToTensor`` and ``Normalize``."""
    mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return images.float().div(255).sub_(mean).div_(std)


class _Decoded(NamedTuple):
    image: torch.Tensor | None  # None if it cannot be decoded
    label: int
    reason: str


class _Images(Dataset[_Decoded]):
    """Decodes and transforms images, each with its own random generator."""

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
    """Images uint8 (B, 3, r, r), labels int64 (B,), and the number of images of the batch that could not be
    decoded.
    """

    images: torch.Tensor
    labels: torch.Tensor
    bad: int


class Loader:
    """Yields batches of a data folder in a fixed order. Keeps decoded ones within a limit of memory, and
    drops the least recently used resolution first.
    """

    def __init__(self, data: ImageData):
        self.data = data
        self._kept: OrderedDict[tuple[str, int], list[Batch]] = OrderedDict()

    def validation(self, resolution: int) -> Iterator[Batch]:
        """Yield the validation images at a resolution. Raises UserError for one that cannot be decoded,
        unless such images are skipped.
        """
        data = self.data
        return self._batches(
            "validation", data.validation, resolution, validation_transform(resolution), data.settings.batch
        )

    def calibration(self, resolution: int) -> Iterator[Batch]:
        """Yield the calibration images at a resolution, as above."""
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
        # Any: the collate function is the identity, so a batch is a list of the items of the dataset
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
            raise UserError(f"{reasons[0]}; --bad skip leaves it out")
        good = [item.image for item in items if item.image is not None]
        labels = torch.tensor([item.label for item in items if item.image is not None], dtype=torch.int64)
        return Batch(torch.stack(good) if good else torch.empty(0), labels, len(reasons))

    def _make_room(self, wanted: int) -> bool:
        """Drop the oldest resolutions until this many bytes fit. Return False if they never do."""
        bound = self.data.settings.memory_mib * 2**20
        if wanted > bound:
            return False

        def used() -> int:
            return sum(batch.images.numel() for batches in self._kept.values() for batch in batches)

        while self._kept and used() + wanted > bound:
            self._kept.popitem(last=False)
        return True
