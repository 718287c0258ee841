"""Find the file of a named predictor, without importing torch or reading the file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from topdown_ray import assets
from topdown_ray.errors import UserError
from topdown_ray.files import check_file, data
from topdown_ray.plugins import entry_points, find
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Space

NAMES = ("published", "embedded")  # other texts are paths and plug-ins


class PredictorFile(NamedTuple):
    """The file of a predictor."""

    name: str  # its name in rows
    path: Path
    trained_on: str | None  # the space that it was trained on; None if the file says it


def is_plugin(predictor: str) -> bool:
    """Whether this names a plug-in (``module:object`` or an entry point). Raises UserError if it cannot be
    loaded.
    """
    return predictor not in NAMES and find("predictors", predictor) is not None


def find_file(predictor: str, space: Space) -> PredictorFile:
    """Return the file of a predictor of a space: ``published`` (downloaded if necessary, and verified),
    ``embedded``, or a path. Raises UserError.
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
    """The path of a space's published predictor. Raises UserError if there is none."""
    file = space.traits.published.predictor
    if file is None:
        raise UserError(
            f"predictor: expected a predictor that is published for {space.name}, found none; name a file"
        )
    return file
