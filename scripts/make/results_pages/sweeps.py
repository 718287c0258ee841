"""Tables that are computed from sweeps: each function runs or continues its sweeps, and returns its tables.

The result folders are in results/figures, so a second run only reads them. The statistics are those of
``topdown-ray report``."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

import topdown_ray
from results_pages.stored import ROOT, Row, Stored, rows_of
from topdown_ray import machine, stats
from topdown_ray.files import data as packaged
from topdown_ray.report import comparisons, notebook, tables, whole_sets
from topdown_ray.report.compare import compare
from topdown_ray.report.labelling import LONE, Data, prepare

SWEEPS = ROOT / "scripts" / "sweeps"
OUT = ROOT / "results" / "figures"
KEYS = ["setting", "strategy", "k", "targets"]
SEEDS_OF_SPENT = 16  # searches in lock step, of the tables that compare CPU seconds

Made = dict[str, Stored]


@functools.cache
def _swept(folder: str, file: str, changes: tuple[tuple[str, Any], ...]) -> topdown_ray.Results:
    return topdown_ray.sweep(SWEEPS / file, out=OUT / folder, address="none", **dict(changes))


def swept(folder: str, file: str, **changes: Any) -> topdown_ray.Results:
    """The results of a sweep file, with some of its fields changed; searched where they are missing."""
    return _swept(folder, file, tuple(changes.items()))


#: Intel's processors of family 6 by model: systems often give them no other name than Xeon.
XEONS = {
    "85": "Skylake or Cascade Lake",
    "106": "Ice Lake",
    "143": "Sapphire Rapids",
    "207": "Emerald Rapids",
}


def here() -> str:
    """This machine in words."""
    told = machine.hardware()
    found = re.search(r"Intel\(R\) Xeon.*family 6, model (\d+)", told["processor"])
    known = XEONS.get(found[1]) if found else None
    name = f"an Intel Xeon ({known})" if known else f"one machine ({told['processor']})"
    return f"{name} with {told['cores']} cores"


def made(
    name: str, results: Mapping[str, topdown_ray.Results], rows: list[Row], clock: bool = False
) -> Stored:
    """A table from these sweeps. clock: whether its numbers depend on the machine, which must then be one.

    Raises SystemExit where searches ran on several machines, or on another one than this."""
    runs = [str(each.manifest["run_id"]) for each in results.values()]
    if clock:
        machines = {str(each.manifest["machine"]["processor"]) for each in results.values()}
        hosts = {host for each in results.values() for host in each.searches["host"].unique()}
        if machines != {machine.processor()} or len(hosts) > 1:
            raise SystemExit(
                f"{name}: expected searches of one machine, this one, found {sorted(machines | hosts)}; "
                f"remove their folders in {OUT} to run them again"
            )
    command = f"python scripts/make/figures.py --only {name}"
    return Stored(command, rows, here() if clock else "", runs)


def reference(name: str) -> pd.DataFrame:
    """A reference front that comes with the package."""
    return comparisons.read_reference(Path(str(packaged("fronts"))) / f"{name}.csv")


def nominal(rows: pd.DataFrame) -> pd.Series:
    """Nominal evaluations of each search: its children, and two for each gradient."""
    counted = rows.assign(nominal=rows["evaluations"] + 2 * rows["gradients"].fillna(0))
    return counted.groupby("search_id")["nominal"].sum()


def outcome(data: Data, strategy: str, front: pd.DataFrame) -> Row:
    """Quality and work of the searches of one strategy, which has one set of targets."""
    rows = data.searches[data.searches["strategy"] == strategy]
    best = whole_sets.overview(data).set_index("strategy").loc[strategy]
    lacks = comparisons.regret(data, front)
    lacks = lacks[lacks["target"].isna()].set_index("strategy").loc[strategy]
    evaluations = nominal(rows)
    return {
        "seeds": int(best["n"]),
        "mean": best["mean"],
        "low": best["low"],
        "high": best["high"],
        "regret": lacks["regret"],
        "regret_low": lacks["low"],
        "regret_high": lacks["high"],
        "evaluations": evaluations.mean(),
        "evaluations_most": evaluations.max(),
        "predictor_rows": best["predictor_rows"],
        "cpu_s": lacks["cpu_s"],
    }


def strategies() -> Made:
    """All strategies side by side, and the data of two pictures."""
    results = swept("strategies", "strategies.yaml")
    data = prepare([results])
    overview = whole_sets.overview(data).merge(tables.spent(data, KEYS)[[*KEYS, "evaluations"]], on=KEYS)
    columns = ["strategy", "n", "mean", "low", "high", "evaluations", "predictor_rows"]
    pairs = comparisons.differences(data)
    pairs = pairs[pairs["target"].isna()]
    curves = whole_sets.anytime(data)
    curves = curves[curves["work"] == "predictor rows"]
    drawn = ["setting", "strategy", "k", "targets", "cost_unit"]
    source = {"strategies": results}

    def stored(rows: list[Row]) -> Stored:
        return made("strategies", source, rows, clock=True)  # a gradient counts as the rows that it costs

    return {
        "strategies": stored(rows_of(overview, columns)),
        "strategies_pairs": stored(rows_of(pairs, ["strategy", "against", "n", "mean", "low", "high"])),
        "strategies_fronts": stored(
            rows_of(tables.accuracy(data), [*drawn, "target", "n", "cost", "iqm", "low", "high"])
        ),
        "strategies_quality": stored(
            rows_of(curves, [*drawn, "clock", "work", "x", "end", "n", "mean", "low", "high"])
        ),
    }


def paper() -> Made:
    """Experiment 2 of the original notebook, published and ours."""
    results = swept("paper", "paper.yaml")
    data = prepare([results])
    beside = notebook.accuracy_beside(data.searches, tables.accuracy(data))
    columns = ["strategy", "target", "published", "n", "mean", "sd"]
    return {"paper": made("paper", {"paper": results}, rows_of(beside, columns))}


def time_by_k() -> Made:
    """How the time of lone searches grows with the number of targets."""
    results = swept("paper_lone", "paper.yaml", batch=1)
    data = prepare([results])
    growth = tables.growth(data)
    growth = growth[growth["unit"].isin(["s", "evaluations"])]
    fitted = [f"{name}{end}" for name in ("further", "exponent") for end in ("", "_low", "_high")]
    times = tables.time(data)
    times = times[times["clock"].str.startswith(LONE)]
    drawn = ["setting", "strategy", "k", "targets", "clock", "n", "mean", "low", "high"]
    source = {"paper_lone": results}
    return {
        "time_by_k": made("time_by_k", source, rows_of(times, drawn), clock=True),
        "growth": made("time_by_k", source, rows_of(growth, ["strategy", "unit", *fitted]), clock=True),
    }


def joint_default() -> Made:
    """The default lengths of ``joint`` beside ``top_down`` at the paper's."""
    source = {
        name: swept(f"joint_default_{name}", "joint_default.yaml", predictor=name)
        for name in ("published", "embedded")
    }
    records: list[Row] = []
    for predictor, results in source.items():
        data = prepare([results])
        spent = tables.spent(data, ["space", "strategy", "k", "targets"]).set_index(
            ["space", "k", "strategy"]
        )
        gradients = results.searches.groupby("space")["gradient_rows"].max()
        pairs = comparisons.differences(data)
        for (space, k), group in pairs.groupby(["space", "k"], sort=False):
            sign = 1 if group["strategy"].iloc[0] == "joint" else -1
            single, whole = group[group["target"].notna()], group[group["target"].isna()]
            gains = sign * single["mean"]
            least = single.loc[gains.idxmin()]
            cpu = spent["cpu_s"]
            records.append(
                {
                    "space": space,
                    "predictor": predictor,
                    "k": int(k),
                    "n": int(least["n"]),
                    "time": cpu[space, k, "joint"] / cpu[space, k, "top_down"],
                    "gain": sign * float(whole["mean"].iloc[0]) if len(whole) else float(gains.iloc[0]),
                    "least": float(gains.min()),
                    "least_half": float(least["high"] - least["low"]) / 2,
                    "gradient_rows": float(gradients[space]),
                }
            )
    order = {name: i for i, name in enumerate(("mobilenet_v3", "proxyless", "resnet50d"))}
    records.sort(key=lambda row: (row["predictor"] != "published", order[row["space"]], row["k"]))
    return {"joint_default": made("joint_default", source, records, clock=True)}


