"""The commands that hold the networks themselves: evaluate, sample-dataset, train-predictor, export. Parse
and wire; no logic.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from topdown_ray.cli.display import Address, AsJson, progress_bar, status_line
from topdown_ray.cli.supervisor import supervise
from topdown_ray.errors import UserError, brief
from topdown_ray.files import check_output
from topdown_ray.spaces.registry import in_words
from topdown_ray.terminal import say

if TYPE_CHECKING:
    from topdown_ray.networks.hosting import Resources
    from topdown_ray.networks.images import Settings
    from topdown_ray.progress import Progress

Data = Annotated[Path, typer.Option(help="A folder with train/CLASS/* and val/CLASS/*, as ImageNet.")]
Weights = Annotated[
    str, typer.Option(help="published, random, or a supernet's weights (.safetensors, or OFA's form).")
]
AllowRandom = Annotated[
    bool,
    typer.Option("--allow-random-weights", help="Go on without trained weights; the figures mean nothing."),
]
SpaceName = Annotated[str | None, typer.Option("--space", help=f"{in_words()}.")]
Actors = Annotated[
    int | None, typer.Option(min=1, help="Actors; default: as many as the cluster has room for.")
]
Gpus = Annotated[float, typer.Option(help="GPUs of an actor; 0.25 lets four share one. 0: on CPUs.")]
Bad = Annotated[
    str,
    typer.Option(
        help="Broken images, empty classes, sizes unknown to the supernet: error, or skip (counted)."
    ),
]
Calibration = Annotated[int, typer.Option(help="Training images that recalibrate batch normalisation.")]
Batch = Annotated[int, typer.Option(help="Validation images of a batch.")]
Seed = Annotated[
    int | None,
    typer.Option(help="Which images calibrate, and how they are cropped; default: OFA's own seed."),
]
Loaders = Annotated[
    int, typer.Option(min=0, help="Processes of an actor that decode images; 0: the actor itself.")
]
MemoryMib = Annotated[int, typer.Option(min=0, help="Decoded images that an actor keeps, MiB.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(evaluate)
    app.command("sample-dataset")(sample_dataset)
    app.command("train-predictor")(train_predictor)
    app.command()(export)


def evaluate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|ARCH", help="A result folder, a JSON file, or an architecture as JSON text."
        ),
    ],
    data: Data,
    weights: Weights = "published",
    space: SpaceName = None,
    strategy: Annotated[str | None, typer.Option(help="Of a folder: rows of this strategy only.")] = None,
    target: Annotated[float | None, typer.Option(help="Of a folder: rows of this target only.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of a folder: rows of this seed only.")] = None,
    which: Annotated[
        str, typer.Option(help="Of a folder: best (of each space, strategy, target set and target), or all.")
    ] = "best",
    address: Address = "local",
    actors: Actors = None,
    gpus: Gpus = 0.0,
    bad: Bad = "error",
    calibration: Calibration = 2000,
    batch: Batch = 100,
    calibration_seed: Seed = None,
    loaders: Loaders = 0,
    memory_mib: MemoryMib = 1024,
    allow_random_weights: AllowRandom = False,
    as_json: AsJson = False,
) -> None:
    """Measure top-1 and top-5 of a sweep's answers, or of one architecture, in the supernet; into
    DIR/evaluations.
    """
    supervise(address)
    import pandas as pd

    from topdown_ray.cli.present import print_damaged
    from topdown_ray.networks.architectures import is_run, read_arch, winners
    from topdown_ray.networks.evaluate import Wanted, evaluate_rows
    from topdown_ray.networks.evaluator import canonical
    from topdown_ray.store.evaluations import Evaluations
    from topdown_ray.store.place import is_uri

    if which not in ("best", "all"):
        raise UserError(f"--which: expected best or all, found {brief(which)}")
    settings = _settings(calibration, batch, calibration_seed, bad, loaders, memory_mib)
    wanted = Wanted(weights, data, settings, allow_random_weights)
    resources = _resources(address, actors, gpus)
    filters = {"space": space, "strategy": strategy, "target": target, "seed": seed}
    with contextlib.ExitStack() as stack:
        if is_run(source):
            rows = winners(source, filters, "all" if which == "all" else "best")
            folder = source
            if not is_uri(source):
                check_output(Path(source), source, folder=True)
        else:
            its_space, config = read_arch(source, filters)
            nothing = {"accuracy": None, "predictor_name": None, "predictor_sha256": None}
            rows = pd.DataFrame(
                [{"genes_space": its_space.name, "arch": canonical(its_space, config), **nothing}]
            )
            folder = stack.enter_context(tempfile.TemporaryDirectory())
        evaluations = Evaluations(folder)
        with _display() as show:
            measured = evaluate_rows(rows, wanted, evaluations, resources, show)
        print_damaged(evaluations.damaged)
    if as_json:
        columns = [
            "space",
            "arch",
            "top1",
            "top5",
            "n_images",
            "n_bad",
            "missing_classes",
            "predicted",
            "weights_name",
        ]
        rows = pd.concat([part.rows[columns] for part in measured]).astype(object)
        found = rows.where(rows.notna(), None).to_dict("records")  # not pandas' JSON, which rounds
        print(json.dumps({"left_out": sum(part.left_out for part in measured), "evaluations": found}))
    else:
        for part in measured:
            _print_measured(part.rows, part.left_out)
    _exit_status([part.progress.given_up for part in measured], is_run(source))


def sample_dataset(
    out: Annotated[Path, typer.Option(help="The Parquet file; one that is there is continued.")],
    data: Data,
    n: Annotated[int, typer.Option("--n", min=1, help="How many subnets.")] = 1000,
    weights: Weights = "published",
    space: SpaceName = None,
    spread: Annotated[
        str, typer.Option(help="uniform, or cost: evenly along the range of the cost.")
    ] = "uniform",
    cost: Annotated[str, typer.Option(help="With --spread cost: macs, note10, or a table.")] = "macs",
    seed: Annotated[int, typer.Option(min=0, help="Which subnets are drawn.")] = 0,
    address: Address = "local",
    actors: Actors = None,
    gpus: Gpus = 0.0,
    bad: Bad = "error",
    calibration: Calibration = 2000,
    batch: Batch = 100,
    calibration_seed: Seed = None,
    loaders: Loaders = 0,
    memory_mib: MemoryMib = 1024,
    allow_random_weights: AllowRandom = False,
    as_json: AsJson = False,
) -> None:
    """Measure random subnets of a supernet: the training set of a predictor."""
    supervise(address)
    from topdown_ray.networks import evaluate
    from topdown_ray.spaces.cost import load_cost
    from topdown_ray.spaces.registry import find_space

    if spread not in ("uniform", "cost"):
        raise UserError(f"--spread: expected uniform or cost, found {brief(spread)}")
    check_output(out, "--out")
    settings = _settings(calibration, batch, calibration_seed, bad, loaders, memory_mib)
    setup = evaluate.Wanted(weights, data, settings, allow_random_weights).setup(
        None if space is None else find_space(space)
    )
    sizes = setup.checkpoint.description.image_sizes
    if spread == "uniform":
        genes = evaluate.uniform(setup.space, sizes, n, seed)
    else:
        genes = evaluate.along_cost(setup.space, sizes, n, seed, load_cost(cost, setup.space))
    with _display() as show:
        rows, progress = evaluate.sample_dataset(setup, genes, out, _resources(address, actors, gpus), show)
    facts: dict[str, Any] = {
        "out": str(out),
        "rows": len(rows),
        "measured": progress.done - progress.before,
        "weights": setup.checkpoint.name,
    }
    facts |= {name: float(getattr(rows["top1"], name)()) for name in ("min", "median", "max", "std")}
    if as_json:
        print(json.dumps(facts))
        _exit_status([progress.given_up])
        return
    print(f"{out}: {len(rows)} subnets of {setup.checkpoint.name}, {facts['measured']} of them measured now")
    print(
        "top-1: " + ", ".join(f"{name} {100 * facts[name]:.2f} %" for name in ("min", "median", "max")),
        end="",
    )
    print(f", standard deviation {100 * facts['std']:.2f} points")
    _exit_status([progress.given_up])


def train_predictor(
    dataset: Annotated[
        Path, typer.Argument(help="Measured subnets (Parquet), as sample-dataset writes them.")
    ],
    space: Annotated[str, typer.Option(help=f"{in_words()}.")],
    out: Annotated[
        Path, typer.Option(help="The checkpoint (.safetensors); its card and picture lie beside it.")
    ],
    seed: Annotated[int, typer.Option(min=0, help="The split, the initial weights, the order of rows.")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="At most.")] = 1000,
    patience: Annotated[
        int, typer.Option(min=1, help="Epochs without a better error before it stops.")
    ] = 100,
    hidden: Annotated[
        int, typer.Option(min=1, max=8192, help="Units of each of the three hidden layers.")
    ] = 400,
    held_out: Annotated[float, typer.Option(help="The share of rows that only judge.")] = 0.2,
    as_json: AsJson = False,
) -> None:
    """Train an accuracy predictor on measured subnets."""
    from topdown_ray.networks import training
    from topdown_ray.spaces.registry import find_space

    its_space = find_space(space)
    check_output(out, "--out")
    options = training.Training(hidden=hidden, epochs=epochs, patience=patience, held_out=held_out, seed=seed)
    with status_line("training") as status:

        def show(epoch: int, most: int, best: float) -> None:
            status.update(f"epoch {epoch} of at most {most}, mean error {100 * best:.2f} points")

        learned = training.train(dataset, its_space, out, options, show)
    held = learned.held_out
    if learned.warning:
        say(f"warning: {learned.warning}")
    if as_json:
        parts = {
            name: _finite(dataclasses.asdict(getattr(learned, name))) for name in ("held_out", "trained")
        }
        print(json.dumps({**dataclasses.asdict(learned), **parts, "path": str(learned.path)}))
        return
    repeated = f" of {learned.architectures} architectures" if learned.rows > learned.architectures else ""
    print(f"{out}: {learned.rows} rows{repeated}, {held.n} of them held out, {learned.epochs} epochs")
    ranks = f"Kendall's tau {held.kendall:.3f}, Spearman {held.spearman:.3f}"
    if held.n < training.LEAST_RANKED:
        ranks = f"no rank correlation of fewer than {training.LEAST_RANKED}"
    print(f"held out: {ranks}, mean error {100 * held.mae:.2f} points")


def _finite(figures: dict[str, Any]) -> dict[str, Any]:
    """The same with None for NaN, which JSON does not know."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|ARCH", help="A result folder, a JSON file, or an architecture as JSON text."
        ),
    ],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    form: Annotated[
        str, typer.Option("--format", help="onnx, torch (OFA's net.config and state dict), or config.")
    ] = "onnx",
    space: SpaceName = None,
    strategy: Annotated[str | None, typer.Option(help="Of a folder: rows of this strategy only.")] = None,
    target: Annotated[float | None, typer.Option(help="Of a folder: the target.")] = None,
    seed: Annotated[str, typer.Option(help="Of a folder: a seed, or best.")] = "best",
    weights: Weights = "published",
    data: Annotated[
        Path | None, typer.Option(help="Images to recalibrate batch normalisation with, as evaluate does.")
    ] = None,
    bad: Bad = "error",
    calibration: Calibration = 2000,
    calibration_seed: Seed = None,
    allow_random_weights: AllowRandom = False,
    as_json: AsJson = False,
) -> None:
    """Hand a subnet over as ONNX, as OFA's files for torch, or as its configuration."""
    from topdown_ray.networks import export as exporting
    from topdown_ray.networks.evaluator import Setup
    from topdown_ray.networks.images import find_images
    from topdown_ray.networks.weights import find_weights

    if seed != "best" and not (seed.isascii() and seed.isdigit() and len(seed) < 20):
        raise UserError(f"--seed: expected best or a whole number, found {brief(seed)}")
    check_output(out, "--out", folder=True)
    filters = {
        "space": space,
        "strategy": strategy,
        "target": target,
        "seed": None if seed == "best" else int(seed),
    }
    its_space, config, facts = exporting.choose(source, filters)
    checkpoint = find_weights(
        weights, its_space, allow_random_weights or (form == "config" and weights == "published")
    )
    setup = None
    if data is not None:
        settings = _settings(calibration, 100, calibration_seed, bad, 0, 1024)
        setup = Setup(checkpoint, find_images(data, checkpoint.description, settings))
    facts |= exporting.measured_facts(source, its_space, config, checkpoint)
    exported = exporting.export(checkpoint, config, form, out, facts, setup)
    if as_json:
        print(json.dumps({**dataclasses.asdict(exported), "path": str(exported.path)}))
        return
    print(f"{out}: {', '.join(exported.files)}")
    if exported.onnx_difference is not None:
        print(f"onnxruntime and torch differ by at most {exported.onnx_difference:.1e}")
    if form != "config" and not exported.calibrated:
        print("Batch normalisation is not recalibrated (no --data).")


