"""Write scripts/examples/analysis.ipynb: the notebook is easier to read and to change as this text.

python scripts/make/analysis_notebook.py
"""

from __future__ import annotations

from pathlib import Path

import nbformat

CELLS = [
    (
        "markdown",
        """# From a sweep to its three experiments

A result folder as `topdown-ray sweep` writes it, loaded into pandas; then the three experiments of Kumar and Szidon
([arXiv 2012.06748](https://arxiv.org/abs/2012.06748)): time against the number of targets, accuracy for each target, time of a
single target. The same tables and pictures as `topdown-ray report`, to go on from.

Make a folder with `topdown-ray sweep scripts/sweeps/paper.yaml --out results/paper`, or name another one in
`TOPDOWN_RAY_RESULTS`.""",
    ),
    (
        "code",
        """%matplotlib inline
import os

import matplotlib.pyplot as plt

import topdown_ray
from topdown_ray.report import comparisons, plots, tables

results = topdown_ray.load(os.environ.get("TOPDOWN_RAY_RESULTS", "results/paper"))
results.manifest["spec"]["name"], results.manifest["status"], results.searches["search_id"].nunique()""",
    ),
    (
        "markdown",
        "`results.searches` has a row for each search and target, `results.trace` the anytime curves.",
    ),
    (
        "code",
        """results.searches[["space", "strategy", "k", "seed", "target", "accuracy", "cost", "evaluations", "wall_s"]].head()""",
    ),
    (
        "code",
        """summary = topdown_ray.summary(results)
[(name, len(table)) for name, table in summary._asdict().items()]""",
    ),
    (
        "markdown",
        """## Experiment 1: time of a search against its number of targets

`clock` says what a time is: of lone searches, or amortised over a batch (then a batch is one timing). The two are never
mixed. `further` is what one more target costs relative to the first; an `exponent` below 1 is a cost that grows sub-linearly.""",
    ),
    (
        "code",
        """fig, ax = plt.subplots(figsize=(5, 4), layout="constrained")
plots.time_by_k(summary.time, ax)
summary.growth[["clock", "strategy", "unit", "slope", "intercept", "further", "exponent", "exponent_low", "exponent_high"]]""",
    ),
    (
        "markdown",
        """## Experiment 2: accuracy for each target

The inter-quartile mean over the seeds, with a 95 % stratified-bootstrap interval; none where there are fewer than five seeds.""",
    ),
    (
        "code",
        """fig, ax = plt.subplots(figsize=(5, 4), layout="constrained")
plots.accuracy(summary.accuracy, ax)
summary.accuracy[["strategy", "targets", "target", "n", "mean", "sd", "iqm", "low", "high"]].head(12)""",
    ),
    (
        "markdown",
        "The curves lie close together; paired by seed and target, their differences are easier to see.",
    ),
    (
        "code",
        """data = tables.prepare([results])
differences = comparisons.differences(data)
if not differences.empty:
    fig, ax = plt.subplots(figsize=(5, 4), layout="constrained")
    plots.differences(differences, ax, against="independent")
columns = ["strategy", "against", "targets", "target", "n", "mean", "low", "high", "improvement", "p_holm"]
differences.loc[differences["target"].isna(), columns]""",
    ),
    ("markdown", "## Experiment 3: time of a single target"),
    (
        "code",
        """fig, ax = plt.subplots(figsize=(5, 4), layout="constrained")
plots.single_target(summary.single_target, ax)
summary.single_target[["clock", "strategy", "k", "target", "n", "mean", "low", "high"]].head(12)""",
    ),
]


def main() -> None:
    """Write the notebook beside this script, without outputs."""
    make = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    cells = [make[kind](source, id=f"cell-{i}") for i, (kind, source) in enumerate(CELLS)]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(notebook, Path(__file__).parents[1] / "examples" / "analysis.ipynb")


if __name__ == "__main__":
    main()