def _nsga2(seeds: int, evaluations: int, front: pd.DataFrame) -> Row:
    """NSGA-II of pymoo on the published case: one run for all targets, for each seed."""
    from topdown_ray.algorithms.baselines.nsga2 import nsga2
    from topdown_ray.spaces.cost import load_cost
    from topdown_ray.spaces.predictor_files import load_predictor
    from topdown_ray.spaces.registry import notebook_space

    space, targets = notebook_space(), yaml.safe_load((SWEEPS / "joint_10k.yaml").read_text())["targets"][0]
    predictor, cost = load_predictor("published", space), load_cost("note10", space)
    known = [front.loc[front["cost"] <= target, "accuracy"].max() for target in targets]
    found = [
        nsga2(space, predictor, cost, targets, evaluations, seed=seed)[1].numpy() for seed in range(seeds)
    ]
    means = np.array([accuracies.mean(dtype=float) for accuracies in found])
    ((low, high),) = stats.intervals([means])
    best = float(np.mean(known))
    return {
        "seeds": seeds,
        "mean": means.mean(),
        "low": low,
        "high": high,
        "regret": best - means.mean(),
        "regret_low": best - high,
        "regret_high": best - low,
        "evaluations": evaluations,
        "evaluations_most": evaluations,
        "predictor_rows": evaluations,
        "cpu_s": math.nan,
    }