def _exit_status(given_up: Sequence[Mapping[str, str]], kept: bool = True) -> None:
    """Exit with status 1 where measurements finally failed, a line for each. kept: whether records of them
    are.
    """
    for identity, reason in (pair for each in given_up for pair in each.items()):
        record = f"; failures/{identity}.json beside the rows has its architecture and the traceback"
        say(f"measurement {identity} failed: {reason}{record if kept else ''}")
    if any(given_up):
        raise typer.Exit(1)


def _resources(address: str, actors: int | None, gpus: float) -> Resources:
    from topdown_ray.networks.hosting import Resources

    return Resources(address, actors, gpus)


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


@contextlib.contextmanager
def _display() -> Iterator[Callable[[Progress], None]]:
    """One live line; an interrupt says how to go on."""
    from rich import progress as rich_progress

    columns = (
        rich_progress.TextColumn("subnets"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[rate]}"),
        rich_progress.TimeRemainingColumn(),
    )
    try:
        with progress_bar(*columns) as display:
            task = display.add_task("subnets", total=None, rate="starting")

            def show(state: Progress) -> None:
                display.start()  # not before all is checked: a mistake is one line
                rate = f"{60 * state.rate:.1f}/min" if state.done > state.before else "..."
                display.update(task, total=state.total, completed=state.done, rate=rate)

            yield show
    except KeyboardInterrupt:
        say("Interrupted. What was measured is kept; run the same command again to go on.")
        raise typer.Exit(130) from None


