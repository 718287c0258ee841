"""Print the results of ``topdown-ray measure`` and ``topdown-ray table``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from topdown_ray.cli.present.tables import print_json
from topdown_ray.hardware.tables import table_facts
from topdown_ray.spaces.latency_table import CORRECTED, LatencyTable


def print_latency_table(table: LatencyTable, path: Path, as_json: bool) -> None:
    """Print what a table contains and how it was measured."""
    facts = table_facts(table, path)
    if as_json:
        print_json(facts)
        return
    low, high = facts["range_ms"]
    print(f"{path}: {table.space}, {len(table.layers)} layers, {table.describe()}")
    print(f"  architectures take from {low:.3g} to {high:.3g} ms (batch size {table.conditions.batch})")
    noise = table.facts.get("noise")
    if noise:
        _print_noise(noise, table.facts["seconds"])
    if "subnets" in table.check:
        _print_figures(table.check)


def _print_noise(noise: Mapping[str, Any], seconds: float) -> None:
    print(
        f"  {noise['rounds']} rounds in {seconds:.0f} s; half width of the 95 % intervals of the medians: "
        f"{100 * noise['half_width_median']:.1f} % (largest {100 * noise['half_width_largest']:.1f} %), "
        f"{noise['not_tight']} above {100 * noise['precision']:g} %"
    )
    print(
        f"  {100 * noise['outlier_share']:.1f} % of the runs are outliers; the slowest round took "
        f"{noise['slowest_round']:.2f} times the median"
    )
    if noise["contention"] and noise["contention"] > 1.1:
        print(
            f"  other processes used the core: the wall time was {noise['contention']:.1f} times the CPU "
            "time of the thread, and only the CPU time counts"
        )
    if noise["throttled"]:
        print(
            f"  the last rounds took {noise['slowdown']:.2f} times as long as the first: the machine "
            "throttled or was busy"
        )


def print_comparison(table: Path, figures: Mapping[str, Any], picture: Path, as_json: bool) -> None:
    """Print how accurate the sums of a table are, and where the picture is."""
    if as_json:
        print_json(dict(figures))
        return
    print(f"{table}:")
    _print_figures(figures, picture)


def print_published_form(paths: Sequence[Path], folder: Path, as_json: bool) -> None:
    """Print the files of a table that was converted."""
    if as_json:
        print_json([str(path) for path in paths])
        return
    print(f"Wrote {len(paths)} {'table' if len(paths) == 1 else 'tables'} to {folder}")


def _print_figures(figures: Mapping[str, Any], picture: Path | None = None) -> None:
    """Print the figures of a comparison with whole subnets."""
    print(
        f"  compared with {figures['subnets']} whole subnets ({figures['fastest_ms']:.3g} to "
        f"{figures['slowest_ms']:.3g} ms, half width {100 * figures['half_width_median']:.1f} %): "
        f"bias of the sums {100 * figures['bias']:+.1f} %, "
        f"mean error {100 * figures['mae']:.1f} %, RMSE {100 * figures['rmse']:.1f} %, Kendall's tau "
        f"{figures['tau']:.3f}"
    )
    print(
        f"  corrected to {figures['slope']:.4f} x sum {figures['offset_ms']:+.3f} ms (used by "
        f"NAME{CORRECTED}): on left-out subnets bias {100 * figures['corrected_bias']:+.1f} %, "
        f"mean error {100 * figures['corrected_mae']:.1f} %, "
        f"RMSE {100 * figures['corrected_rmse']:.1f} %"
    )
    if picture is not None:
        print(f"  picture: {picture}")
        print(f"  times: {picture.with_suffix('.csv')}")
