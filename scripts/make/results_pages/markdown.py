"""The tables of the results pages as Markdown, each from stored tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from results_pages.measurements import FROM_FILES
from results_pages.stored import Row, Stored
from results_pages.wording import ABLATION, CASES, CONTESTANTS, LABELS, SEARCHES, SPACES

Tables = Mapping[str, Stored]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; the first ``left`` columns are text, the others numbers."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *rows])


def percent(value: float, digits: int = 2) -> str:
    """A fraction in percent, or a difference of fractions in percentage points."""
    text = f"{100 * value:.{digits}f}"
    return text if text.strip("-0.") else text.lstrip("-")


def between(row: Row, name: str = "", scale: float = 100.0, digits: int = 2) -> str:
    """An interval."""
    low, high = row[f"{name}low"], row[f"{name}high"]
    return f"[{percent(low * scale / 100, digits)}, {percent(high * scale / 100, digits)}]"


def pair(tables: Tables, strategy: str, against: str) -> Row:
    """How much more accurate one strategy is than another: mean, low, high, as fractions."""
    stored = tables["strategies_pairs"]
    for row in stored.where(strategy=strategy, against=against):
        return row
    row = stored.row(strategy=against, against=strategy)
    return {"mean": -row["mean"], "low": -row["high"], "high": -row["low"]}


def strategies(tables: Tables) -> str:
    """All strategies, best first."""
    rows = []
    for row in tables["strategies"].rows:
        name = row["strategy"]
        ahead = pair(tables, name, "independent") if name != "independent" else None
        against = f"{percent(ahead['mean'])} {between(ahead)}" if ahead else ""
        counts = [f"{row['evaluations']:,.0f}", f"{row['predictor_rows']:,.0f}"]
        rows.append([f"`{name}`", f"{percent(row['mean'])} {between(row)}", against, *counts])
    head = ["strategy", "mean top-1 (%)", "more than `independent` (points)", "children", "predictor rows"]
    return table(head, rows)


def paper(tables: Tables) -> str:
    """Published accuracies and ours."""
    stored, names = tables["paper"], ("independent", "bottom_up", "top_down")
    rows = []
    for target in sorted({row["target"] for row in stored.rows}):
        cells = [f"{target:g}"]
        for name in names:
            row = stored.row(strategy=name, target=target)
            cells += [percent(row["published"]), f"{percent(row['mean'])} ± {percent(row['sd'])}"]
        rows.append(cells)
    head = [text for name in names for text in (f"`{name}`: published", "ours")]
    return table(["target (ms)", *head], rows, left=0)


def growth(tables: Tables) -> str:
    """How time and evaluations grow with the number of targets."""
    stored, rows = tables["growth"], []
    for name in ("independent", "bottom_up", "top_down"):
        time, work = (stored.row(strategy=name, unit=unit) for unit in ("s", "evaluations"))
        exponent = f"{time['exponent']:.2f} {between(time, 'exponent_', 1)}"
        further = f"{time['further']:.2f} {between(time, 'further_', 1)}"
        rows.append([f"`{name}`", further, f"{work['further']:.2f}", exponent])
    head = ["strategy", "time of one more target", "children of one more target", "exponent p of time ~ k^p"]
    return table(head, rows)


def joint_default(tables: Tables) -> str:
    """The default lengths of ``joint``."""
    rows, before = [], ""
    for row in tables["joint_default"].rows:
        group = f"`{row['space']}`, {row['predictor']}"
        name, before = ("" if group == before else group), group
        least = f"{percent(row['least'])} ± {percent(row['least_half'])}"
        rows.append([name, str(row["k"]), f"{row['time']:.2f}", percent(row["gain"]), least])
    return table(["space, predictor", "targets", "time", "mean gain", "least gain"], rows)


def joint_quality(tables: Tables) -> str:
    """Quality against nominal evaluations."""
    rows = []
    for row in tables["joint_quality"].rows:
        most = row["evaluations_most"]
        count = f"{row['evaluations']:,.0f}" + (f" ({most:,.0f})" if row["search"] == "joint" else "")
        lacks = f"{percent(row['regret'], 3)} {between(row, 'regret_', 100, 3)}"
        rows.append(
            [SEARCHES[row["search"], row["sweep"]], count, percent(row["mean"]), lacks, str(row["seeds"])]
        )
    head = ["search", "nominal evaluations: mean (most)", "mean top-1 (%)", "regret (points)", "seeds"]
    return table(head, rows)


def joint_spent(tables: Tables) -> str:
    """Quality against predictor rows and CPU seconds."""
    rows = []
    for row in tables["joint_spent"].rows:
        lacks = f"{percent(row['regret'], 3)} {between(row, 'regret_', 100, 3)}"
        spent = [f"{row['predictor_rows']:,.0f}", f"{row['cpu_s']:.2f}"]
        rows.append([SEARCHES[row["search"], row["sweep"]], *spent, lacks])
    return table(["search", "predictor rows", "CPU seconds", "regret (points)"], rows)


def joint_macs(tables: Tables) -> str:
    """``joint`` and ``independent`` under MACs."""
    rows = []
    for row in tables["joint_macs"].rows:
        cells = [
            f"{percent(row[name], 3)} ± {percent(row[f'{name}_half'], 3)}"
            for name in ("independent", "joint", "difference")
        ]
        rows.append([SPACES[row["space"]], f"{row['target']:g}", *cells])
    head = ["space", "target (1e6 MACs)", "`independent` (%)", "`joint` (%)", "difference (points)"]
    return table(head, rows)


def joint_ablation(tables: Tables) -> str:
    """What ``joint`` is worth without its parts."""
    rows = []
    for row in tables["joint_ablation"].rows:
        half = (row["regret_high"] - row["regret_low"]) / 2
        more = (
            "" if row.get("more") is None else f"{percent(row['more'], 3)} ± {percent(row['more_half'], 3)}"
        )
        lacks = f"{percent(row['regret'], 3)} ± {percent(half, 3)}"
        rows.append([ABLATION[row["sweep"]], f"{row['evaluations']:,.0f}", lacks, more])
    head = [
        "change",
        "nominal evaluations (mean)",
        "regret (points)",
        "more regret than `joint_40k` (points)",
    ]
    return table(head, rows)


def devices(tables: Tables) -> str:
    """One search for three devices."""
    stored = tables["devices"]
    names = list(dict.fromkeys(row["device"] for row in stored.rows))
    rows = []
    for children in dict.fromkeys(row["children"] for row in stored.rows):
        own = [stored.row(children=children, device=name) for name in names]
        cells = [f"{percent(row['difference'])} {between(row)}" for row in own]
        rows.append([f"{children:,}", *cells, f"{own[0]['cpu']:.1f}"])
    head = ["children", *(LABELS[name] for name in names), "CPU time"]
    return table(head, rows, left=0)


def picks(tables: Tables) -> str:
    """Picks from fronts, against searches for exactly their target."""
    own = tables["picks"].where(search="joint")
    chosen = [row for row in own if row["params"] is None]
    chosen += [row for row in own if row["params"] is not None and row["at"] is None]
    rows = []
    for row in chosen:
        at = "all" if row["at"] is None else f"{row['at']:g}"
        limit = "" if row["params"] is None else f", at most {row['params']:g} x 1e6 parameters"
        cells = [f"{row[name]:.2f} {between(row, f'{name}_', 1)}" for name in ("default", "as_long")]
        rows.append([at + limit, *cells])
    head = ["at (ms)", "a search of the default length", "a search as long as the ten-target search"]
    return table(head, rows)


def _fronts(tables: Tables, measure: str, form: str, best: Callable[[list[float]], float]) -> str:
    stored = tables["fronts"]
    columns = list(dict.fromkeys((row["case"], row["budget"]) for row in stored.rows))
    bests = {
        (case, budget): best([row[measure] for row in stored.where(case=case, budget=budget)])
        for case, budget in columns
    }
    rows = []
    for name in dict.fromkeys(row["contestant"] for row in stored.rows):
        values = [stored.row(contestant=name, case=case, budget=budget)[measure] for case, budget in columns]
        marks = ["**" if value == bests[at] else "" for value, at in zip(values, columns, strict=True)]
        rows.append(
            [name, *(f"{mark}{value:{form}}{mark}" for value, mark in zip(values, marks, strict=True))]
        )
    head = [f"{CASES[case]}, {budget // 1000} k" for case, budget in columns]
    return table([measure, *head], rows)


def fronts_regret(tables: Tables) -> str:
    """The race of fronts: regret."""
    return _fronts(tables, "regret", ".3f", min)


def fronts_hypervolume(tables: Tables) -> str:
    """The race of fronts: hypervolume."""
    return _fronts(tables, "hypervolume", ",.1f", max)


def race(tables: Tables) -> str:
    """Contestants on one core."""
    rows = []
    for row in tables["race"].rows:
        seconds, faster = row["seconds_per_search_and_core"], row["faster_than_notebook"]
        accuracy = "" if row["accuracy"] is None else percent(row["accuracy"])
        rows.append(
            [
                CONTESTANTS[row["contestant"]],
                f"{seconds:.3f}" if seconds < 10 else f"{seconds:.1f}",
                f"{row['evaluations_per_second_and_core']:,.0f}",
                f"{row['to_floor']:.2f}",
                f"{faster:,.1f}" if faster < 100 else f"{faster:,.0f}",
                accuracy,
                f"{row['peak_gib']:.2f}",
            ]
        )
    head = [
        "contestant",
        "s / search",
        "evaluations / s",
        "times floor",
        "times faster than `notebook`",
        "mean top-1 (%)",
    ]
    return table([*head, "peak GiB"], rows)


def floor(tables: Tables) -> str:
    """Searches against the predictor alone."""
    rows = [
        [
            CONTESTANTS[row["case"]],
            f"{row['evaluations']:,.0f}",
            f"{row['seconds_per_search']:.3f}",
            f"{row['floor_s']:.3f}",
            f"{row['to_floor']:.2f}",
        ]
        for row in tables["floor"].rows
    ]
    return table(["searches", "evaluations", "s / search", "floor (s)", "times floor"], rows)


def profile(tables: Tables) -> str:
    """Where the time of a search goes."""
    rows = [[row["step"], f"{percent(row['share'], 1)} %"] for row in tables["profile"].rows]
    return table(["step", "share of the time"], rows)


def scaling(tables: Tables) -> str:
    """How time and memory grow."""
    rows = [
        [row["varied"], f"{row['value']:,}", f"{row['seconds']:.4f}", f"{row['peak_gib']:.2f}"]
        for row in tables["scaling"].rows
        if "projected" not in row["varied"]
    ]
    return table(["varied", "value", "s / search", "peak GiB"], rows)


def driver(tables: Tables) -> str:
    """One driver over simulated actors."""
    columns = tables["driver"].rows
    lines: dict[str, Callable[[Row], str]] = {
        "shards": lambda row: f"{row['shards']:,}",
        "driver's CPU time for each shard (ms)": lambda row: f"{row['cpu_ms']:.1f}",
        "driver's memory (MiB)": lambda row: f"{row['memory_mib']:,}",
        "bytes written by merging, for each byte stored": lambda row: f"{row['merging']:.2f}",
        "size of the folder (MiB)": lambda row: f"{row['folder_mib']:,.0f}",
        "files in the folder": lambda row: f"{row['files']:,}",
    }
    for name, label in (
        ("tables", "verify the tables when resuming"),
        ("resume", "resume the finished sweep"),
        ("status", "`status`"),
        ("load", "`load`, 1 % of the seeds and two columns"),
    ):
        lines[f"{label}: seconds"] = lambda row, name=name: f"{row[f'{name}_s']:.1f}"
        lines[f"{label}: CPU seconds"] = lambda row, name=name: f"{row[f'{name}_cpu_s']:.1f}"
        lines[f"{label}: peak MiB"] = lambda row, name=name: f"{row[f'{name}_mib']:,}"
    rows = [[name, *(cell(row) for row in columns)] for name, cell in lines.items()]
    return table(["searches", *(f"{row['searches']:,}" for row in columns)], rows)


def driver_ray(tables: Tables) -> str:
    """A sweep through Ray."""
    rows = [
        [
            f"{row['actors']:.0f}",
            f"{row['shards']:.0f}",
            f"{row['wall_s']:.1f}",
            f"{row['shard_s']:.2f}",
            f"{percent(row['not_busy'], 1)} %",
            f"{row['faster_than_first']:.2f}",
        ]
        for row in tables["driver_ray"].rows
    ]
    head = [
        "actors",
        "shards",
        "wall time (s)",
        "s / shard",
        "time without a search",
        "times faster than one actor",
    ]
    return table(head, rows, left=0)


#: Name of a marked table -> how it is printed, and the stored table whose origin its caption names.
MARKED: dict[str, tuple[Callable[[Tables], str], str]] = {
    "strategies": (strategies, "strategies"),
    "paper": (paper, "paper"),
    "growth": (growth, "growth"),
    "joint_default": (joint_default, "joint_default"),
    "joint_quality": (joint_quality, "joint_quality"),
    "joint_spent": (joint_spent, "joint_spent"),
    "joint_macs": (joint_macs, "joint_macs"),
    "joint_ablation": (joint_ablation, "joint_ablation"),
    "devices": (devices, "devices"),
    "picks": (picks, "picks"),
    "fronts_regret": (fronts_regret, "fronts"),
    "fronts_hypervolume": (fronts_hypervolume, "fronts"),
    "race": (race, "race"),
    "floor": (floor, "floor"),
    "profile": (profile, "profile"),
    "scaling": (scaling, "scaling"),
    "driver": (driver, "driver"),
    "driver_ray": (driver_ray, "driver_ray"),
}


def marked(name: str, tables: Tables) -> str:
    """A marked table with its caption, which names the command and, where it matters, the machine."""
    printed, origin = MARKED[name]
    stored = tables[origin]
    verb = "Measured" if origin in FROM_FILES else "Made"
    where = f" on {stored.machine}" if stored.machine else ""
    return f"{printed(tables)}\n\n*{verb} with `{stored.command}`{where}.*"
