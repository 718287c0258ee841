"""Drive evaluations: spread the missing measurements over actors, and write their rows in parts.

Serves ``evaluate`` (a sweep's answers, or one architecture) and ``sample-dataset`` (random subnets, the
training set of a predictor).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from topdown_ray.errors import UserError
from topdown_ray.networks.evaluator import EvaluationSetup, EvaluationTask, Evaluator, archs_of, tasks
from topdown_ray.networks.hosting import Resources, run_hosted
from topdown_ray.networks.images import Settings, find_images
from topdown_ray.networks.supernet import Supernet
from topdown_ray.networks.weights import find_weights
from topdown_ray.progress import Progress
from topdown_ray.spaces.cost import CostModel
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Space
from topdown_ray.store.evaluations import Evaluations, read_table
from topdown_ray.tasks import GivenUp

FLUSH_S = 30.0  # longest time until finished rows are written
POOL = 64  # candidates for each architecture that is drawn along the cost range
TILTS = 3.0  # how strongly candidates may prefer small or large choices, see along_cost


OnProgress = Callable[[Progress], None]


def _quiet(progress: Progress) -> None:
    """Show nothing."""


@dataclass
class Evaluating(Progress):
    """The progress of an evaluation, and the tasks that were given up."""

    given_up: dict[str, str] = field(default_factory=dict)  # evaluation id -> the last line of its last error


def evaluate_tasks(
    setup: EvaluationSetup,
    tasks: Sequence[EvaluationTask],
    into: Evaluations,
    resources: Resources,
    show: OnProgress = _quiet,
    extra: Mapping[str, Mapping[str, Any]] | None = None,
) -> Evaluating:
    """Evaluate the tasks that have no row yet into opened evaluations. extra: further columns by
    architecture.

    If the evaluation is interrupted, the finished rows are written before it ends. A task that fails
    permanently is recorded, and the others continue. Raises UserError, StartError, StoreError.
    """
    extra = {} if extra is None else extra
    resources.check()
    if resources.gpus and resources.address == "none" and not torch.cuda.is_available():
        raise UserError(f"--gpus: expected 0, since there is no GPU here, found {resources.gpus:g}")
    finished = set(into.read()["evaluation_id"])
    pending = [task for task in tasks if task.evaluation_id not in finished]
    progress = Evaluating(len(tasks), len(tasks) - len(pending), len(tasks) - len(pending))
    show(progress)
    waiting: list[dict[str, Any]] = []
    written = time.monotonic()
    try:
        for end in run_hosted(functools.partial(Evaluator, setup), pending, resources):
            if isinstance(end, GivenUp):
                progress.failures += 1
                progress.given_up[end.task.evaluation_id] = end.error.strip().splitlines()[-1]
                into.record_failure(end.task.evaluation_id, end.task.arch, end.error)
            else:
                waiting.append({**end.result, **extra.get(end.attempt.task.arch, {})})
                progress.done += 1
            if waiting and time.monotonic() - written > FLUSH_S:
                into.write(waiting)
                waiting, written = [], time.monotonic()
            show(progress)
    finally:
        if waiting:
            into.write(waiting)
    return progress


# --- architectures to learn from ----------------------------------------------------------------------------


def uniform(space: Space, image_sizes: Sequence[int], n: int, seed: int) -> torch.Tensor:
    """Draw n distinct architectures uniformly at these image sizes: genes (n, G) in canonical form."""
    return _distinct(
        space,
        lambda part: _at(space, space.random(4 * n, 1000 * seed + part), image_sizes, 1000 * seed + part),
        n,
    )


def along_cost(space: Space, image_sizes: Sequence[int], n: int, seed: int, cost: CostModel) -> torch.Tensor:
    """Draw n distinct architectures whose costs are spread evenly over the range that can be drawn: genes (n,
    G).

    Uniform draws crowd around the middle of the range. Here each candidate prefers small or large choices:
    choice c of a gene has weight exp(t c), with one t for the whole candidate, uniform from -TILTS to TILTS.
    For each of n evenly spaced costs, the nearest candidate that is still free is taken.
    """
    generator = np.random.default_rng(seed)
    rows = max(4096, POOL * n)
    tilt = generator.uniform(-TILTS, TILTS, size=(rows, 1))
    columns = []
    for size in space.sizes:
        weights = np.exp(tilt * np.arange(size))  # (rows, choices)
        shares = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
        columns.append(np.minimum((generator.random((rows, 1)) > shares).sum(axis=1), size - 1))
    drawn = _at(space, torch.from_numpy(np.stack(columns, axis=1).astype(np.int8)), image_sizes, seed)
    drawn = torch.unique(drawn, dim=0)
    if len(drawn) < n:
        raise UserError(
            f"--n: expected at most {len(drawn)}, the distinct architectures that were drawn, found {n}"
        )
    costs = cost(drawn).double().numpy()
    free = np.ones(len(drawn), dtype=bool)
    chosen = []
    for wanted in np.linspace(costs.min(), costs.max(), n):
        nearest = int(np.argmin(np.where(free, np.abs(costs - wanted), np.inf)))
        free[nearest] = False
        chosen.append(nearest)
    found: torch.Tensor = drawn[torch.tensor(chosen)]
    return found


def _at(space: Space, genes: torch.Tensor, image_sizes: Sequence[int], seed: int) -> torch.Tensor:
    """Return the same architectures in canonical form, with resolutions drawn again from these values."""
    choices = space.genes[space.resolution].choices
    allowed = np.array([choices.index(size) for size in sorted(image_sizes)], dtype=np.int8)
    genes = genes.clone()
    genes[:, space.resolution] = torch.from_numpy(
        np.random.default_rng([seed, 1]).choice(allowed, len(genes))
    )
    return space.canonical(genes)


def _distinct(space: Space, draw: Callable[[int], torch.Tensor], n: int) -> torch.Tensor:
    seen: dict[bytes, torch.Tensor] = {}
    for part in range(100):
        for row in draw(part):
            seen.setdefault(row.numpy().tobytes(), row)
        if len(seen) >= n:
            return torch.stack(list(seen.values())[:n])
    raise UserError(
        f"--n: expected at most {len(seen)}, the distinct architectures of {space.name} that were drawn, "
        f"found {n}"
    )


def sample_dataset(
    setup: EvaluationSetup, genes: torch.Tensor, out: Path, resources: Resources, show: OnProgress = _quiet
) -> tuple[pd.DataFrame, Evaluating]:
    """Evaluate these architectures into one Parquet file. Continues an interrupted run, and keeps the rows
    that the file already has.

    Raises UserError.
    """
    if out.is_dir():
        raise UserError(f"--out {out}: expected a Parquet file, found a folder")
    wanted = tasks(setup, archs_of(setup.space, genes))[0]
    parts = Evaluations(out.parent, f".{out.name}.parts")
    parts.open()
    held = [(parts.place.of(parts.folder), parts.read())]  # of a run that was interrupted
    if out.is_file():
        held.append((str(out), read_table(out).to_pandas()))
    for place, there in held:
        for column, expected in (
            ("weights_sha256", setup.checkpoint.sha256),
            ("data_sha256", setup.images.sha256),
        ):
            if others := set(there[column]) - {expected}:
                found = f"{column} {next(iter(others))} in {place}"
                raise UserError(
                    f"--out {out}: expected a new file, or measurements of the same weights and images, "
                    f"found {found}"
                )
    if out.is_file():
        parts.write(read_table(out).to_pylist())
    progress = evaluate_tasks(setup, wanted, parts, resources, show)
    names = {task.arch: task.evaluation_id for task in wanted}
    order = [names[arch] for arch in archs_of(setup.space, genes)]
    parts.combine(out, [name for name in order if name not in progress.given_up])
    return read_table(out).to_pandas(), progress


# --- a sweep's answers --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """What to measure with: a supernet's weights by name or path, and a data folder."""

    weights: str
    data: Path
    settings: Settings
    allow_random: bool = False

    def setup(self, space: Space | None) -> EvaluationSetup:
        """Find and check the weights and the images. Raises UserError."""
        checkpoint = find_weights(self.weights, space, self.allow_random)
        if not checkpoint.is_random:
            # incomplete weights raise an error before images are read and actors start
            Supernet(checkpoint.space, checkpoint)
        return EvaluationSetup(checkpoint, find_images(self.data, checkpoint.description, self.settings))


