"""Define the commands that work with networks: ``evaluate``, ``sample-dataset``, ``train-predictor`` and
``export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from topdown_ray.cli import options
from topdown_ray.cli.display import evaluation_progress, status_line
from topdown_ray.cli.options import SPACE_HELP, Address, AnySpace, AsJson
from topdown_ray.cli.supervisor import supervise
from topdown_ray.errors import UserError, brief

if TYPE_CHECKING:
    from topdown_ray.networks.images import Settings


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(evaluate)
    app.command("sample-dataset")(sample_dataset)
    app.command("train-predictor")(train_predictor)
    app.command()(export)


def evaluate(
    source: options.RunOrArchitecture,
    data: options.ImageFolder,
    weights: options.Weights = "published",
    space: AnySpace = None,
    strategy: options.OfStrategy = None,
    cost: options.OfCost = None,
    target: options.OfTarget = None,
    seed: Annotated[int | None, typer.Option(help="For a result folder: use only this seed.")] = None,
    which: Annotated[
        str,
        typer.Option(
            help="For a result folder: best (the best row for each space, cost, strategy, target set and "
            "target), or all."
        ),
    ] = "best",
    address: Address = "local",
    actors: options.Evaluators = None,
    gpus: options.Gpus = 0.0,
    bad: options.BadImages = "error",
    calibration: options.Calibration = 2000,
    batch: options.ImagesOfBatch = 100,
    calibration_seed: options.CalibrationSeed = None,
    loaders: options.Loaders = 0,
    memory_mib: options.MemoryMib = 1024,
    allow_random_weights: options.AllowRandom = False,
    as_json: AsJson = False,
) -> None:
    """Measure the accuracy of subnets on images. Cut a sweep's answers, or one architecture, out of the
    supernet and measure their top-1 and top-5 accuracy. Results of a sweep are written to DIR/evaluations.
    """
    supervise(address)
    from topdown_ray.networks.architectures import check_source

    filters = {"space": space, "strategy": strategy, "cost_name": cost, "target": target, "seed": seed}
    check_source(source, filters)
    from topdown_ray.cli.present import networks as present
    from topdown_ray.networks import api
    from topdown_ray.networks.evaluate import Wanted
    from topdown_ray.networks.hosting import Resources

    settings = _settings(calibration, batch, calibration_seed, bad, loaders, memory_mib)
    wanted = Wanted(weights, data, settings, allow_random_weights)
    resources = Resources(address, actors, gpus)
    found = api.evaluate_source(source, filters, which, wanted, resources, evaluation_progress)
    present.print_evaluations(found, as_json)
    if any(space.progress.given_up for space in found.spaces):
        raise typer.Exit(1)


def sample_dataset(
    out: Annotated[Path, typer.Option(help="Parquet file to write. An existing file is continued.")],
    data: options.ImageFolder,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of subnets.")] = 1000,
    weights: options.Weights = "published",
    space: AnySpace = None,
    spread: Annotated[
        str,
        typer.Option(
            help="uniform (all architectures are equally likely), or cost (evenly over the range of the "
            "cost)."
        ),
    ] = "uniform",
    cost: Annotated[str, typer.Option(help="With --spread cost: macs, note10, or a latency table.")] = "macs",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random subnets.")] = 0,
    address: Address = "local",
    actors: options.Evaluators = None,
    gpus: options.Gpus = 0.0,
    bad: options.BadImages = "error",
    calibration: options.Calibration = 2000,
    batch: options.ImagesOfBatch = 100,
    calibration_seed: options.CalibrationSeed = None,
    loaders: options.Loaders = 0,
    memory_mib: options.MemoryMib = 1024,
    allow_random_weights: options.AllowRandom = False,
    as_json: AsJson = False,
) -> None:
    """Measure random subnets of a supernet. The result is a training set for train-predictor."""
    supervise(address)
    from topdown_ray.cli.present import networks as present
    from topdown_ray.networks import api
    from topdown_ray.networks.evaluate import Wanted
    from topdown_ray.networks.hosting import Resources

    settings = _settings(calibration, batch, calibration_seed, bad, loaders, memory_mib)
    wanted = Wanted(weights, data, settings, allow_random_weights)
    draw, resources = api.Draw(n, spread, cost, seed), Resources(address, actors, gpus)
    sampled = api.sample(out, draw, space, wanted, resources, evaluation_progress)
    present.print_sampled(sampled, out, as_json)
    if sampled.given_up:
        raise typer.Exit(1)


def train_predictor(
    dataset: Annotated[
        Path, typer.Argument(help="Measured subnets (Parquet), as sample-dataset writes them.")
    ],
    space: Annotated[str, typer.Option(help=SPACE_HELP)],
    out: Annotated[
        Path,
        typer.Option(
            help="Checkpoint to write (.safetensors). Its model card and picture are written next to it."
        ),
    ],
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the split, the initial weights and the order of rows.")
    ] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="Largest number of epochs.")] = 1000,
    patience: Annotated[
        int, typer.Option(min=1, help="Number of epochs without a smaller error after which training stops.")
    ] = 100,
    hidden: Annotated[
        int, typer.Option(min=1, max=8192, help="Number of units in each of the three hidden layers.")
    ] = 400,
    held_out: Annotated[
        float, typer.Option(help="Share of architectures that are held out to judge the predictor.")
    ] = 0.2,
    as_json: AsJson = False,
) -> None:
    """Train an accuracy predictor. Read the subnets that sample-dataset measured, and write a checkpoint that
    sweeps can use.
    """
    from topdown_ray.files import check_file, check_output
    from topdown_ray.spaces.registry import find_space

    check_output(out, "--out")
    found = find_space(space)
    check_file(dataset, "a table of measured accuracies (Parquet)")
    from topdown_ray.cli.present import networks as present
    from topdown_ray.networks import training

    wish = training.Training(hidden=hidden, epochs=epochs, patience=patience, held_out=held_out, seed=seed)
    with status_line("Training ...") as line:

        def show(epoch: int, most: int, best: float) -> None:
            line.update(f"Epoch {epoch} of at most {most}, mean error {100 * best:.2f} percentage points")

        learned = training.train(dataset, found, out, wish, show)
    present.print_learned(learned, as_json)


def export(
    source: options.RunOrArchitecture,
    out: Annotated[Path, typer.Option(help="New folder to write.")],
    form: Annotated[
        str,
        typer.Option(
            "--format", help="File format: onnx, torch (OFA's net.config and state dict), or config."
        ),
    ] = "onnx",
    space: AnySpace = None,
    strategy: options.OfStrategy = None,
    cost: options.OfCost = None,
    target: Annotated[float | None, typer.Option(help="For a result folder: use only this target.")] = None,
    seed: Annotated[str, typer.Option(help="For a result folder: use only this seed, or best.")] = "best",
    weights: options.Weights = "published",
    data: Annotated[
        Path | None,
        typer.Option(help="Image folder to recalibrate batch normalisation with, as evaluate does."),
    ] = None,
    bad: options.BadImages = "error",
    calibration: options.Calibration = 2000,
    calibration_seed: options.CalibrationSeed = None,
    allow_random_weights: options.AllowRandom = False,
    as_json: AsJson = False,
) -> None:
    """Export a subnet. Write it as ONNX, as OFA's files for torch, or as its configuration."""
    from topdown_ray.networks import api

    filters = {"space": space, "strategy": strategy, "cost_name": cost, "target": target}
    filters |= {"seed": _seed(seed)}
    calibrate = None
    if data is not None:
        calibrate = data, _settings(calibration, 100, calibration_seed, bad, 0, 1024)
    exported = api.export_source(source, filters, form, out, weights, allow_random_weights, calibrate)
    from topdown_ray.cli.present import networks as present

    present.print_exported(exported, form, as_json)


def _seed(text: str) -> int | None:
    if text != "best" and not (text.isascii() and text.isdigit() and len(text) < 20):
        raise UserError(f"--seed: expected best or a whole number, found {brief(text)}")
    return None if text == "best" else int(text)


def _settings(
    calibration: int, batch: int, seed: int | None, bad: str, loaders: int, memory_mib: int
) -> Settings:
    from topdown_ray.networks.images import SUB_SEED, Settings

    if bad not in ("error", "skip"):
        raise UserError(f"--bad: expected error or skip, found {brief(bad)}")
    return Settings(
        calibration=calibration,
        batch=batch,
        seed=SUB_SEED if seed is None else seed,
        bad="skip" if bad == "skip" else "error",
        loaders=loaders,
        memory_mib=memory_mib,
    )
