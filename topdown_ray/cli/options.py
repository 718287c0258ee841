"""Define the options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from topdown_ray.addresses import check_address
from topdown_ray.errors import UserError, brief
from topdown_ray.spaces.registry import in_words

SPACE_HELP = f"Design space: {in_words()}."

# --- every room ---------------------------------------------------------------------------------------------

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Address = Annotated[
    str,
    typer.Option(
        callback=check_address,
        help="Where to run: none (this process, without Ray), local (Ray on this machine), or a Ray cluster "
        "as auto, HOST:PORT or ray://HOST:PORT.",
    ),
]
SpaceName = Annotated[str, typer.Option("--space", help=SPACE_HELP)]
AnySpace = Annotated[str | None, typer.Option("--space", help=SPACE_HELP)]

# --- sweeps and searches ------------------------------------------------------------------------------------

Actors = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Number of search actors on CPUs (default: all CPUs of the cluster, including those of nodes "
        "that join later).",
    ),
]
PredictorName = Annotated[
    str, typer.Option(help="Predictor: published, embedded, the path of a checkpoint, or module:object.")
]


def read_limit(text: str) -> tuple[str, float]:
    """Read a limit from the command line, such as params=6.0. Raises UserError."""
    name, _, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        name = ""
    if not name:
        raise UserError(f"--limit: expected COST=NUMBER, such as params=6.0, found {brief(text)}")
    return name, value


def read_part(text: str) -> tuple[int, int]:
    """Read a part from the command line, such as 3/8. Raises UserError."""
    number, slash, of = text.partition("/")
    if not (slash and all(each.isascii() and each.isdigit() for each in (number, of))):
        raise UserError(f"--part: expected K/N, such as 3/8, found {brief(text)}")
    return int(number), int(of)


# --- rows of a result folder, or architectures --------------------------------------------------------------

RunOrArchitecture = Annotated[
    str,
    typer.Argument(metavar="RUN|ARCH", help="A result folder, a JSON file, or an architecture as JSON text."),
]
OfStrategy = Annotated[
    str | None, typer.Option("--strategy", help="For a result folder: use only this strategy.")
]
OfCost = Annotated[str | None, typer.Option("--cost", help="For a result folder: use only this cost.")]
OfTarget = Annotated[
    float | None, typer.Option("--target", help="For a result folder: use only this target.")
]

# --- networks -----------------------------------------------------------------------------------------------

ImageFolder = Annotated[
    Path, typer.Option("--data", help="Image folder with train/CLASS/* and val/CLASS/*, like ImageNet.")
]
Weights = Annotated[
    str, typer.Option(help="Supernet weights: published, random, or a file (.safetensors, or in OFA's form).")
]
AllowRandom = Annotated[
    bool,
    typer.Option(
        "--allow-random-weights",
        help="Continue without trained weights. The accuracies are then meaningless.",
    ),
]
Evaluators = Annotated[
    int | None,
    typer.Option("--actors", min=1, help="Number of actors (default: as many as fit into the cluster)."),
]
Gpus = Annotated[
    float, typer.Option(help="GPUs per actor. 0 runs on CPUs, and 0.25 lets four actors share a GPU.")
]
BadImages = Annotated[
    str,
    typer.Option(
        help="What to do with broken images, empty classes and image sizes that the supernet does not have: "
        "error, or skip (and count them)."
    ),
]
Calibration = Annotated[
    int, typer.Option(help="Number of training images that recalibrate batch normalisation.")
]
ImagesOfBatch = Annotated[int, typer.Option("--batch", help="Validation images per batch.")]
CalibrationSeed = Annotated[
    int | None,
    typer.Option(
        help="Seed of the choice of calibration images and of their crops (default: the seed that OFA uses)."
    ),
]
Loaders = Annotated[
    int, typer.Option(min=0, help="Processes per actor that decode images. 0: the actor decodes them itself.")
]
MemoryMib = Annotated[int, typer.Option(min=0, help="Memory per actor for decoded images, in MiB.")]