def joint_quality() -> Made:
    """Quality against nominal evaluations: published strategies, NSGA-II and three lengths of ``joint``."""
    front = reference("mobilenet_v3-note10")
    source = {"paper": swept("paper", "paper.yaml")}
    widest = source["paper"].searches
    ten = narrowed(source["paper"], widest[widest["k"] == widest["k"].max()])
    records = [
        {"search": name, "sweep": "paper", **outcome(prepare([ten]), name, front)}
        for name in ("independent", "top_down")
    ]
    records.append({"search": "nsga2", "sweep": "", **_nsga2(6, 9_200, front)})
    for name in ("joint_10k", "joint_40k", "joint_200k"):
        source[name] = swept(name, f"{name}.yaml")
        records.append({"search": "joint", "sweep": name, **outcome(prepare([source[name]]), "joint", front)})
    for row in records:
        row["cpu_s"] = math.nan  # of different batches; the table joint_spent compares times
    return {"joint_quality": made("joint_quality", source, records)}


def narrowed(results: topdown_ray.Results, searches: pd.DataFrame) -> topdown_ray.Results:
    """The same results with these searches only."""
    return dataclasses.replace(results, searches=searches)


#: The searches whose CPU seconds are compared: result folder -> sweep file.
SPENT = {
    "spent_baselines": "joint_baselines.yaml",
    "spent_independent_distinct": "independent_distinct.yaml",
    "spent_top_down_distinct": "top_down_distinct.yaml",
    "spent_joint_10k": "joint_10k.yaml",
    "spent_joint_40k": "joint_40k.yaml",
}


def joint_spent() -> Made:
    """Quality against what a search spends: predictor rows and CPU seconds."""
    front = reference("mobilenet_v3-note10")
    size = {"seeds": SEEDS_OF_SPENT, "batch": SEEDS_OF_SPENT}
    source = {folder: swept(folder, file, **size) for folder, file in SPENT.items()}
    records: list[Row] = []
    for folder, results in source.items():
        data = prepare([results])
        for strategy in data.searches["strategy"].unique():
            found = outcome(data, strategy, front)
            records.append({"search": strategy, "sweep": SPENT[folder].removesuffix(".yaml"), **found})
    return {"joint_spent": made("joint_spent", source, records, clock=True)}


def joint_macs() -> Made:
    """``joint`` at a tenth of the nominal evaluations of ``independent``, under MACs."""
    source = {name: swept(name, f"{name}.yaml") for name in ("joint_macs_baselines",)}
    records: list[Row] = []
    for space in ("mobilenet_v3", "resnet50d"):
        name = f"joint_macs_{space}"
        source[name] = swept(name, f"{name}.yaml")
        base = source["joint_macs_baselines"]
        base = narrowed(base, base.searches[base.searches["space"] == space])
        data = prepare([base, source[name]])
        rows = data.searches
        pairs = comparisons.differences(data)
        spent = tables.spent(data, ["strategy"]).set_index("strategy")
        evaluations = {
            strategy: nominal(rows[rows["strategy"] == strategy]).mean()
            for strategy in ("independent", "joint")
        }
        for target in sorted(rows["target"].unique(), reverse=True):
            row: Row = {"space": space, "target": float(target)}
            for strategy in ("independent", "joint"):
                cell = rows[(rows["strategy"] == strategy) & (rows["target"] == target)]
                values = cell["accuracy"].to_numpy(float)
                ((low, high),) = stats.intervals([values])
                row |= {strategy: values.mean(), f"{strategy}_half": (high - low) / 2}
                row |= {f"{strategy}_evaluations": evaluations[strategy], "n": len(values)}
            pair = pairs[pairs["target"] == target].iloc[0]
            sign = 1 if pair["strategy"] == "joint" else -1
            row |= {"difference": sign * pair["mean"], "difference_half": (pair["high"] - pair["low"]) / 2}
            row["cpu"] = spent["cpu_s"]["joint"] / spent["cpu_s"]["independent"]
            records.append(row)
    return {"joint_macs": made("joint_macs", source, records, clock=True)}


