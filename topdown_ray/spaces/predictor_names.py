"""Which predictors can be named, and where the file of one lies: known without torch, before any is read."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from topdown_ray import assets
from topdown_ray.errors import UserError
from topdown_ray.files import check_file, data
from topdown_ray.plugins import entry_points, find
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Space

NAMES = ("published", "embedded")  # the others are paths and plug-ins


class PredictorFile(NamedTuple):
    """Where a predictor lies."""

    name: str  # in rows
    path: Path
    trained_on: str | None  # the space; None: as the file says


def is_plugin(predictor: str) -> bool:
    """Whether this names a plug-in: ``module:object``, or an entry point. Raises UserError for one that
    cannot be loaded.
    """
    return predictor not in NAMES and find("predictors", predictor) is not None


def find_file(predictor: str, space: Space) -> PredictorFile:
    """The file of a predictor of a space: ``published`` (found, fetched and verified), ``embedded``, or a
    path. Raises UserError.
    """
    trained_on = space.traits.predictor_space
    if predictor == "published":
        path = assets.find(_published(SPACES[trained_on]))
        found = PredictorFile(f"published:{path.name}", path, trained_on)
    elif predictor == "embedded":
        name = f"embedded_{trained_on}.safetensors"
        found = PredictorFile(f"embedded:{name}", data(name), trained_on)
    else:
        found = PredictorFile(Path(predictor).name, Path(predictor), None)
    named = ", ".join([*NAMES, *entry_points("predictors")])
    check_file(found.path, f"a predictor checkpoint (.safetensors or .pth), {named} or module:object")
    return found


def _published(space: Space) -> str:
    """The published predictor of a space. Raises UserError if there is none."""
    file = space.traits.published.predictor
    if file is None:
        raise UserError(
            f"predictor: expected one that is published for {space.name}, found none; name a file"
        )
    return file
