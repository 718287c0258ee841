"""Image folders as OFA reads ImageNet: ``train/CLASS/*`` and ``val/CLASS/*``, with torchvision's transforms.

Validation images are resized to r / 0.875 and cropped to the middle r x r pixels; calibration images are training images, cropped
and flipped at random (``ofa.imagenet_classification.data_providers.imagenet``). All of it is fixed by a seed: which training images
calibrate is OFA's own choice (``DataProvider.SUB_SEED``), and how each is cropped is a function of the seed and its place, so a
subnet's accuracy does not depend on what was measured before, or where.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import math
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

from topdown_ray.errors import UserError
from topdown_ray.weights import Description

SUB_SEED = 937162211  # ofa.imagenet_classification.data_providers.base_provider.DataProvider.SUB_SEED
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Bad = Literal["error", "skip"]

_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # what Pillow raises for broken files


class Sample(NamedTuple):
    """An image: its path below the data folder, and its class."""

    path: str
    label: int


@dataclass(frozen=True)
class Settings:
    """How images are chosen and batched; all but ``bad``, ``loaders`` and ``memory_mib`` may change an accuracy."""

    calibration: int = 2000  # training images; OFA's run manager
    calibration_batch: int = 200
    batch: int = 100
    seed: int = SUB_SEED
    bad: Bad = "error"  # an image that does not decode, a class without images: an error, or left out and counted
    loaders: int = 0  # processes that decode images; 0: the one that measures
    memory_mib: int = 1024  # decoded images that are kept for the next subnet of the same resolution

    def decisive(self) -> list[int]:
        """What an evaluation's identity holds of the settings. Skipping changes nothing where all is well, and is counted."""
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
    """Scan a data folder and check it against a network. Raises UserError: missing, half-empty, another number of classes."""
    if settings.calibration < 1 or settings.batch < 1 or settings.calibration_batch < 1:
        raise UserError(f"calibration, batch: expected at least 1, found {settings.calibration}, {settings.batch}")
    train, train_classes, _ = _scan(root / "train", settings.bad)
    validation, classes, empty = _scan(root / "val", settings.bad)
    if classes != train_classes:
        odd = sorted(set(classes) ^ set(train_classes))[0]
        where = "train" if odd in train_classes else "val"
        raise UserError(f"{root}: expected the same class folders in train and val, found {odd} in {where} only")
    absent = 0
    if len(classes) != description.n_classes or (description.classes and classes != description.classes):
        known = description.classes
        if not (settings.bad == "skip" and known and set(classes) < set(known)):
            odd_names = sorted(set(classes) - set(known)) if known else []
            found = f"{len(classes)}" + (f", {odd_names[0]!r} among them, which the network does not know" if odd_names else "")
            raise UserError(
                f"{root}: expected {description.n_classes} class folders, as the network has outputs, found {found}"
            )
        place = [known.index(name) for name in classes]
        train, validation = ([Sample(path, place[label]) for path, label in part] for part in (train, validation))
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
        sha256=_digest(root, [*validation, *calibration]),
        settings=settings,
        resize_scale=description.resize_scale,
        flip=description.flip,
    )


def _scan(root: Path, bad: Bad) -> tuple[list[Sample], tuple[str, ...], int]:
    """All images below a split's folder, the names of its classes, and how many of these have no image."""
    if not root.is_dir():
        raise UserError(
            f"{root}: expected a folder with one folder of images a class, found {'a file' if root.exists() else 'none'}"
        )
    try:
        classes, places = torchvision_folder.find_classes(str(root))
    except FileNotFoundError as error:
        raise UserError(f"{root}: expected one folder of images a class, found none") from error
    found = torchvision_folder.make_dataset(str(root), places, torchvision_folder.IMG_EXTENSIONS, allow_empty=True)
    samples = [Sample(str(Path(path).relative_to(root.parent)), label) for path, label in found]
    empty = [name for label, name in enumerate(classes) if label not in {sample.label for sample in samples}]
    if not samples:
        raise UserError(f"{root}: expected images, found {len(classes)} class folders without any")
    if empty and bad == "error":
        others = f" ({len(empty)} such folders)" if len(empty) > 1 else ""
        raise UserError(f"{root / empty[0]}: expected images of the class, found none{others}; --bad skip goes on without")
    return samples, tuple(classes), len(empty)


def _digest(root: Path, samples: Sequence[Sample]) -> str:
    """Of names, labels and contents; files are read by threads, hashed in order."""

    def one(sample: Sample) -> bytes:
        try:
            with (root / sample.path).open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise UserError(f"{root / sample.path}: expected a readable image, found {error.strerror}") from error

    total = hashlib.sha256()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for sample, digest in zip(samples, pool.map(one, samples), strict=True):
            total.update(f"{sample.path}\0{sample.label}\0".encode() + digest)
    return total.hexdigest()


def validation_transform(resolution: int) -> Any:
    """PIL image -> uint8 (3, r, r): the part of OFA's validation transform before ``ToTensor`` and ``Normalize``."""
    parts = [transforms.Resize(math.ceil(resolution / 0.875)), transforms.CenterCrop(resolution), transforms.PILToTensor()]
    return transforms.Compose(parts)


def training_transform(resolution: int, resize_scale: float, flip: bool) -> Any:
    """The same of OFA's training transform; draws from torch's global generator."""
    parts = [transforms.RandomResizedCrop(resolution, scale=(resize_scale, 1.0))]
    return transforms.Compose([*parts, *([transforms.RandomHorizontalFlip()] if flip else []), transforms.PILToTensor()])


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
                with Image.open(self.root / path) as image:
                    return _Decoded(self.transform(image.convert("RGB")), label, "")
            except _UNREADABLE as error:
                return _Decoded(None, label, f"{self.root / path}: expected an image, found {' '.join(str(error).split())}")


class Batch(NamedTuple):
    """Images uint8 (B, 3, r, r) and labels int64 (B,); how many images of the batch did not decode."""

    images: torch.Tensor
    labels: torch.Tensor
    bad: int


class Loader:
    """Batches of a data folder in a fixed order; keeps decoded ones within a bound, the resolution used last the longest."""

    def __init__(self, data: ImageData):
        self.data = data
        self._kept: OrderedDict[tuple[str, int], list[Batch]] = OrderedDict()

    def validation(self, resolution: int) -> Iterator[Batch]:
        """The validation images at a resolution. Raises UserError on one that does not decode, unless they are to be skipped."""
        data = self.data
        return self._batches("validation", data.validation, resolution, validation_transform(resolution), data.settings.batch)

    def calibration(self, resolution: int) -> Iterator[Batch]:
        """The calibration images at a resolution, as above."""
        data = self.data
        transform = training_transform(resolution, data.resize_scale, data.flip)
        return self._batches("calibration", data.calibration, resolution, transform, data.settings.calibration_batch)

    def _batches(self, name: str, samples: Sequence[Sample], resolution: int, transform: Any, batch: int) -> Iterator[Batch]:
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