#: The sweeps of scripts/sweeps/ablation.
ABLATION = ("no_distinct", "no_gradients", "one_change", "no_sharing", "no_neighbours", "hot", "cold")


def joint_ablation() -> Made:
    """What each part of ``joint`` is worth."""
    front = reference("mobilenet_v3-note10")
    whole = swept("spent_joint_40k", "joint_40k.yaml", seeds=SEEDS_OF_SPENT, batch=SEEDS_OF_SPENT)
    source = {"joint_40k": whole}
    records: list[Row] = [{"sweep": "joint_40k", **outcome(prepare([whole]), "joint", front)}]
    for name in ABLATION:
        source[name] = swept(f"ablation_{name}", f"ablation/{name}.yaml", seeds=SEEDS_OF_SPENT)
        row: Row = {"sweep": name, **outcome(prepare([source[name]]), "joint", front)}
        change = compare(whole, source[name]).rows.iloc[0]  # the mean over the targets
        row |= {"more": -change["difference"], "more_half": (change["high"] - change["low"]) / 2}
        records.append(row)
    for row in records:
        row["cpu_s"] = math.nan
    return {"joint_ablation": made("joint_ablation", source, records)}


#: Searches for one device, and a search for all of them of as many children.
LENGTHS = {
    "short": ({"generations": 20, "warm_generations": 4}, {"generations": 110, "warm_generations": 0}),
    "long": ({"generations": 135, "warm_generations": 0}, {"generations": 407, "warm_generations": 0}),
}
MACS = [400, 350, 300, 250, 200]


def devices() -> Made:
    """One search for three devices, against a search for each."""
    base = yaml.safe_load((SWEEPS / "devices.yaml").read_text())
    targets = {**base["targets"], "macs": MACS}
    source: dict[str, topdown_ray.Results] = {}
    records: list[Row] = []

    def searched(folder: str, search: Row, **fields: Any) -> topdown_ray.Results:
        common = {**base, "strategies": ["joint"], "seeds": 24, "batch": 24}
        spec = {**common, "search": search, **fields}
        source[folder] = topdown_ray.sweep(spec, out=OUT / folder, address="none")
        return source[folder]

    def cpu_s(results: topdown_ray.Results) -> float:
        return float(results.searches.groupby("search_id")["search_cpu_s"].first().sum())

    for length, (alone, together) in LENGTHS.items():
        every = searched(f"devices_{length}_together", together, cost=list(targets), targets=targets)
        children = every.searches["evaluations"].sum() / every.searches["seed"].nunique()
        ones = {
            name: searched(f"devices_{length}_{name}", alone, cost=name, targets=[own])
            for name, own in targets.items()
        }
        time = cpu_s(every) / sum(cpu_s(results) for results in ones.values())
        for name, results in ones.items():
            of_device = every.searches[every.searches["cost_name"] == name]
            change = compare(results, narrowed(every, of_device)).rows.iloc[0]
            facts = {"children": int(children), "device": name, "n": int(change["paired"]), "cpu": time}
            ends = {end: change[end] for end in ("difference", "low", "high")}
            records.append({**facts, **ends})
    return {"devices": made("devices", source, records, clock=True)}


def picks() -> Made:
    """What a pick from a front lacks to a search for exactly its target."""
    sys.path.append(str(ROOT / "scripts" / "benchmarks"))
    from measure_picks import measured

    columns = ["params", "search", "at", "missing", "default", "default_low", "default_high"]
    columns += ["as_long", "as_long_low", "as_long_high"]
    return {"picks": Stored("python scripts/benchmarks/measure_picks.py", rows_of(measured(16), columns))}


FROM_SWEEPS: dict[str, Callable[[], Made]] = {
    function.__name__: function
    for function in (
        strategies,
        paper,
        time_by_k,
        joint_default,
        joint_quality,
        joint_spent,
        joint_macs,
        joint_ablation,
        devices,
        picks,
    )
}
