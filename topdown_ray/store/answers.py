"""The best answers of searches: the most accurate architecture for every space, strategy, cost and target,
with the statistics over the searches. In little memory, however many searches there are.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from topdown_ray.errors import UserError
from topdown_ray.store.part_files import READ_ATTEMPTS, DamagedError, parallel, part_names, read_part
from topdown_ray.store.place import Place
from topdown_ray.store.schema import SEARCHES

#: What an answer is for.
KEYS = ("space", "predictor_space", "strategy", "label", "cost_name", "cost_unit", "target", "limits")
BEST = ("accuracy", "cost", "seed", "arch")  # of the most accurate answer
_SUMS = ("searches", "total", "squares")  # of the answers that meet the target, their accuracies
_READ = pa.schema([SEARCHES.field(name) for name in (*KEYS, *BEST, "feasible")])


def best_answers(rows: pa.Table) -> pa.Table:
    """The best answer for each combination of :data:`KEYS` that some row of ``searches`` meets.

    Columns: those of ``KEYS``; ``accuracy``, ``cost``, ``seed``, ``arch`` of the most accurate answer (the
    cheapest of those, then the one with the smallest seed); ``searches``, the number of answers that meet the
    target, ``total`` and ``squares``, the sums of their accuracies and of the squares."""
    met = rows.select(_READ.names).filter(pc.and_kleene(rows["feasible"], pc.is_valid(rows["accuracy"])))
    label = met.schema.get_field_index("label")
    met = met.set_column(label, "label", pc.coalesce(met["label"], met["strategy"]))  # an old schema has none
    accuracy = met["accuracy"]
    sums = (pa.repeat(1, len(met)), accuracy, pc.multiply(accuracy, accuracy))
    for name, values in zip(_SUMS, sums, strict=True):
        met = met.append_column(name, values)
    return _best(met.drop_columns(["feasible"]))


def _best(answers: pa.Table) -> pa.Table:
    order = [("accuracy", "descending"), ("cost", "ascending"), ("seed", "ascending")]
    aggregates = [*((name, "first") for name in BEST), *((name, "sum") for name in _SUMS)]
    groups = answers.sort_by(order).group_by(list(KEYS), use_threads=False)
    found = groups.aggregate(aggregates).select([*KEYS, *("_".join(each) for each in aggregates)])
    return found.rename_columns([*KEYS, *BEST, *_SUMS])


def read_best_answers(place: Place) -> pa.Table:
    """The best answers of a result folder. Raises UserError where a part cannot be read."""
    for _ in range(READ_ATTEMPTS):
        names = list(part_names(place, "searches"))
        try:
            answers = parallel(place, lambda name: _of_part(place, name), names)
            return _best(pa.concat_tables([best_answers(_READ.empty_table()), *answers]))
        except FileNotFoundError:  # merged meanwhile
            continue
        except (DamagedError, OSError) as error:
            raise UserError(
                f"{place.of('searches')}: expected parts that can be read, found {place.reason(error)}"
            ) from error
    raise UserError(
        f"{place.name}: expected parts that stay while they are read, found them merged {READ_ATTEMPTS} times"
    )


def _of_part(place: Place, name: str) -> pa.Table:
    return best_answers(read_part(place, "searches", name, _READ, _READ.names))
