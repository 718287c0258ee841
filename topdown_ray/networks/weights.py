"""Find and read supernet weights: the file, its hash, and a description of the network they belong to.

Published weights are looked for like all published artefacts: in the assets folder, in the cache, then
upstream if a hash is pinned. Weights of your own are a safetensors file whose header describes the network:
the space, the width, the classes, the image sizes that it was trained at, and how its training images were
cropped and flipped. Random weights are used only on request, never as a fallback.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import pydantic
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field

from topdown_ray import assets
from topdown_ray.errors import UserError, brief
from topdown_ray.files import brief_path, check_file, first_mistake, written
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Space
from topdown_ray.tensors import read_header, read_safetensors, read_torch

_HEADER = "topdown_ray_supernet"


class Description(BaseModel):
    """A description of the supernet that weights belong to. The defaults are those of the published ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    space: str
    width: Annotated[float, Field(gt=0, le=4)] = 1.0  # relative to the space's published network
    n_classes: Annotated[int, Field(ge=2, le=100_000)] = 1000
    image_sizes: tuple[int, ...]  # pixels; subnets at other sizes cannot be measured
    resize_scale: Annotated[float, Field(gt=0, le=1)] = (
        0.08  # the smallest share of an image that a training crop shows
    )
    flip: bool = True  # whether training images were flipped at random
    classes: tuple[str, ...] = ()  # the class folders' names, in order, where known
    origin: str = ""  # how it was trained, in words


class Checkpoint(BaseModel):
    """The name and hash of a supernet's weights. If ``path`` is None, the weights are random, with a fixed
    seed.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: str
    path: Path | None
    description: Description

    @property
    def space(self) -> Space:
        """The design space of the supernet."""
        return SPACES[self.description.space]

    @property
    def is_random(self) -> bool:
        """Whether the weights are random."""
        return self.path is None

    def state(self) -> Mapping[str, torch.Tensor]:
        """Return the state dict of the supernet. Raises UserError."""
        if self.path is None:
            raise ValueError("random weights have no file")
        if self.path.suffix == ".safetensors":
            return read_safetensors(self.path)
        return read_torch(self.path, f"weights of {self.space.network}")


def _published(space: Space) -> Description:
    sizes = tuple(int(size) for size in space.genes[space.resolution].choices)
    return Description(space=space.name, image_sizes=sizes)


def find_weights(weights: str, space: Space | None, allow_random: bool = False) -> Checkpoint:
    """Return the checkpoint of a supernet: ``published`` (of ``space``), ``random``, or the path of a file.

    space: the expected space; None: the space that the file names. Raises UserError if the weights are not
    available or of another space, or if random weights are requested without ``allow_random``.
    """
    if weights == "published" and space is not None:
        found = _find_published(space, fetch=not allow_random)
        if found is not None:
            return found
        if not allow_random:
            raise UserError(_unpublished(space))
        weights = "random"
    if weights in ("published", "random"):
        if space is None:
            raise UserError(f"--weights {weights}: expected a space, found none; use --space")
        if not allow_random:
            raise UserError("--weights random: expected --allow-random-weights as well, found none")
        return Checkpoint(
            name="random", sha256=f"random:{space.name}", path=None, description=_published(space)
        )
    return _own(Path(weights), space)


def published_weights(space: Space) -> Path | None:
    """Return the path of the published weights of a space on this machine."""
    file = space.traits.published.weights
    return None if file is None else assets.local(file)


def _find_published(space: Space, fetch: bool) -> Checkpoint | None:
    """Return the published weights, downloaded if that is allowed and their hash is known; None if they are
    not available.
    """
    file, path = space.traits.published.weights, published_weights(space)
    if file is None:
        return None
    pinned = assets.ASSETS[file].sha256
    if path is None and pinned is not None and fetch:
        path = assets.find(file)
    if path is None:
        return None
    sha256 = assets.sha256_of(path)
    if pinned not in (None, sha256):
        raise UserError(f"{path}: expected SHA-256 {pinned}, found {sha256}")
    return Checkpoint(name=f"published:{path.name}", sha256=sha256, path=path, description=_published(space))


def _unpublished(space: Space) -> str:
    """Return why there are no published weights, and what to do."""
    advice = "name a file, or use --weights random --allow-random-weights"
    file = space.traits.published.weights
    if file is None:
        return f"--weights: expected a space with published weights, found {space.name}; {advice}"
    name = assets.ASSETS[file].name
    return (
        f"--weights: expected the published weights of {space.network} as $TOPDOWN_RAY_ASSETS/{file}, found "
        f"none (their hash is not known; topdown-ray assets fetch {name} downloads them nevertheless); "
        f"{advice}"
    )


def _own(path: Path, space: Space | None) -> Checkpoint:
    check_file(path, "published, random, or a supernet's weights (.safetensors, or OFA's form)")
    if path.suffix == ".safetensors":
        description = _header(path)
    elif space is not None:
        description = _published(space)
    else:
        raise UserError(
            f"--weights {path}: expected a file that names its space, or the option --space, found neither"
        )
    if space is not None and description.space != space.name:
        raise UserError(
            f"--weights {path}: expected a supernet of {space.name}, found one of {description.space}"
        )
    return Checkpoint(
        name=path.name, sha256=assets.sha256_of(path), path=path.resolve(), description=description
    )


def _header(path: Path) -> Description:
    metadata, where = read_header(path), f"{brief_path(path)}: {_HEADER}"
    if _HEADER not in metadata:
        found = brief(sorted(metadata)) if metadata else "none"
        raise UserError(
            f"{brief_path(path)}: expected a header {_HEADER} that describes the supernet, found {found}"
        )
    try:
        description = Description.model_validate_json(metadata[_HEADER])
    except pydantic.ValidationError as error:
        raise UserError(f"{where}: {first_mistake(error, Description)}") from error
    if description.space not in SPACES:
        raise UserError(
            f"{where}: space: expected one of {', '.join(SPACES)}, found {brief(description.space)}"
        )
    known = SPACES[description.space]
    unknown = set(description.image_sizes) - set(known.genes[known.resolution].choices)
    if unknown or not description.image_sizes:
        found = brief(list(description.image_sizes))
        raise UserError(f"{where}: image_sizes: expected sizes of {known.name}, found {found}")
    if description.classes and len(description.classes) != description.n_classes:
        raise UserError(
            f"{where}: classes: expected {description.n_classes} names, found {len(description.classes)}"
        )
    return description


def save_weights(path: Path, state: Mapping[str, torch.Tensor], description: Description) -> None:
    """Write a supernet's weights with their description, either whole or not at all. Raises UserError."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with written(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata={_HEADER: description.model_dump_json()})
