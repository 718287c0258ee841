"""Uniform draws of feasible rows: against enumeration, against rejection, alone and in batches."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from support.tight import cheapest, problem

from topdown_ray.algorithms import proposals, rng, uniform
from topdown_ray.algorithms.problem import Problem
from topdown_ray.algorithms.uniform import Counts
from topdown_ray.spaces.cost import CostModel
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.terms import Term

ALARM = 1e-7  # chance of a false alarm of each chi-square test, about 150 in all


def model(terms: list[Term], sizes: tuple[int, ...], tick: float = 1.0) -> CostModel:
    return CostModel("test", "ticks", "", "test", tick, tuple(terms), sizes)


def small(seed: int, most: int) -> CostModel:
    """Terms of 1 to 3 genes that overlap, some of them negative, over 432 rows; gene 3 costs nothing."""
    generator, sizes = np.random.default_rng(seed), (3, 2, 3, 4, 2, 3)
    scopes = [(0,), (1, 0), (2, 4, 1), (5, 2), (4,)]
    return model(
        [Term(s, generator.integers(-most, most, [sizes[g] for g in s]).astype(float)) for s in scopes], sizes
    )


def every_row(cost: CostModel) -> torch.Tensor:
    return torch.tensor(list(itertools.product(*map(range, cost.sizes))), dtype=torch.int8)


def slots(n: int, seed: int = 7) -> torch.Tensor:
    return rng.slots(rng.Draws([seed], "x").stream(rng.UNIFORM, 0, 0), n)


def assert_uniform(cost: CostModel, limit: float, draws_a_row: int) -> None:
    """Every feasible row of an enumerable cost as often as every other, and no other row."""
    rows = every_row(cost)
    feasible = cost(rows) <= limit
    drawn, success = Counts(cost, limit).draw(slots(draws_a_row * int(feasible.sum())))
    assert success.all()
    numbers = np.ravel_multi_index(tuple(drawn.long().T.numpy()), cost.sizes)
    seen = torch.from_numpy(np.bincount(numbers, minlength=len(rows)))
    assert (seen[~feasible] == 0).all()
    assert stats.chisquare(seen[feasible]).pvalue > ALARM


# --- what can be enumerated ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_counts_are_those_of_enumeration(seed: int) -> None:
    """Levels of one tick: the count for every budget is exact."""
    cost = small(seed, 30)
    ticks = cost(every_row(cost)).numpy()
    counts = Counts(cost, float(np.median(ticks)))
    assert counts.slack == np.median(ticks) // 1 - ticks.min() < uniform.LEVELS
    expected = [(ticks <= ticks.min() + budget).sum() for budget in range(int(counts.slack) + 1)]
    assert counts.counts[0][0].tolist() == expected
    assert counts.share == expected[-1] / len(ticks)


@pytest.mark.parametrize("levels", [2, 5, 1024])
@pytest.mark.parametrize("quantile", [0.0, 0.02, 0.3, 1.0])
def test_draws_are_uniform_however_coarse_the_levels(
    levels: int, quantile: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uniform, "LEVELS", levels)
    cost = small(5, 2**40)
    assert_uniform(cost, float(cost(every_row(cost)).quantile(quantile)), 50)


@pytest.mark.parametrize(
    ("space", "cost"), [("mobilenet_v3", "macs"), ("resnet50d", "macs"), ("resnet50d", "epyc_1thread")]
)
def test_draws_are_uniform_in_a_box_of_a_real_cost(space: str, cost: str) -> None:
    """Two choices of eleven genes: those that matter most, a stage with its depth, and inactive ones; the
    others at their lowest.
    """
    whole = problem(space, cost).cost
    assert isinstance(whole, CostModel)
    genes = SPACES[space].genes
    gated = next(
        g for g, gene in enumerate(genes) if gene.minimum_depth == len(genes[gene.depth_gene].choices) - 1
    )
    stage = [g for g, gene in enumerate(genes) if gene.stage == genes[gated].stage]
    free = {
        SPACES[space].resolution,
        genes[gated].depth_gene,
        gated,
        *stage[:6],
        *SPACES[space].indices("width")[:3],
    }
    kept = [[0, len(gene.choices) - 1] if g in free else [0] for g, gene in enumerate(genes)]
    terms = [Term(term.genes, term.values[np.ix_(*(kept[g] for g in term.genes))]) for term in whole.terms]
    box = model(terms, tuple(map(len, kept)), whole.tick)
    costs = box(every_row(box))
    for quantile in (0.05, 0.5):
        limit = float(costs.quantile(quantile))
        counts = Counts(box, limit)
        level = counts.slack // uniform.LEVELS + 1
        most = (box.cheapest()[0] + (counts.slack + level * len(free)) * box.tick) * (1 + 1e-12)
        assert (costs <= limit).sum() <= counts.counts[0][0, -1] <= (costs <= most).sum()
        assert_uniform(box, limit, 20)


# --- the real spaces ----------------------------------------------------------------------------------------

TIGHT = [
    ("mobilenet_v3", "macs", 102.0),
    ("mobilenet_v3", "macs", 110.0),
    ("resnet50d", "macs", 400.0),
    ("proxyless", "macs", 150.0),
    ("mobilenet_v3", "note10", 10.2),
    ("resnet50d", "epyc_1thread", 30.0),
]


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(("space", "cost", "limit"), TIGHT)
def test_draws_near_the_cheapest_cost_are_feasible_and_spread(space: str, cost: str, limit: float) -> None:
    """Rejection finds nothing here, pruning crowds at the limit and leaves the inactive genes of a random
    draw.
    """
    case = problem(space, cost)
    assert isinstance(case.cost, CostModel)
    counts = Counts(case.cost, limit)
    genes, success = counts.draw(slots(2000))
    assert success.all()
    assert (case.cost(genes) <= limit).all()
    assert 0 < counts.share < 1e-5
    inactive = ~SPACES[space].active(genes)
    for size in sorted(set(case.cost.sizes)):  # inactive genes are uniform
        choices = genes[:, [s == size for s in case.cost.sizes]][
            inactive[:, [s == size for s in case.cost.sizes]]
        ]
        if len(choices):
            assert stats.chisquare(np.bincount(choices.numpy(), minlength=size)).pvalue > ALARM


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("space", "cost", "limit"),
    [("mobilenet_v3", "macs", 150.0), ("resnet50d", "macs", 600.0), ("mobilenet_v3", "note10", 15.5)],
)
def test_counts_and_rejection_draw_alike(space: str, cost: str, limit: float) -> None:
    """Where both work: the choices of every gene, and the costs."""
    case, n = problem(space, cost), 3000
    assert isinstance(case.cost, CostModel)
    rejected, failed = proposals._redrawn(case, n, limit, rng.Draws([3], "y"), 0, 0, 1 << 14)
    counts = Counts(case.cost, limit)
    drawn, _ = counts.draw(slots(n))
    assert len(failed) == 0
    assert 1e-3 < counts.share < 5e-3
    for g, size in enumerate(case.cost.sizes):
        table = np.array([np.bincount(rows[:, g].numpy(), minlength=size) for rows in (rejected, drawn)])
        table = table[:, table.sum(axis=0) >= 20]
        assert table.shape[1] == 1 or stats.chi2_contingency(table).pvalue > ALARM
    assert stats.ks_2samp(case.cost(rejected).numpy(), case.cost(drawn).numpy()).pvalue > ALARM


# --- in a search --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(("space", "cost", "limit"), TIGHT[1:3])
def test_a_search_draws_the_same_rows_alone_in_a_batch_and_in_tensor_operations(
    space: str, cost: str, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = problem(space, cost)
    monkeypatch.setattr(proposals, "MAX_INITIAL_REDRAWS", 600)
    together = proposals.random_feasible(case, 30, limit, rng.Draws([5, 9, 2], space), 1, 4)
    assert (case.cost(together.view(-1, case.space.G)) <= limit).all()
    assert len(torch.unique(together.view(-1, case.space.G), dim=0)) == 90
    for s, seed in enumerate([5, 9, 2]):
        assert torch.equal(
            proposals.random_feasible(case, 30, limit, rng.Draws([seed], space), 1, 4)[0], together[s]
        )
    assert torch.equal(
        proposals.random_feasible(case, 7, limit, rng.Draws([9], space), 1, 4)[0], together[1, :7]
    )
    monkeypatch.setattr(proposals, "compiled_cost", lambda problem, device: None)
    assert torch.equal(
        proposals.random_feasible(case, 30, limit, rng.Draws([5, 9, 2], space), 1, 4), together
    )


@pytest.mark.usefixtures("published")
def test_rows_that_redrawing_finds_stay_as_they_are() -> None:
    """One row in ten thousand is feasible: some are found soon, some late, and only the others are drawn from
    the counts.
    """
    case, draws, limit = problem("mobilenet_v3", "macs"), rng.Draws([1, 2], "z"), 130.0
    rejected, failed = proposals._redrawn(case, 20, limit, draws, 0, 0, proposals.MAX_INITIAL_REDRAWS)
    _, soon = proposals._redrawn(case, 20, limit, draws, 0, 0, proposals._FIRST_REDRAWS)
    assert 0 < len(failed) < len(soon)
    genes = proposals.random_feasible(case, 20, limit, draws, 0, 0).view(-1, case.space.G)
    assert (case.cost(genes) <= limit).all()
    kept = torch.ones(40, dtype=torch.bool)
    kept[failed] = False
    assert torch.equal(genes[kept], rejected[kept])
    assert (genes[~kept] != rejected[~kept]).any(dim=1).all()


def test_without_counts_draws_are_pruned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the cost is no sum over terms, or where its terms couple too many genes."""
    case, limit = problem("proxyless", "macs"), 150.0
    plain = Problem(case.space, case.accuracy, lambda genes: case.cost(genes) + 0, case.cheapest)
    monkeypatch.setattr(proposals, "MAX_INITIAL_REDRAWS", 16)
    uniform.counts_of.cache_clear()
    usual = proposals.random_feasible(case, 10, limit, rng.Draws([4], "x"), 0, 0)
    pruned = proposals.random_feasible(plain, 10, limit, rng.Draws([4], "x"), 0, 0)
    assert (case.cost(pruned[0]) <= limit).all()
    assert not torch.equal(pruned, usual)
    uniform.counts_of.cache_clear()
    monkeypatch.setattr(uniform, "_MOST_COUNTS", 100)
    assert torch.equal(proposals.random_feasible(case, 10, limit, rng.Draws([4], "x"), 0, 0), pruned)
    uniform.counts_of.cache_clear()


@pytest.mark.parametrize("space", SPACES)
def test_at_the_cheapest_cost_the_cheapest_architectures_are_drawn(space: str) -> None:
    """Below it there is nothing to draw."""
    case, lowest = problem(space, "macs"), cheapest(space, "macs")
    assert isinstance(case.cost, CostModel)
    genes, success = Counts(case.cost, lowest).draw(slots(50))
    assert success.all()
    assert (case.cost(genes) == lowest).all()
    assert len(torch.unique(genes, dim=0)) > 40  # their inactive genes differ
    below = Counts(case.cost, math.nextafter(lowest, 0))
    assert below.share == 0
    assert not below.draw(slots(5))[1].any()


@given(tick=st.sampled_from([2.0**-30, 1e-6, 1.0]), limit=st.floats(-1e6, 1e300))
def test_the_limit_in_ticks_is_that_of_the_cost(tick: float, limit: float) -> None:
    ticks = uniform._ticks_within(limit, tick)
    assert ticks * tick <= limit
    assert (ticks + 1) * tick > limit or ticks == 2**53
