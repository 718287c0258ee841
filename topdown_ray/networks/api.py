"""Provide the functions behind the commands for networks: evaluate subnets, sample a training set, describe
and export subnets.

Networks need torch, torchvision and ofa, which are imported only when there is something to do.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topdown_ray.addresses import is_uri, shown
from topdown_ray.errors import UserError, brief
from topdown_ray.files import check_output
from topdown_ray.networks.architectures import (
    Filters,
    check_source,
    check_whole,
    config_of,
    filtered,
    is_run,
    read_arch,
    winners,
)
from topdown_ray.progress import Progress
from topdown_ray.spaces.registry import find_space
from topdown_ray.spaces.space import Config, Space

if TYPE_CHECKING:
    import pandas as pd

    from topdown_ray.networks import export as exporting
    from topdown_ray.networks.evaluate import Evaluated, Wanted
    from topdown_ray.networks.hosting import Resources
    from topdown_ray.networks.images import Settings

#: Entered when the first subnet is about to be evaluated; shows the progress.
EvaluateDisplay = Callable[[], AbstractContextManager[Callable[[Progress], None]]]


@dataclass(frozen=True)
class DescribedSubnet:
    """An architecture as OFA's code builds and prints it."""

    space: Space
    config: Config
    layers: str  # layer by layer; "" and None for a space without an OFA network
    macs_m: float | None
    params_m: float | None
    row: Mapping[Any, Any] | None  # of ``searches``, if it comes from a result folder


@dataclass(frozen=True)
class Draw:
    """Which random subnets a training set consists of."""

    n: int
    spread: str  # uniform, or cost: evenly along the range of the cost
    cost: str
    seed: int


@dataclass(frozen=True)
class Sampled:
    """A training set of a predictor."""

    rows: pd.DataFrame
    new: int  # evaluated in this run
    weights: str
    given_up: Mapping[str, str]  # evaluation id -> the last line of its last error


@dataclass(frozen=True)
class EvaluatedSource:
    """The result of evaluating a sweep's answers, or one architecture."""

    spaces: list[Evaluated]
    damaged: tuple[str, ...]  # damaged parts, which were computed again
    kept: bool  # whether rows and failure records are kept with a sweep's


def describe(source: str, filters: Filters) -> DescribedSubnet:
    """Describe an architecture from JSON, or the most accurate row of a result folder that passes the
    filters. Raises UserError.
    """
    check_source(source, filters)
    if not is_run(source):
        return _described(*read_arch(source, filters))
    from topdown_ray.store.picking import most_accurate_first
    from topdown_ray.store.results import load

    rows = load(source).searches
    check_whole(rows, source)
    rows = filtered(rows, filters)
    if rows.empty:
        raise UserError(f"{shown(source)}: expected finished searches, found none")
    return describe_row(dict(most_accurate_first(rows).iloc[0]))


def describe_row(row: Mapping[Any, Any]) -> DescribedSubnet:
    """Describe the architecture of a row of ``searches``."""
    return _described(*config_of(row), row)


def _described(space: Space, config: Config, row: Mapping[Any, Any] | None = None) -> DescribedSubnet:
    if space.provides is None:
        return DescribedSubnet(space, config, "", None, None, row)
    from topdown_ray.spaces.cost import counts_of

    genes, names = space.from_config(config).tolist(), space.provides.layer_names
    if names is None:
        from topdown_ray.networks.supernet import Supernet

        layers = Supernet(space).describe(config).rstrip()
    else:
        layers = "\n".join(names(space, genes))
    return DescribedSubnet(space, config, layers, *counts_of(space, genes), row)


def evaluate_source(
    source: str, filters: Filters, which: str, wanted: Wanted, resources: Resources, display: EvaluateDisplay
) -> EvaluatedSource:
    """Evaluate a sweep's answers into its folder, or one architecture. which: the best or all rows that pass
    the filters. Raises UserError.
    """
    if which not in ("best", "all"):
        raise UserError(f"--which: expected best or all, found {brief(which)}")
    check_source(source, filters)
    from topdown_ray.networks import evaluate
    from topdown_ray.store.evaluations import Evaluations

    with _answers(source, filters, which) as (rows, folder):
        evaluations = Evaluations(folder)
        with display() as show:
            evaluated = evaluate.evaluate_rows(rows, wanted, evaluations, resources, show)
    return EvaluatedSource(evaluated, tuple(evaluations.damaged), kept=is_run(source))


@contextlib.contextmanager
def _answers(source: str, filters: Filters, which: str) -> Iterator[tuple[pd.DataFrame, str | Path]]:
    """Return the chosen architectures and the folder of their evaluations: next to a sweep's rows, or a
    temporary one.
    """
    if not is_run(source):
        import pandas as pd

        from topdown_ray.networks.evaluator import canonical

        space, config = read_arch(source, filters)
        row = {"genes_space": space.name, "arch": canonical(space, config)}
        unknown = dict.fromkeys(("accuracy", "predictor_name", "predictor_sha256", "predictor_space"))
        with tempfile.TemporaryDirectory() as folder:
            yield pd.DataFrame([{**row, **unknown}]), Path(folder)
        return
    rows = winners(source, filters, "all" if which == "all" else "best")
    if not is_uri(source):
        check_output(Path(source), source, folder=True)
    yield rows, source


def sample(
    out: Path, draw: Draw, space: str | None, wanted: Wanted, resources: Resources, display: EvaluateDisplay
) -> Sampled:
    """Evaluate random subnets into one file. Rows that it already has are kept. Raises UserError."""
    if draw.spread not in ("uniform", "cost"):
        raise UserError(f"--spread: expected uniform or cost, found {brief(draw.spread)}")
    check_output(out, "--out")
    from topdown_ray.networks import evaluate
    from topdown_ray.spaces.cost import load_cost

    setup = wanted.setup(None if space is None else find_space(space))
    sizes = setup.checkpoint.description.image_sizes
    if draw.spread == "uniform":
        genes = evaluate.uniform(setup.space, sizes, draw.n, draw.seed)
    else:
        cost = load_cost(draw.cost, setup.space)
        genes = evaluate.along_cost(setup.space, sizes, draw.n, draw.seed, cost)
    with display() as show:
        rows, progress = evaluate.sample_dataset(setup, genes, out, resources, show)
    return Sampled(rows, progress.done - progress.before, setup.checkpoint.name, progress.given_up)


def export_source(
    source: str,
    filters: Filters,
    form: str,
    out: Path,
    weights: str,
    allow_random: bool,
    calibrate: tuple[Path, Settings] | None,
) -> exporting.Exported:
    """Export one architecture with its weights. calibrate: images that recalibrate batch normalisation.
    Raises UserError.
    """
    if form not in ("onnx", "torch", "config"):
        raise UserError(f"--format: expected onnx, torch or config, found {form!r}")
    check_output(out, "--out", folder=True)
    check_source(source, filters)
    from topdown_ray.networks import export as exporting
    from topdown_ray.networks.evaluator import EvaluationSetup
    from topdown_ray.networks.images import find_images
    from topdown_ray.networks.weights import find_weights

    space, config, facts = exporting.choose(source, filters)
    needs_none = form == "config" and weights == "published"
    checkpoint = find_weights(weights, space, allow_random or needs_none)
    setup = None
    if calibrate is not None:
        data, settings = calibrate
        setup = EvaluationSetup(checkpoint, find_images(data, checkpoint.description, settings))
    facts |= exporting.measured_facts(source, space, config, checkpoint)
    return exporting.export(checkpoint, config, form, out, facts, setup)
