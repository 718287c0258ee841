"""Measure a thousand subnets in one process and watch its memory.

    python scripts/examples/digits_as_images.py data/digits
    python scripts/examples/train_tiny_supernet.py data/digits data/tiny.safetensors
    python scripts/benchmarks/bench_memory.py data/digits data/tiny.safetensors

Each subnet is measured on few images, so that most of the memory comes and goes with the subnets. The script
prints the resident memory and the number of new modules every 100 subnets. Neither may grow. As in an actor,
objects that exist at the start are kept out of garbage collection."""

import argparse
import dataclasses
import gc
import time
from pathlib import Path

import psutil
import torch

from topdown_ray.networks import evaluate
from topdown_ray.networks.evaluator import EvaluationSetup, Evaluator, archs_of, tasks
from topdown_ray.networks.images import Settings, find_images
from topdown_ray.networks.weights import find_weights


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of images")
    parser.add_argument("weights", help="weights of the supernet")
    parser.add_argument("--n", type=int, default=1000, help="number of subnets (default 1000)")
    given = parser.parse_args()
    checkpoint = find_weights(given.weights, None)
    images = find_images(given.data, checkpoint.description, Settings(calibration=2))
    setup = EvaluationSetup(checkpoint, dataclasses.replace(images, validation=images.validation[:2]))
    sizes = checkpoint.description.image_sizes
    todo, _ = tasks(setup, archs_of(setup.space, evaluate.uniform(setup.space, sizes, given.n, 0)))
    evaluator = Evaluator(setup)
    gc.collect()
    gc.freeze()
    started = time.perf_counter()
    for i, task in enumerate(todo, 1):
        evaluator(task)
        if i == 20 or i % 100 == 0:
            modules = sum(issubclass(type(each), torch.nn.Module) for each in gc.get_objects())
            mib = psutil.Process().memory_info().rss / 2**20
            seconds = time.perf_counter() - started
            print(
                f"{i:5} subnets, {mib:.0f} MiB resident, {modules} new modules alive, {seconds:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