@dataclass(frozen=True)
class Evaluated:
    """The result of evaluating the architectures of one space."""

    rows: pd.DataFrame
    progress: Evaluating
    left_out: int  # architectures at image sizes that the supernet was not trained for


def evaluate_rows(
    answers: pd.DataFrame, wanted: Wanted, into: Evaluations, resources: Resources, show: OnProgress = _quiet
) -> list[Evaluated]:
    """Evaluate a sweep's answers (rows of ``searches`` with ``genes_space``), one space after another. Raises
    UserError.

    Weights, images and resolutions of all spaces are checked before the first subnet is measured.
    """
    plans = []
    for name, rows in answers.groupby("genes_space", sort=False):
        setup = wanted.setup(SPACES[str(name)])
        todo, left_out = tasks(setup, rows["arch"])
        named = ["accuracy", "predictor_name", "predictor_sha256", "predictor_space"]
        predicted = (
            rows.drop_duplicates("arch").set_index("arch")[named].rename(columns={"accuracy": "predicted"})
        )
        extra = {
            str(arch): {str(key): value for key, value in row.items()}
            for arch, row in predicted.to_dict("index").items()
        }
        plans.append((setup, todo, left_out, extra))
    into.open()
    evaluated = []
    for setup, todo, left_out, extra in plans:
        progress = evaluate_tasks(setup, todo, into, resources, show, extra)
        rows = into.read()
        evaluated.append(
            Evaluated(
                rows[rows["evaluation_id"].isin([task.evaluation_id for task in todo])], progress, left_out
            )
        )
    return evaluated
