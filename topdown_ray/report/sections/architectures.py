"""Make the section "Architectures": the best answers, how far seeds agree, and which choices are frequent."""

from __future__ import annotations

import pandas as pd

from topdown_ray.figures import Picture, file_name
from topdown_ray.report import plots_genes
from topdown_ray.report.architectures import best_architectures, compared, leading, short_text
from topdown_ray.report.axes import pick
from topdown_ray.report.context import OF_SET, OF_SETTING, Context
from topdown_ray.report.page import PERCENT, Column, Section, Table, number, text
from topdown_ray.report.tables import widest

_CELL = ["setting", "strategy", "targets", "target"]
_WORDS = (
    "A gene is one choice of the search, for example the kernel size of a block. If the depth of a stage "
    "leaves a block out, the genes of that block are inactive: they change neither accuracy nor cost, and "
    "are not compared."
)
_GENES = (
    "Data of the pictures: for each gene and each target of the widest set, the agreement and the most "
    "frequent choice with its share, among the answers in which the gene is active"
)
_SEEDS = (
    "If answers of different seeds agree on a gene, the choice probably matters and the search finds it. If "
    "they differ and are equally accurate, the choice hardly matters to the predictor."
)


def architectures(context: Context) -> Section | None:
    """Show the best architectures, the agreement of seeds, and heat maps of genes. Returns None if the
    folders have no genes.
    """
    agreement, genes = compared(context.data)
    if genes.empty:
        return None
    # the report may combine folders with genes and folders without
    accuracy = context.accuracy.merge(genes[_CELL].drop_duplicates())
    sets, best = widest(accuracy), leading(accuracy)
    genes = genes[genes["targets"] == genes["setting"].map(sets)]
    pictures = [
        picture
        for setting in genes["setting"].unique()
        for picture in _pictures(context, pick(genes, setting=setting, strategy=best[setting]))
    ]
    shown = [_best(context)]
    if agreement.empty:
        return Section("architectures", "Architectures", [_WORDS], pictures, shown)
    agreement = agreement[agreement["targets"] == agreement["setting"].map(sets)]
    drawn = (genes["n"] > 1) & (genes["strategy"] == genes["setting"].map(best))
    data = Table("gene_agreement", _GENES, genes[drawn], (), in_page=False)
    shown += [_agreement(agreement), data]
    return Section("architectures", "Architectures", [_WORDS, _SEEDS], pictures, shown)


def _pictures(context: Context, genes: pd.DataFrame) -> list[Picture]:
    """The heat maps of one setting and strategy."""
    if genes["target"].nunique() < 2:  # a picture of one column shows no more than the table
        return []
    first, size = genes.iloc[0], plots_genes.size(genes)
    setting = str(first["setting"])
    low, high = genes["n"].min(), genes["n"].max()
    n = f"{low}" if low == high else f"{low} to {high}"
    over = f"over the {first['k']} targets of the widest set" if first["k"] > 1 else "for its target"
    whose = (
        f"{first['strategy']}, the strategy with the highest mean accuracy {over}; {n} "
        f"{'answer' if high == 1 else 'answers'} for each target"
    )
    where = "“2.3” is the third block of the second stage. " if "." in "".join(genes["place"]) else ""
    caption = (
        f"{setting}: the choices of {whose}. The colour shows the mean choice, from the smallest choice of "
        f"the gene (dark) to its largest (bright). {where}"
    )
    hatched = "In hatched cells, no answer has the block." if genes["choice"].isna().any() else ""
    pictures = [
        context.draw(
            file_name("gene_choices", setting), (caption + hatched).strip(), plots_genes.choices, genes, size
        )
    ]
    if high > 1:
        caption = (
            f"{setting}: agreement on each gene among the answers of {whose}. The colour shows the share of "
            f"pairs of answers with the same choice, from none (dark) to all (bright). {where}"
        )
        hatched = (
            "In hatched cells, no two answers have the block." if genes["agreement"].isna().any() else ""
        )
        name = file_name("gene_agreement", setting)
        pictures.append(context.draw(name, (caption + hatched).strip(), plots_genes.agreement, genes, size))
    return pictures


def _best(context: Context) -> Table:
    frame = best_architectures(context.data)
    columns = [number("target", digits="g")]
    if frame.groupby("setting")["limits"].nunique().max() > 1:
        columns.append(text("limits"))
    columns += [text("cost_unit", "unit"), number("accuracy", "top-1 (%)", **PERCENT), number("cost")]
    columns += [number("macs_m", "MACs (M)"), number("params_m", "parameters (M)"), text("strategy")]
    columns += [number("seed"), number("found_for", "found for", "g")]
    columns.append(Column("architecture", lambda row: short_text(row["arch"]), numeric=False))
    note = (
        "Each row shows the most accurate of all answers that cost no more than the target. The answer may "
        "have been found for a tighter target, because such an answer also meets the looser ones. Of equally "
        "accurate answers, the cheapest is shown. The column “architecture” has the resolution (r), depths "
        "(d) and widths (w). The column `arch` of the CSV file has OFA's complete configuration."
    )
    return Table("best_architectures", "Best answer for each target", frame, columns, note, OF_SETTING)


def _agreement(frame: pd.DataFrame) -> Table:
    columns = [text("strategy"), number("target", digits="g"), text("cost_unit", "unit")]
    columns += [number("agreement", "equal genes (%)", **PERCENT)]
    columns += [number("identical", "identical architectures (% of pairs)", **PERCENT)]
    columns += [number("different", "different architectures"), number("n", "answers")]
    note = (
        "This table covers the widest target set. “Equal genes” is the mean over all pairs of answers and "
        "over the genes that are active in both."
    )
    return Table("agreement_of_seeds", "Agreement of seeds", frame, columns, note, OF_SET)
