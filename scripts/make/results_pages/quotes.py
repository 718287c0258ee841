"""The sentences that quote stored tables: a template for each, whose fields are named numbers.

A template without fields is a setting of a measurement, which is not a result. Every number in the prose of a
results page belongs to a template; the test of the pages finds those that do not."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from results_pages.markdown import pair
from results_pages.stored import Row, Stored
from topdown_ray.files import data

Tables = Mapping[str, Stored]
Numbers = dict[str, float]


def _scaled(name: str, row: Row, keys: Iterable[str], scale: float = 100.0) -> Numbers:
    return {f"{name}_{key}": scale * row[key] for key in keys}


ENDS = ("mean", "low", "high")


def _strategies(tables: Tables) -> Numbers:
    stored, growth = tables["strategies"], tables["growth"]
    joint, independent, top_down = (
        stored.row(strategy=name) for name in ("joint", "independent", "top_down")
    )
    times = {name: growth.row(strategy=name, unit="s") for name in ("independent", "top_down")}
    further, exponent = (
        [f"{name}{end}" for end in ("", "_low", "_high")] for name in ("further", "exponent")
    )
    random = pair(tables, "independent", "random")
    return {
        **_scaled("joint", joint, ENDS),
        **_scaled("joint_gain", pair(tables, "joint", "independent"), ENDS),
        "joint_rows": 100 * joint["predictor_rows"] / independent["predictor_rows"],
        **_scaled("top_down_gain", pair(tables, "top_down", "independent"), ENDS),
        "top_down_children": 100 * top_down["evaluations"] / independent["evaluations"],
        "top_down_scored": 100 * top_down["predictor_rows"] / top_down["evaluations"],
        **_scaled("prune_gain", pair(tables, "prune", "independent"), ENDS),
        **_scaled("random_loss", random, ENDS),
        **_scaled("top_down", times["top_down"], [*further, *exponent], 1),
        **_scaled("independent", times["independent"], exponent, 1),
    }


def _joint(tables: Tables) -> Numbers:
    default, spent, quality = (
        tables[name].rows for name in ("joint_default", "joint_spent", "joint_quality")
    )
    rows = {name: [row["gradient_rows"] for row in default if row["space"] in name] for name in SPACES}
    shortest = next(row for row in spent if row["sweep"] == "joint_10k")
    distinct = next(row for row in spent if row["sweep"] == "independent_distinct")
    macs = {row["space"]: row for row in tables["joint_macs"].rows}
    sharing = tables["joint_ablation"].row(sweep="no_sharing")
    return {
        "default_time_least": min(row["time"] for row in default),
        "default_time_most": max(row["time"] for row in default),
        "default_loss": -100 * min(row["least"] for row in default),
        "best_regret": 100 * min(row["regret"] for row in quality),
        "distinct_rows": 100 * shortest["predictor_rows"] / distinct["predictor_rows"],
        "distinct_cpu": 100 * shortest["cpu_s"] / distinct["cpu_s"],
        "macs_evaluations": macs["resnet50d"]["independent_evaluations"],
        "macs_cpu_mobilenet": macs["mobilenet_v3"]["cpu"],
        "macs_cpu_resnet": macs["resnet50d"]["cpu"],
        "sharing": 100 * sharing["more"],
        "sharing_half": 100 * sharing["more_half"],
        "gradient_mobile_least": min(rows[MOBILE]),
        "gradient_mobile_most": max(rows[MOBILE]),
        "gradient_resnet_least": min(rows[RESNET]),
        "gradient_resnet_most": max(rows[RESNET]),
    }


MOBILE, RESNET = ("mobilenet_v3", "proxyless"), ("resnet50d",)
SPACES = (MOBILE, RESNET)


def _fronts(tables: Tables) -> Numbers:
    stored = tables["fronts"]
    ratios, ours = [], [name for name in _contestants(stored) if name.startswith("joint")]
    for case in ("mobilenet_v3-note10", "mobilenet_v3-macs"):
        for budget in (10_000, 40_000):
            rows = stored.where(case=case, budget=budget)
            others = min(row["regret"] for row in rows if row["contestant"] not in ours)
            ratios.append(100 * stored.row(case=case, budget=budget, contestant="joint")["regret"] / others)
    numbers: Numbers = {"race_least": min(ratios), "race_most": max(ratios)}
    larger: dict[str, list[float]] = {"bare": [], "default": []}
    for budget in (10_000, 40_000):
        own = {row["contestant"]: row for row in stored.where(case="resnet50d-macs", budget=budget)}
        best = own["sms-emoa"]["regret"]
        numbers[f"bare_behind_{budget}"] = own["joint, no gradients"]["regret"] - best
        numbers[f"default_behind_{budget}"] = own["joint"]["regret"] - best
        volume = max(row["hypervolume"] for row in own.values())
        larger["bare"].append(volume / own["joint, front, no gradients"]["hypervolume"])
        larger["default"].append(volume / own["joint"]["hypervolume"])
    numbers |= {f"{name}_volume": 100 * (max(values) - 1) for name, values in larger.items()}
    for space in ("mobilenet_v3", "resnet50d"):
        halves = [row["most"] for row in tables["fronts_intervals"].rows if row["case"].startswith(space)]
        numbers[f"race_half_{space}"] = max(halves)
    costs = {
        case["space"]: case["gradient_rows"] for case in json.loads(data("fronts_race.json").read_text())
    }
    numbers |= {f"race_gradient_{space}": rows for space, rows in costs.items()}
    own = tables["picks"].where(search="joint", at=None)
    for name, row in zip(("picks", "picks_limited"), own, strict=True):
        numbers |= {f"{name}{end}": row[f"default{end}"] for end in ("", "_low", "_high")}
    return numbers


def _contestants(stored: Stored) -> list[str]:
    return list(dict.fromkeys(row["contestant"] for row in stored.rows))


def _performance(tables: Tables) -> Numbers:
    race, ray = tables["race"], tables["driver_ray"]
    seconds = {row["contestant"]: row["seconds_per_search_and_core"] for row in race.rows}
    batch = race.row(contestant="ours, batch 32")
    one, two = (ray.row(actors=actors) for actors in (1, 2))
    return {
        "race_top_down_s": seconds["ours, batch 32"],
        "race_top_down_faster": batch["faster_than_notebook"],
        "race_top_down_floor": batch["to_floor"],
        "race_top_down": 100 * batch["accuracy"],
        "race_joint_s": seconds["joint, 14 generations"],
        "race_joint": 100 * race.row(contestant="joint, 14 generations")["accuracy"],
        "floor_evaluations": tables["floor"].row(case="top_down")["evaluations"],
        "products": 100 * tables["profile"].row(step="predictor: matrix products")["share"],
        "drawing": 100 * tables["profile"].row(step="drawing children and their costs")["share"],
        "ray_faster": two["faster_than_first"],
        "ray_one": 100 * one["not_busy"],
        "ray_two": 100 * two["not_busy"],
    }


def _driver(tables: Tables) -> Numbers:
    most = tables["driver"].rows[-1]
    return {
        "driver_searches": most["searches"],
        "driver_actors": most["actors"],
        "driver_cpu": most["cpu_ms"],
        "driver_shards": 1000 / most["cpu_ms"],
        "driver_shard_s": most["actors"] * most["cpu_ms"] / 1000,
        "driver_import": most["import_mib"],
        "driver_resume": most["resume_s"],
        "driver_status": most["status_s"],
        "driver_status_cpu": most["status_cpu_s"],
        "driver_tables_cpu": most["tables_cpu_s"],
        "driver_tables_mib": most["tables_mib"],
        "driver_shards_all": most["shards"],
        "driver_files": most["files"],
    }


def _deviations(tables: Tables) -> Numbers:
    rows = enumerate(tables["deviations"].rows)
    return {
        f"{key}_{i}": row[value] for i, row in rows for key, value in (("rule", "mean"), ("half", "half"))
    }


def values(tables: Tables) -> Numbers:
    """All numbers that the templates name."""
    parts = (_strategies, _joint, _fronts, _performance, _driver, _deviations)
    return {name: number for part in parts for name, number in part(tables).items()}


def _with_interval(name: str, mean: str = "_mean") -> str:
    """Fields of a number and of its interval, both ends."""
    return f"{{{name}{mean}:.2f}} [{{{name}_low:.2f}}, {{{name}_high:.2f}}]"


#: Page -> the templates of its sentences, each of which it has once.
QUOTES: dict[str, list[str]] = {
    "docs/results/strategies.md": [
        "reaches {joint_mean:.2f} % [{joint_low:.2f}, {joint_high:.2f}] on average over the targets",
        f"is {_with_interval('joint_gain')} percentage points more than",
        "with {joint_rows:.0f} % of their predictor rows",
        f"`top_down` differs from independent searches by {_with_interval('top_down_gain')} points",
        "and draws {top_down_children:.0f} % of their children",
        f"`prune`, differs from independent searches by {_with_interval('prune_gain')} points",
        f"gain {_with_interval('random_loss')} points over random search",
        f"it takes {_with_interval('top_down_further', '')} of the time of the first target",
        f"grows as k^{_with_interval('top_down_exponent', '')} with",
        f"as k^{_with_interval('independent_exponent', '')}.",
        "with a 95 % interval in brackets",
        "`batch: 1`",
        "[arXiv 2012.06748]",
        "experiment 2 of their notebook",
    ],
    "docs/results/joint.md": [
        "{default_time_least:.2f} to {default_time_most:.2f} times the CPU time of `top_down`",
        "within {best_regret:.2f} percentage points of the best known front",
        "less accurate for one target, by {default_loss:.2f} points",
        "with {distinct_rows:.0f} % of its predictor rows and {distinct_cpu:.0f} % of its CPU time",
        "a joint search of 14 generations takes {race_joint_s:.3f} s and reaches {race_joint:.2f} %",
        "`top_down` takes {race_top_down_s:.3f} s and reaches {race_top_down:.2f} %",
        "at most a tenth of the {macs_evaluations:,.0f} evaluations of `independent`",
        "{macs_cpu_mobilenet:.2f} times the CPU time of `independent` on MobileNetV3 and "
        "{macs_cpu_resnet:.2f} times on ResNet50D",
        "it is worth {sharing:.3f} ± {sharing_half:.3f} points",
        "A *gain* or a *regret* is in percentage points of top-1 accuracy",
        "runs `generations: 20` and `warm_generations: 4`, and `top_down` runs the 500 and 100 of the paper",
        "gains least, with a 95 % interval",
        "costs in MACs, 32 seeds, batches of 32 searches",
        "front `mobilenet_v3-note10`, with a 95 % interval",
        "below 10,000, 40,000 and 200,000 nominal evaluations",
        "It has 16 seeds, which ran as 16 searches in lock step",
        "The table has 64 seeds",
        "Values are means with half of their 95 % interval",
        "For the target 3500, both strategies",
        "within the noise of 16 seeds",
        "after ± are half of a 95 % interval",
        "with the targets 57, 47, 37, 27 and 17 ms and with seeds from 1000 on",
        "or the seeds from 0 on",
    ],
    "docs/results/fronts.md": [
        "from 10,000 rows on, its regret is {race_least:.0f} to {race_most:.0f} % of that of the best",
        "Half of a 95 % interval of the regret is at most {race_half_mobilenet_v3:.2f} points on MobileNetV3 "
        "and {race_half_resnet50d:.2f} points on ResNet50D",
        "counts as {race_gradient_mobilenet_v3:.0f} rows on MobileNetV3 and as "
        "{race_gradient_resnet50d:.0f} on ResNet50D",
        "SMS-EMOA is {bare_behind_10000:.3f} and {bare_behind_40000:.3f} points lower than that of `joint, "
        "no gradients`, and {default_behind_10000:.3f} and {default_behind_40000:.3f} points lower",
        "is up to {bare_volume:.1f} % larger than that of `joint, front, no gradients`, and up to "
        "{default_volume:.1f} % larger",
        f"it is {_with_interval('picks', '')} points less accurate if that search has the default length",
        f"Such a pick is {_with_interval('picks_limited', '')} points less accurate",
        "are slightly better at 10,000 and 40,000 rows",
        "budgets of 2,000, 10,000 and 40,000 rows",
        "at 1.1 times the loosest target and 75 % accuracy",
        "means over 20 seeds",
        "`front_share: 0.2`",
        "`no gradients` has `gradient_share: 0`",
        "it wins at 2,000 rows",
        "On ResNet50D at 10,000 and 40,000 rows, SMS-EMOA",
        "so set `gradient_share: 0` on ResNet50D",
        "a search for each of them, in percentage points with a 95 % interval.",
        "24 seeds, and differences",
        "for exactly that target are, in percentage points with a 95 % interval",
        "There are 16 seeds",
        "are 60 to 15 ms in steps of 5. It draws 5,700 children, and a search for one target draws 2,100",
        "with seeds from 1000 on",
        "with 150 centroids",
        "With pymoo 0.6",
        "[arXiv 2303.13683]",
        "[arXiv 2208.00204]",
        "[arXiv 2402.18213]",
    ],
    "docs/results/performance.md": [
        "takes {race_top_down_s:.3f} s when 32 searches run in lock step",
        "That is {race_top_down_faster:.0f} times as fast as the scalar search",
        "it takes {race_top_down_floor:.2f} times as long as the predictor alone",
        "for the {floor_evaluations:,.0f} architectures that a top-down search draws",
        "{top_down_scored:.0f} % of those of `top_down` reach the predictor",
        "as {gradient_mobile_least:.1f} to {gradient_mobile_most:.1f} predictor rows on MobileNetV3 and as "
        "{gradient_resnet_least:.1f} to {gradient_resnet_most:.1f} on ResNet50D",
        "take {products:.0f} % of the time of a search",
        "are {ray_faster:.2f} times as fast as one",
        "take {ray_one:.1f} % of the time with one actor, and {ray_two:.1f} % with two",
        "{top_down_scored:.0f} % of the children of `top_down` reach the predictor",
        "with 100 generations, and 20 after a warm start",
        "shares of 32 `top_down` searches",
    ],
    "docs/results/driver.md": [
        "serves {driver_actors:,.0f} actors if their shards take at least {driver_shard_s:.0f} s",
        "it has run {driver_searches:,.0f} searches",
        "resumes in {driver_resume:.0f} s",
        "A shard takes {driver_cpu:.1f} ms of the driver's CPU time",
        "serves about {driver_shards:.0f} shards per second",
        "imports take {driver_import:,.0f} MiB of its memory",
        "`status` of a million searches takes {driver_status:.1f} s",
        "against {driver_actors:,.0f} simulated actors",
        "in shards of 50 searches",
        "from 500 actors on",
    ],
    # pages that quote a few results
    "docs/explanation/joint.md": [
        "{gradient_mobile_least:.1f} to {gradient_mobile_most:.1f} predictor rows on MobileNetV3",
        "and of {gradient_resnet_least:.1f} to {gradient_resnet_most:.1f} on ResNet50D",
    ],
    "docs/explanation/how-it-works.md": [
        "earlier ones come first | +{rule_0:.3f} ± {half_0:.3f}",
        "counts as an answer | +{rule_1:.3f} ± {half_1:.3f}",
        "| count | +{rule_2:.3f} ± {half_2:.3f}",
        "that can be lowered | +{rule_3:.3f} ± {half_3:.3f}",
        "after pruning | | | +{rule_4:.3f} ± {half_4:.3f}",
    ],
    "docs/contributing/decisions/dispatch.md": [
        "about {driver_shards:.0f} shards a second",
        "takes {ray_one:.1f} % of the time with one actor, and {ray_two:.1f} % with two",
    ],
    "docs/contributing/decisions/identities.md": [
        "Resuming a million finished searches takes {driver_resume:.0f} s",
    ],
    "docs/contributing/decisions/numba-kernels.md": [
        "take {products:.1f} % of the time of",
        "children and their costs {drawing:.1f} %",
    ],
    "docs/contributing/decisions/parquet-parts.md": [
        "in {driver_shards_all:,.0f} shards",
        "the folder has {driver_files:,.0f} files",
        "(`status`) takes {driver_status_cpu:.1f} CPU seconds",
        "to resume takes {driver_tables_cpu:.1f} CPU seconds with a peak of {driver_tables_mib:,.0f} MiB",
    ],
    "docs/contributing/decisions/random-numbers.md": ["takes {drawing:.1f} % of the time of"],
}
