"""Small image folders and narrow supernets that tests measure with."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from conftest import ROOT

from topdown_ray.networks.evaluator import EvaluationSetup
from topdown_ray.networks.images import Settings, find_images
from topdown_ray.networks.supernet import build
from topdown_ray.networks.weights import Description, find_weights, save_weights
from topdown_ray.spaces.space import Space

sys.path.insert(0, str(ROOT / "scripts" / "examples"))

from digits_as_images import write_digits

CLASSES = tuple("0123456789")
WIDTH = 0.1


def few_digits(folder: Path, train: int = 3, val: int = 2) -> Path:
    """The first digits of each class."""
    write_digits(folder)
    for split, keep in (("train", train), ("val", val)):
        for label in CLASSES:
            for path in sorted((folder / split / label).iterdir())[keep:]:
                path.unlink()
    return folder


def untrained(path: Path, space: Space, **changes: object) -> Path:
    """A narrow supernet's file with weights that were drawn, not trained; its batch normalisation has seen
    some noise.
    """
    sizes = tuple(int(size) for size in space.genes[space.resolution].choices)
    given = {
        "space": space.name,
        "width": WIDTH,
        "n_classes": 10,
        "image_sizes": sizes,
        "classes": CLASSES,
        **changes,
    }
    description = Description(**given)  # type: ignore[arg-type]
    torch.manual_seed(1)
    network = build(space, description.width, description.n_classes).train()
    with torch.no_grad():
        for _ in range(5):
            network(torch.randn(8, 3, 64, 64))
    save_weights(path, network.state_dict(), description)
    return path


def make_setup(weights: Path, data: Path, **settings: object) -> EvaluationSetup:
    """Weights and images, checked against each other."""
    checkpoint = find_weights(str(weights), None)
    return EvaluationSetup(checkpoint, find_images(data, checkpoint.description, Settings(**settings)))  # type: ignore[arg-type]
