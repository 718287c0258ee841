"""Find the best answers for every space, strategy, cost and target in little memory.

The parts of a folder are read and reduced one after another, so that memory does not grow with the number of
searches."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from topdown_ray.errors import UserError
from topdown_ray.store.part_files import READ_ATTEMPTS, DamagedError, parallel, part_names, read_part
from topdown_ray.store.place import Place
from topdown_ray.store.schema import SEARCHES

#: The columns that say what an answer is for.
KEYS = ("space", "predictor_space", "strategy", "label", "cost_name", "cost_unit", "target", "limits")
BEST = ("accuracy", "cost", "seed", "arch")  # of the most accurate answer
CENTRE = 0.75  # accuracies are near it, so that their sums of squares keep their digits
_SUMS = ("searches", "total", "squares")


def best_accuracies(rows: pa.Table) -> pa.Table:
    """Return the columns ``KEYS`` and ``accuracy``: the best accuracy for each combination of ``KEYS`` whose
    target is met by some row of ``searches``.
    """
    return _highest(_met(rows, ("accuracy",)))


def read_best_accuracies(place: Place) -> pa.Table:
    """Return :func:`best_accuracies` of a result folder. Raises UserError if a part cannot be read."""
    return _highest(_of_parts(place, best_accuracies, ("accuracy",)))


def read_best_answers(place: Place) -> pa.Table:
    """Return the best answer in a result folder for each combination of ``KEYS`` whose target is met by some
    search. Raises UserError if a part cannot be read.

    Columns: ``KEYS``; ``BEST`` of the most accurate answer (of several, the cheapest, then the one with the
    smallest seed); ``searches``, the number of searches that met the target; ``total`` and ``squares``, the
    sums of their accuracies minus ``CENTRE`` and of the squares of these."""
    return _best(_of_parts(place, _answers, BEST))


def _met(rows: pa.Table, columns: tuple[str, ...]) -> pa.Table:
    """The rows that meet their target, with ``KEYS`` and these columns."""
    met = rows.select([*KEYS, *columns]).filter(rows["feasible"])  # a missing value counts as False
    label = KEYS.index("label")  # missing in an older schema
    return met.set_column(label, "label", pc.coalesce(met["label"], met["strategy"]))


def _highest(answers: pa.Table) -> pa.Table:
    found = answers.group_by(list(KEYS), use_threads=False).aggregate([("accuracy", "max")])
    return found.select([*KEYS, "accuracy_max"]).rename_columns([*KEYS, "accuracy"])


def _answers(rows: pa.Table) -> pa.Table:
    met = _met(rows, BEST)
    above = pc.subtract(met["accuracy"], CENTRE)
    sums = (pa.repeat(1, len(met)), above, pc.multiply(above, above))
    for name, values in zip(_SUMS, sums, strict=True):
        met = met.append_column(name, values)
    return _best(met)


def _best(answers: pa.Table) -> pa.Table:
    order = [("accuracy", "descending"), ("cost", "ascending"), ("seed", "ascending")]
    aggregates = [*((name, "first") for name in BEST), *((name, "sum") for name in _SUMS)]
    found = answers.sort_by(order).group_by(list(KEYS), use_threads=False).aggregate(aggregates)
    names = [f"{name}_{function}" for name, function in aggregates]
    return found.select([*KEYS, *names]).rename_columns([*KEYS, *BEST, *_SUMS])


def _of_parts(place: Place, of: Callable[[pa.Table], pa.Table], columns: tuple[str, ...]) -> pa.Table:
    """Apply ``of`` to each part of ``searches`` and concatenate the results."""
    schema = pa.schema([SEARCHES.field(name) for name in (*KEYS, *columns, "feasible")])

    def of_part(name: str) -> pa.Table:
        return of(read_part(place, "searches", name, schema, schema.names))

    for _ in range(READ_ATTEMPTS):
        names = list(part_names(place, "searches"))
        try:
            return pa.concat_tables([of(schema.empty_table()), *parallel(place, of_part, names)])
        except FileNotFoundError:  # merged in the meantime
            continue
        except (DamagedError, OSError) as error:
            raise UserError(
                f"{place.of('searches')}: expected parts that can be read, found {place.reason(error)}"
            ) from error
    raise UserError(
        f"{place.name}: expected parts that do not change while they are read, found parts that were merged "
        f"in each of {READ_ATTEMPTS} attempts"
    )
