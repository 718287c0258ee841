"""Write the notebook scripts/examples/analysis.ipynb and run it, so that it contains its outputs. Change the
notebook here, because this text is easier to read and to review.

python scripts/make/analysis_notebook.py
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "examples" / "analysis.ipynb"
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
CELLS = [
    (
        "markdown",
        """# From a sweep to an architecture, and to a comparison of strategies

In this notebook you run a small sweep, pick architectures from its results, compare strategies, and draw the three experiments of
Kumar and Szidon ([arXiv 2012.06748](https://arxiv.org/abs/2012.06748)). The functions are those of `topdown-ray report`, so the tables
and figures are the same as in a report.

The sweep takes about 20 seconds. It writes its results to `results/example` next to this notebook, and continues from there if you run the
notebook again. It needs no downloads, because it uses the embedded predictor and the latency table that come with the package.

To analyse a sweep of yours, set the environment variable `TOPDOWN_RAY_RESULTS` to its result folder. To compare two sweeps in the last
section, set it to two folders with a `:` between them.""",
    ),
    (
        "code",
        """%matplotlib inline
import dataclasses
import json
import os

import matplotlib.pyplot as plt
import pandas as pd

import topdown_ray
from topdown_ray.networks.api import describe
from topdown_ray.report import architectures, comparisons, panels, plots, plots_genes, tables

plt.rcParams["figure.dpi"] = 72
pd.set_option("display.precision", 4)

SWEEP = {
    "spaces": ["mobilenet_v3"],
    "strategies": ["random", "independent", "top_down", "joint"],
    "cost": "epyc_1thread",
    "predictor": "embedded",
    "targets": [[45], [45, 35], [45, 40, 35, 30, 26]],
    "seeds": 5,
    "search": {"population": 40, "generations": 30, "warm_generations": 8},
    "batch": 5,
}
here = {"address": "none", "progress": False}  # in this process, without Ray
folders = list(filter(None, os.environ.get("TOPDOWN_RAY_RESULTS", "").split(os.pathsep)))
if folders:
    results = topdown_ray.load(folders[0])
else:
    results = topdown_ray.sweep(SWEEP, name="example", out="results/example", **here)
results""",
    ),
    (
        "markdown",
        """The table shows predicted top-1 accuracies. `results.searches` is a pandas frame with one row for each search and target.
`results.trace` contains the anytime curves, and `results.front` contains the front of each `joint` search.""",
    ),
    (
        "code",
        """results.searches[["strategy", "k", "seed", "target", "accuracy", "cost", "macs_m", "evaluations"]].head()""",
    ),
    (
        "markdown",
        """## Pick an architecture

`results.best` returns the most accurate architecture for a target. `results.pick` accepts any cost, even if it was not a target, because
it also looks in the fronts. The field `epsilon` bounds the accuracy that you lose because a large front is thinned.""",
    ),
    (
        "code",
        """of_sweep = {"space": results.searches["space"].iloc[0], "cost": results.searches["cost_name"].iloc[0]}
own = results.searches[results.searches["cost_name"] == of_sweep["cost"]]
own = own[own["space"] == of_sweep["space"]]
tightest, loosest = own["target"].min(), own["target"].max()
picked = results.pick(at=(tightest + loosest) / 2, **of_sweep)
pd.Series(dataclasses.asdict(picked)).drop("search_id").to_frame("picked")""",
    ),
    (
        "markdown",
        """`describe` builds the architecture with OFA's code and lists its layers. To write it as ONNX, use `topdown-ray export`.""",
    ),
    (
        "code",
        """described = describe(json.dumps(picked.arch), {"space": picked.space})
described.layers.splitlines()[:6]""",
    ),
    (
        "markdown",
        """The next table shows the best answer for each target over all searches. An answer for a tighter target also meets a looser one, so the
accuracy never falls when the target grows. `short_text` shows the resolution, the depths and, if the space searches them, the widths.""",
    ),
    (
        "code",
        """data = tables.prepare([results])
best = architectures.best_architectures(data)
best["architecture"] = best["arch"].map(architectures.short_text)
best[["setting", "target", "accuracy", "cost", "macs_m", "strategy", "seed", "found_for", "architecture"]]""",
    ),
    (
        "markdown",
        """## What the answers share

The left figure shows the mean choice of each gene, from its smallest choice to its largest. The right figure shows how often the answers
of two seeds agree on the gene. Both show the strategy with the highest mean accuracy. Genes of blocks that no answer has are hatched.""",
    ),
    (
        "code",
        """summary = topdown_ray.summary(results)
agreement, genes = architectures.compared(data)
setting = genes["setting"].iloc[0]
leader = architectures.leading(summary.accuracy)[setting]
fig, axes = plt.subplots(1, 2, figsize=(10, plots_genes.size(genes)[1]), layout="constrained")
plots_genes.choices(genes, axes[0], setting=setting, strategy=leader)
plots_genes.agreement(genes, axes[1], setting=setting, strategy=leader)
columns = ["targets", "target", "n", "agreement", "identical", "different"]
agreement.loc[agreement["strategy"] == leader, columns].head(8)""",
    ),
    (
        "markdown",
        """## Compare strategies

### Accuracy for each target (experiment 2)

The figure shows the inter-quartile mean over the seeds with its 95 % interval. An interval needs at least five seeds.""",
    ),
    (
        "code",
        """fig, ax = plt.subplots(figsize=(5, 4), layout="constrained")
plots.accuracy(summary.accuracy, ax)
summary.accuracy[["strategy", "targets", "target", "n", "mean", "sd", "iqm", "low", "high"]].head(8)""",
    ),
    (
        "markdown",
        """The curves are close together. Differences that are paired by seed and target show more. Each row below is the mean over the targets of a
set: `improvement` is the share of pairs in which `strategy` is better, and `p` is the p value of a permutation test.""",
    ),
    (
        "code",
        """columns = ["strategy", "against", "targets", "n", "mean", "low", "high", "improvement", "p"]
names = list(data.searches["strategy"].unique())
against = "independent" if "independent" in names else names[0]
differences = comparisons.differences(data)
if not differences.empty:
    fig, ax = plt.subplots(figsize=(5, 4), layout="constrained")
    plots.differences(differences, ax, against=against)
differences.loc[differences["target"].isna(), columns].head(6)""",
    ),
    (
        "markdown",
        """### Time of a search against its number of targets (experiment 1)

The column `clock` shows whether each search was timed alone, or whether the time of a batch was divided by the number of its searches. A
batch is then one timing. The two kinds of times are never mixed. In the table, `further` is the work for one more target relative to that
for the first. If `exponent` is below 1, the work grows more slowly than the number of targets. Evaluations do not depend on the machine, but seconds do. Evaluations do not include the gradients of
`joint`.""",
    ),
    (
        "code",
        """fig, ax = plt.subplots(figsize=(5, 4), layout="constrained")
plots.time_by_k(summary.time, ax)
columns = ["strategy", "unit", "slope", "intercept", "further", "exponent"]
summary.growth.loc[summary.growth["unit"] == "evaluations", columns]""",
    ),
    ("markdown", "### Time of a single target (experiment 3)"),
    (
        "code",
        """fig, ax = plt.subplots(figsize=(5, 4), layout="constrained")
plots.single_target(summary.single_target, ax);""",
    ),
    (
        "markdown",
        """## Evaluate the front

The answers of one search for all its targets form a front. Its hypervolume is the area between the front and a reference point, and a
larger one is better. If you give `comparisons.fronts` a reference front, it also computes the distance to it. `results.front` contains the
fronts of the `joint` searches, whose architectures can cost anything between the targets.""",
    ),
    (
        "code",
        """fig, ax = plt.subplots(figsize=(5, 4), layout="constrained")
plots.front(data.distinct(), ax)
comparisons.fronts(data)[["strategy", "targets", "n", "hypervolume", "sd", "low", "high"]]""",
    ),
    (
        "code",
        """results.front[["label", "seed", "cost", "accuracy", "epsilon", "macs_m"]].head()""",
    ),
    (
        "markdown",
        """## Compare two sweeps

The second sweep gives a fifth of the children of `joint` to the range below its tightest target (`front_share`). `compare` pairs searches
with the same label by seed, as `topdown-ray compare A B` does. If an interval includes 0, there is no evidence of a difference.""",
    ),
    (
        "code",
        """if folders:
    second = topdown_ray.load(folders[-1])
else:
    changed = {"strategies": [{"name": "joint", "front_share": 0.2}], "targets": SWEEP["targets"][-1:]}
    second = topdown_ray.sweep(SWEEP, name="example-front", **changed, out="results/example-front", **here)
rows = topdown_ray.compare(results, second).rows
columns = ["strategy", "targets", "target", "n", "before", "after", "difference", "low", "high", "ties"]
rows.loc[rows["k"] == rows["k"].max(), columns].head(8)""",
    ),
    (
        "markdown",
        """If you prepare both results together, as `topdown-ray report A B` does, the searches of both sweeps are series of the same figures. A is the
first folder, and B is the second.""",
    ),
    (
        "code",
        """both = tables.prepare([results, second], ["first", "second"])
fig, ax = plt.subplots(figsize=(5, 4), layout="constrained")
panels.front(tables.accuracy(both), ax)
pd.DataFrame(both.marks)""",
    ),
]


def notebook() -> nbformat.NotebookNode:
    """Return the notebook without outputs."""
    make = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    cells = [make[kind](source, id=f"cell-{i}") for i, (kind, source) in enumerate(CELLS)]
    return nbformat.v4.new_notebook(cells=cells, metadata=dict(KERNEL))


def main() -> None:
    """Run the notebook in its own folder and write it there with its outputs."""
    os.environ.pop("TOPDOWN_RAY_RESULTS", None)
    for name in ("example", "example-front"):  # results of earlier runs can come from other code
        shutil.rmtree(NOTEBOOK.parent / "results" / name, ignore_errors=True)
    made = notebook()
    client = NotebookClient(
        made, timeout=600, record_timing=False, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    )
    client.execute()
    made.metadata = dict(KERNEL)  # without the version of this Python
    nbformat.write(made, NOTEBOOK)


if __name__ == "__main__":
    main()
