"""Make reference fronts: the best known architecture for each of many targets, from long joint searches that
are then polished.

Polishing tries every single and every double change of an architecture and applies the best one that still
fits, until none helps. No two changes can then improve the result. A front is a CSV file whose comment lines
record how it was made. ``report --reference`` measures the regret of other searches against it. Fronts that
come with the package can be given by name.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pandas as pd
import torch

from topdown_ray.addresses import shown
from topdown_ray.algorithms.memory import scored
from topdown_ray.errors import UserError
from topdown_ray.files import brief_path, check_output, data, written
from topdown_ray.spaces.space import Space
from topdown_ray.spaces.tiles import one_thread
from topdown_ray.store.results import load
from topdown_ray.store.schema import to_tables
from topdown_ray.sweeps.driver import make_plan
from topdown_ray.sweeps.identities import ALGORITHM_VERSION
from topdown_ray.sweeps.runner import Setup, Worker
from topdown_ray.sweeps.spec import make_spec

SHIPPED = data("fronts")
MAX_ROUNDS = 1000  # rounds of polishing one answer; each of them must gain
POLISHED = 4  # the most accurate architectures for each target are polished
_CANDIDATE = ["arch", "accuracy", "cost"]


@dataclass(frozen=True)
class FrontEffort:
    """The length of the searches for a front: ``seeds`` searches from ``first_seed`` on, with ``children``
    children each.
    """

    seeds: int = 8
    first_seed: int = 0
    children: int = 200_000
    population: int = 200


def make_front(
    space: str,
    cost: str,
    predictor: str,
    targets: Sequence[float],
    effort: FrontEffort,
    start: Sequence[str] = (),
    on_step: Callable[[str], None] = lambda step: None,
) -> tuple[pd.DataFrame, str]:
    """Return the best architecture found for each target, and the text of its file. Raises UserError.

    start: result folders whose answers and fronts are polished in addition to those of the new searches.
    Columns: space, predictor_space, cost_name, cost_unit, target, cost, accuracy (a fraction), arch.
    """
    search = {
        "population": effort.population,
        "generations": max(effort.children // effort.population - 1, 0),
        "warm_generations": 0,
    }
    data = {
        "name": "front",
        "spaces": [space],
        "strategies": ["joint"],
        "cost": cost,
        "predictor": predictor,
        "targets": [list(targets)],
        "seeds": {"start": effort.first_seed, "count": effort.seeds},
        "search": search,
    }
    plan = make_plan(make_spec(data, "front"))
    setup, worker = plan.setups[space], Worker(plan.setups)
    (device,) = plan.spec.devices(space)
    parts = [_known(folder, setup) for folder in start]
    for number, shard in enumerate(plan.shards()):
        on_step(f"Searching: {number * len(shard.seeds)} of {effort.seeds} seeds done")
        answers, _, front = to_tables(plan.run_id, *worker.run(shard))
        parts += [table.select(_CANDIDATE).to_pandas() for table in (answers, front)]
    rows = pd.concat(parts, ignore_index=True)
    on_step("Polishing the answers ...")
    frame = _polished(setup, rows, device.sets[0])
    lines = [
        f"reference front of {space} under {setup.cost.name} ({setup.cost.unit}), predicted top-1 by "
        f"{setup.predictor.name}",
        f"cost_sha256 {setup.cost.sha256}",
        f"predictor_sha256 {setup.predictor.sha256}",
        f"topdown-ray {metadata.version('topdown-ray')}, algorithm {ALGORITHM_VERSION}",
        f"topdown-ray front --space {space} --cost {cost} --predictor {predictor} --targets "
        f"{','.join(f'{target:g}' for target in device.sets[0])} --seeds {effort.seeds} "
        "--first-seed "
        f"{effort.first_seed} --children {effort.children} --population {effort.population}"
        + "".join(f" --start {Path(shown(folder)).name}" for folder in start),
    ]
    text = io.StringIO()
    text.writelines(f"# {line}\n" for line in lines)
    frame.to_csv(text, index=False)
    return frame, text.getvalue()


def write_front(
    out: Path | None,
    space: str,
    cost: str,
    predictor: str,
    targets: Sequence[float],
    effort: FrontEffort,
    start: Sequence[str] = (),
    on_step: Callable[[str], None] = lambda step: None,
) -> tuple[pd.DataFrame, Path]:
    """Make a reference front and write it as CSV. Return the front and its file (default
    ``front-SPACE-COST.csv`` in the current folder). Raises UserError.
    """
    path = Path(f"front-{space}-{Path(cost).name}.csv") if out is None else out
    if not path.absolute().parent.is_dir():
        raise UserError(f"--out: expected a file in an existing folder, found {brief_path(path)}")
    check_output(path, "--out")
    frame, text = make_front(space, cost, predictor, targets, effort, start, on_step)
    with written(path) as temporary:
        temporary.write_text(text)
    return frame, path


def _known(folder: str, setup: Setup) -> pd.DataFrame:
    """Return the answers and fronts of a result folder that has the same space, predictor and cost. Raises
    UserError.
    """
    results = load(folder)
    rows = pd.concat([results.searches, results.front], ignore_index=True)
    same = rows["space"].eq(setup.genes_space.name) & rows["cost_sha256"].eq(setup.cost.sha256)
    rows = rows[same & rows["predictor_sha256"].eq(setup.predictor.sha256)]
    if rows.empty:
        raise UserError(
            f"--start: {shown(folder)}: expected architectures of this space, predictor and cost, found none"
        )
    return rows[_CANDIDATE]


def _polished(setup: Setup, rows: pd.DataFrame, targets: Sequence[float]) -> pd.DataFrame:
    """Return the best of all architectures that meet each target, polished."""
    space = setup.genes_space
    rows = rows.drop_duplicates("arch").sort_values("accuracy", ascending=False, kind="stable")
    answers, limits = [], []
    for target in sorted(targets):
        for arch in rows.loc[rows["cost"] <= target, "arch"].head(POLISHED):
            answers.append(torch.from_numpy(space.from_config(json.loads(arch))))
            limits.append(target)
    with one_thread(), torch.inference_mode():
        polished = [
            polish(space, setup.predictor, setup.cost, genes, limit)
            for genes, limit in zip(answers, limits, strict=True)
        ]
        everything = space.canonical(torch.stack(polished))
        accuracy, cost = setup.predictor(everything), setup.cost(everything)
    records = []
    for target in sorted(set(limits), reverse=True):
        best = int(accuracy.masked_fill(cost > target, -torch.inf).argmax())
        record = {
            "space": space.name,
            "predictor_space": setup.predictor.predictor_space,
            "cost_name": setup.cost.name,
            "cost_unit": setup.cost.unit,
            "target": target,
        }
        arch = json.dumps(space.to_config(everything[best]))
        records.append({**record, "cost": float(cost[best]), "accuracy": float(accuracy[best]), "arch": arch})
    return pd.DataFrame(records)


def polish(
    space: Space,
    accuracy: Callable[[torch.Tensor], torch.Tensor],
    cost: Callable[[torch.Tensor], torch.Tensor],
    genes: torch.Tensor,
    limit: float,
) -> torch.Tensor:
    """Apply the best single or double change that fits until none helps: genes (G,) -> (G,)."""
    best, score = space.canonical(genes[None]), float(scored(accuracy, genes[None])[0])
    singles = [[(g, choice)] for g, size in enumerate(space.sizes) for choice in range(size)]
    pairs = [[*one, *other] for one, other in itertools.combinations(singles, 2) if one[0][0] != other[0][0]]
    changes = [*singles, *pairs]
    row = torch.tensor([i for i, change in enumerate(changes) for _ in change])
    gene, choice = (torch.tensor([part[j] for change in changes for part in change]) for j in (0, 1))
    for _ in range(MAX_ROUNDS):
        tried = best.repeat(len(changes), 1)
        tried[row, gene] = choice.to(torch.int8)
        tried = tried[cost(tried) <= limit]
        if len(tried) == 0:
            break
        tried = torch.unique(space.canonical(tried), dim=0)
        scores = scored(accuracy, tried)
        place = int(scores.argmax())
        if float(scores[place]) <= score:
            break
        best, score = tried[place : place + 1], float(scores[place])
    return best[0]


def shipped() -> list[str]:
    """Return the names of the fronts that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.csv"))


def find_front(name: str) -> Path:
    """Return the file of a front, given its path or the name of one that comes with the package. Raises
    UserError.
    """
    path = Path(name)
    if path.is_file():
        return path
    if (SHIPPED / f"{name}.csv").is_file():
        return SHIPPED / f"{name}.csv"
    raise UserError(f"--reference: expected a CSV file or one of {', '.join(shipped())}, found {name}")
