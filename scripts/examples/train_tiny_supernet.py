"""Train a small Once-for-All supernet on a CPU, by a short form of progressive shrinking.

    python scripts/examples/digits_as_images.py data/digits
    python scripts/examples/train_tiny_supernet.py data/digits data/tiny.safetensors

The network is OFA's own class for the space. It is narrow and has one output for each class of the data. The
phases are those of OFA:

1. Train the largest network.
2. Train subnets with free kernel sizes.
3. Also free the depths and the stem.
4. Sort the channels by importance, then also free the expand ratios and the widths.

Each step uses one random resolution. From the second phase on, subnets learn from the labels and from the
largest network as it was after the first phase. OFA's training also has many epochs, smaller steps within
each phase, several subnets in each step, and tuning, which this script leaves out."""

import argparse
import copy
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from ofa.utils.my_modules import init_models
from torch.nn import functional
from torchvision.datasets import ImageFolder

from topdown_ray.networks.images import normalise, read_image, training_transform
from topdown_ray.networks.supernet import build
from topdown_ray.networks.weights import Description, save_weights
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Space

# For each phase: the kinds of genes that are free, and the share of the steps.
PHASES = (
    (set(), 0.5),
    ({"kernel"}, 0.1),
    ({"kernel", "depth", "stem_depth"}, 0.1),
    ({"kernel", "depth", "stem_depth", "expand", "width"}, 0.3),
)


def draw(space: Space, free: set[str], generator: np.random.Generator) -> dict:
    """Return a random configuration in which all genes that are not free have their largest choice."""
    genes = [
        generator.integers(len(gene.choices)) if gene.kind in free else len(gene.choices) - 1
        for gene in space.genes
    ]
    return {key: value for key, value in space.to_config(genes).items() if key != "image_size"}


def train(
    data: Path,
    out: Path,
    space: Space,
    width: float = 0.1,
    steps: int = 1000,
    batch: int = 32,
    image_sizes: list[int] | None = None,
    learning_rate: float = 5e-3,
    resize_scale: float = 0.6,
    seed: int = 0,
    log: bool = True,
) -> None:
    """Train the supernet on ``data/train`` and write its weights and their description to ``out``."""
    random.seed(seed)
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    sizes = sorted(image_sizes or [int(size) for size in space.genes[space.resolution].choices])
    folder = ImageFolder(data / "train")
    images = [read_image(Path(path)) for path, _ in folder.samples]
    labels = torch.tensor(folder.targets)
    crops = {size: training_transform(size, resize_scale, flip=False) for size in sizes}
    network = build(space, width, len(folder.classes)).to(memory_format=torch.channels_last)
    init_models(network)
    network.train()
    teacher = None
    started, step = time.monotonic(), 0
    for free, share in PHASES:
        if free and teacher is None:
            teacher = copy.deepcopy(network)
            teacher.set_max_net()
        if "expand" in free:
            with torch.no_grad():
                network.re_organize_middle_weights()
        n = max(1, round(share * steps))
        peak = learning_rate if not free else learning_rate / 2
        optimizer = torch.optim.AdamW(network.parameters(), lr=peak, weight_decay=1e-4)
        for i in range(n):
            for group in optimizer.param_groups:
                group["lr"] = peak * min(1.0, (i + 1) / 20) * (0.5 + 0.5 * math.cos(math.pi * i / n))
            size = sizes[generator.integers(len(sizes))]
            chosen = generator.choice(len(images), batch, replace=len(images) < batch)
            pixels = normalise(torch.stack([crops[size](images[place]) for place in chosen]))
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            network.set_active_subnet(**draw(space, free, generator))
            logits = network(pixels)
            loss = functional.cross_entropy(logits, labels[chosen])
            if teacher is not None:
                with torch.no_grad():
                    taught = functional.softmax(teacher(pixels), dim=1)
                loss = loss + functional.cross_entropy(logits, taught)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if log and (step % 50 == 0 or i == n - 1):
                shown = ", ".join(sorted(free)) or "none"
                print(
                    f"step {step}, free: {shown}; loss {loss.item():.3f}, {time.monotonic() - started:.0f} s",
                    flush=True,
                )
    network.set_max_net()
    description = Description(
        space=space.name,
        width=width,
        n_classes=len(folder.classes),
        image_sizes=tuple(sizes),
        resize_scale=resize_scale,
        flip=False,
        classes=tuple(folder.classes),
        origin=f"scripts/examples/train_tiny_supernet.py, {steps} steps of {batch} images, seed {seed}",
    )
    save_weights(out, network.state_dict(), description)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="The image folder, with train/CLASS/*.")
    parser.add_argument("out", type=Path, help="The file to write the weights to (.safetensors).")
    parser.add_argument("--space", choices=list(SPACES), default="resnet50d")
    parser.add_argument("--width", type=float, default=0.1, help="Width relative to the published network.")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--image-size",
        type=int,
        action="append",
        help="Image size in pixels; repeat it for more sizes (default: all sizes of the space).",
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    train(
        given.data,
        given.out,
        SPACES[given.space],
        given.width,
        given.steps,
        given.batch,
        given.image_size,
        seed=given.seed,
    )
    print(given.out)