def _print_measured(rows: Any, left_out: int) -> None:
    from topdown_ray.stats import agreement

    for row in rows.sort_values("top1", ascending=False).to_dict("records"):
        predicted = (
            ""
            if row["predicted"] != row["predicted"] or row["predicted"] is None
            else f", predicted {100 * row['predicted']:.2f} %"
        )
        bad = f", {row['n_bad']} images left out" if row["n_bad"] else ""
        missing = f", {row['missing_classes']} classes without images" if row["missing_classes"] else ""
        print(
            f"top-1 {100 * row['top1']:.2f} %, top-5 {100 * row['top5']:.2f} %{predicted} ({row['n_images']} "
            f"images{bad}{missing})"
        )
        print(f"  {row['space']} {row['arch']}")
    known = rows[rows["predicted"].notna()]
    if len(known) > 2:
        found = agreement(known["predicted"].to_numpy(), known["top1"].to_numpy())
        print(
            f"predicted against measured, {found.n} architectures: Kendall's tau {found.kendall:.3f}, "
            f"Spearman {found.spearman:.3f}"
        )
    if left_out:
        print(f"{left_out} architectures left out: the supernet was not trained at their image sizes")
    if len(rows) and rows["weights_name"].iloc[0] == "random":
        print("The weights are random: these figures mean nothing.")
