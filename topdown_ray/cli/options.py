"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from topdown_ray.addresses import check_address
from topdown_ray.errors import UserError, brief
from topdown_ray.spaces.registry import in_words

SPACE_HELP = f"{in_words()}."

# --- every room ---------------------------------------------------------------------------------------------

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Address = Annotated[
    str,
    typer.Option(
        callback=check_address, help="none (this process, no Ray), local, auto, HOST:PORT or ray://HOST:PORT."
    ),
]
SpaceName = Annotated[str, typer.Option("--space", help=SPACE_HELP)]
AnySpace = Annotated[str | None, typer.Option("--space", help=SPACE_HELP)]

# --- sweeps and searches ------------------------------------------------------------------------------------

Actors = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Search actors; default: all CPUs of the cluster, including those of nodes that join later.",
    ),
]
PredictorName = Annotated[
    str, typer.Option(help="published, embedded, a checkpoint's path, or module:object.")
]


def read_limit(text: str) -> tuple[str, float]:
    """A limit as it is written on the command line. Raises UserError."""
    name, _, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        name = ""
    if not name:
        raise UserError(f"--limit: expected COST=NUMBER, such as params=6.0, found {brief(text)}")
    return name, value


def read_part(text: str) -> tuple[int, int]:
    """A part as it is written on the command line, such as 3/8. Raises UserError."""
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
    str | None, typer.Option("--strategy", help="Of a folder: rows of this strategy only.")
]
OfCost = Annotated[str | None, typer.Option("--cost", help="Of a folder: rows of this cost only.")]
OfTarget = Annotated[float | None, typer.Option("--target", help="Of a folder: rows of this target only.")]

# --- networks -----------------------------------------------------------------------------------------------

ImageFolder = Annotated[
    Path, typer.Option("--data", help="A folder with train/CLASS/* and val/CLASS/*, as ImageNet.")
]
Weights = Annotated[
    str, typer.Option(help="published, random, or a supernet's weights (.safetensors, or OFA's form).")
]
AllowRandom = Annotated[
    bool,
    typer.Option(
        "--allow-random-weights", help="Continue without trained weights; the figures mean nothing."
    ),
]
Evaluators = Annotated[
    int | None, typer.Option("--actors", min=1, help="Actors; default: as many as the cluster has room for.")
]
Gpus = Annotated[float, typer.Option(help="GPUs of an actor; 0.25 lets four share one. 0: on CPUs.")]
BadImages = Annotated[
    str,
    typer.Option(
        help="Broken images, empty classes, sizes unknown to the supernet: error, or skip (counted)."
    ),
]
Calibration = Annotated[int, typer.Option(help="Training images that recalibrate batch normalisation.")]
ImagesOfBatch = Annotated[int, typer.Option("--batch", help="Validation images of a batch.")]
CalibrationSeed = Annotated[
    int | None,
    typer.Option(
        help="Which images calibrate, and how they are cropped; default: the seed that OFA itself uses."
    ),
]
Loaders = Annotated[
    int, typer.Option(min=0, help="Processes of an actor that decode images; 0: the actor itself.")
]
MemoryMib = Annotated[int, typer.Option(min=0, help="Decoded images that an actor keeps, MiB.")]
