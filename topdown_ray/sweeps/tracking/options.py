"""Check the values of ``--track`` before anything is imported that takes long."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass

from topdown_ray.addresses import hidden, is_uri, shown
from topdown_ray.errors import UserError, brief

_NEEDS = {"tensorboard": ("tensorboard", "tensorboard"), "mlflow": ("mlflow", "mlflow-skinny")}


@dataclass(frozen=True)
class Track:
    """A tracker and where it writes."""

    kind: str  # tensorboard or mlflow
    where: str  # a folder, or the URI of a server

    @property
    def option(self) -> str:
        """The option as messages name it."""
        return f"--track {self.kind}"


def read_tracks(texts: Sequence[str]) -> list[Track]:
    """Read trackers from ``tensorboard:DIR``, ``mlflow:URI`` and ``mlflow`` (the server in
    ``MLFLOW_TRACKING_URI``).

    Raises UserError for any other text, and if the package of a tracker is not installed.
    """
    return [_read(text) for text in dict.fromkeys(texts)]


def _read(text: str) -> Track:
    kind, _, where = text.partition(":") if isinstance(text, str) else ("", "", "")
    if kind not in _NEEDS or (kind == "tensorboard" and not where):
        found = hidden(brief(text))
        raise UserError(f"--track: expected tensorboard:DIR, mlflow:URI or mlflow, found {found}")
    module, package = _NEEDS[kind]
    if kind == "tensorboard" and is_uri(where):
        raise UserError(f"--track tensorboard: expected a local folder, found {shown(where)}")
    if importlib.util.find_spec(module) is None:
        raise UserError(
            f'--track {kind}: expected the package {package} (pip install "topdown-ray[{kind}]"), found none'
        )
    if kind == "mlflow" and not where:
        where = os.environ.get("MLFLOW_TRACKING_URI", "")
        if not where:
            raise UserError(
                "--track mlflow: expected mlflow:http://HOST:PORT or MLFLOW_TRACKING_URI, found neither"
            )
    if kind == "mlflow" and "://" not in where and where != "databricks":
        raise UserError(
            f"--track mlflow: expected the URI of a server, such as http://HOST:PORT, found {where!r}"
        )
    return Track(kind, where)
