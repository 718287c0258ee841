"""Measure subnets: cut each one out of the supernet, recalibrate it, and evaluate it on validation images.

A measured accuracy is a function of (architecture, weights, images, settings) alone. Their hashes are the
identity of the measurement, so a continued evaluation measures exactly the identities that have no rows yet.
"""

from __future__ import annotations

import datetime
import gc
import json
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from topdown_ray.errors import UserError
from topdown_ray.files import digest
from topdown_ray.networks.images import ImageData, Loader, normalise
from topdown_ray.networks.supernet import Supernet
from topdown_ray.networks.weights import Checkpoint
from topdown_ray.spaces.cost import SubnetCounts
from topdown_ray.spaces.space import Config, Space
from topdown_ray.spaces.tiles import one_thread

EVALUATION_VERSION = 1  # part of every identity: increase it if the same measurement gives another result

EvaluationRow = dict[str, Any]


@dataclass(frozen=True)
class EvaluationSetup:
    """Everything that the measurements of one supernet on one data folder have in common."""

    checkpoint: Checkpoint
    images: ImageData

    @property
    def space(self) -> Space:
        """The design space of the supernet."""
        return self.checkpoint.space

    def identity(self, arch: str) -> str:
        """Return the identity of one measurement. arch: canonical, as :func:`canonical` writes it."""
        images = self.images
        return digest(
            [
                EVALUATION_VERSION,
                self.space.name,
                arch,
                self.checkpoint.sha256,
                images.sha256,
                images.settings.decisive(),
            ]
        )


@dataclass(frozen=True)
class EvaluationTask:
    """One architecture to measure, in canonical form."""

    evaluation_id: str
    arch: str

    @property
    def image_size(self) -> int:
        """Its resolution in pixels."""
        return int(json.loads(self.arch)["image_size"])


def canonical(space: Space, config: Config) -> str:
    """Return an architecture as JSON, with the smallest choice in blocks that are switched off. Raises
    UserError if it is not of the space.
    """
    genes = torch.from_numpy(space.from_config(config))[None]
    return json.dumps(space.to_config(space.canonical(genes)[0]))


def tasks(setup: EvaluationSetup, archs: Iterable[str]) -> tuple[list[EvaluationTask], int]:
    """Return the distinct architectures as tasks, grouped by resolution, and the number of architectures that
    are left out because of their resolution.

    Raises UserError if a resolution is not one of the supernet's, unless such architectures are skipped.
    """
    known = setup.checkpoint.description.image_sizes
    wanted = [EvaluationTask(setup.identity(arch), arch) for arch in dict.fromkeys(archs)]
    unknown = [task for task in wanted if task.image_size not in known]
    if unknown and setup.images.settings.bad == "error":
        raise UserError(
            f"image_size: expected one of {list(known)}, at which {setup.checkpoint.name} was trained, found "
            f"{unknown[0].image_size}; "
            "--bad skip leaves such architectures out"
        )
    kept = [task for task in wanted if task.image_size in known]
    return sorted(kept, key=lambda task: task.image_size), len(unknown)


class Evaluator:
    """Hosts one supernet and one data folder. Measures one subnet after another and keeps nothing of them."""

    def __init__(self, setup: EvaluationSetup, device: str = "cpu"):
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise UserError(
                f"--gpus: expected a GPU that torch can use on {socket.gethostname()}, found none"
            )
        self.setup = setup
        self.device = torch.device(device)
        self.supernet = Supernet(setup.space, setup.checkpoint)
        about = setup.checkpoint.description
        self.counts = SubnetCounts(setup.space, about.width, about.n_classes)
        self.loader = Loader(setup.images)
        self.host = socket.gethostname()

    def __call__(self, task: EvaluationTask) -> EvaluationRow:
        """Measure one architecture: a row of ``evaluations``."""
        started_at, started = datetime.datetime.now(datetime.UTC), time.perf_counter()
        config = json.loads(task.arch)
        with one_thread(), torch.inference_mode():
            counts = self._measure(config)
        gc.collect()  # OFA's recalibration leaves a copy of the subnet in reference cycles
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        genes = self.setup.space.from_config(config)
        macs, parameters = self.counts(torch.from_numpy(genes)[None])
        checkpoint, images = self.setup.checkpoint, self.setup.images
        return {
            "evaluation_id": task.evaluation_id,
            "space": self.setup.space.name,
            "arch": task.arch,
            "genes": genes.tolist(),
            "image_size": task.image_size,
            **counts,
            "missing_classes": images.missing_classes,
            "n_classes": checkpoint.description.n_classes,
            "macs_m": float(macs),
            "params_m": float(parameters),
            "weights_name": checkpoint.name,
            "weights_sha256": checkpoint.sha256,
            "data_name": images.root.name,
            "data_sha256": images.sha256,
            "calibration_seed": images.settings.seed,
            "device": str(self.device),
            "host": self.host,
            "wall_s": time.perf_counter() - started,
            "started_at": started_at,
        }

    def subnet(self, config: Config) -> tuple[torch.nn.Module, int, int]:
        """Return the recalibrated subnet on the device, the number of images that calibrated it, and the
        number that could not be decoded.
        """
        subnet = self.supernet.materialise(config)
        subnet = subnet.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        used = bad = 0

        def batches() -> Iterable[torch.Tensor]:
            nonlocal used, bad
            for batch in self.loader.calibration(int(config["image_size"])):
                used, bad = used + len(batch.labels), bad + batch.bad
                if len(batch.labels):
                    yield self._to_device(batch.images)

        self.supernet.recalibrate(subnet, batches())
        if not used:
            raise UserError(f"{self.setup.images.root}: expected training images that decode, found none")
        return subnet, used, bad

    def _to_device(self, images: torch.Tensor) -> torch.Tensor:
        return normalise(images.to(self.device)).contiguous(memory_format=torch.channels_last)

    def _measure(self, config: Config) -> EvaluationRow:
        subnet, calibrated, calibration_bad = self.subnet(config)
        right, right5, n, bad = 0, 0, 0, 0
        for batch in self.loader.validation(int(config["image_size"])):
            bad += batch.bad
            if not len(batch.labels):
                continue
            logits = subnet(self._to_device(batch.images)).cpu()  # (B, classes)
            best = logits.topk(min(5, logits.shape[1])).indices
            hits = best == batch.labels[:, None]
            right, right5 = right + int(hits[:, 0].sum()), right5 + int(hits.sum())
            n += len(batch.labels)
        if not n or not calibrated:
            raise UserError(f"{self.setup.images.root}: expected images that decode, found none")
        return {
            "top1": right / n,
            "top5": right5 / n,
            "n_images": n,
            "n_bad": bad,
            "calibration_images": calibrated,
            "calibration_bad": calibration_bad,
        }


def archs_of(space: Space, genes: torch.Tensor) -> list[str]:
    """Return architectures, genes (N, G), in the canonical JSON form."""
    return [json.dumps(space.to_config(row)) for row in space.canonical(genes)]
