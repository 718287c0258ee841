"""Counter-based random numbers: pure, and random enough. Chances of a false alarm are those of a 6 sigma
event (2e-9) each.
"""

import torch

from topdown_ray.algorithms import rng


def draws(
    n: int, words: int, seed: int = 0, purpose: int = rng.MUTATION, generation: int = 1
) -> torch.Tensor:
    stream = rng.Draws([seed], "space").stream(purpose, 0, generation)
    return rng.uniform(rng.keys(rng.slots(stream, n), 0), words)


def test_numbers_depend_on_nothing_but_their_name() -> None:
    alone = rng.Draws([7], "space").stream(rng.PARENTS, 2, 11)
    together = rng.Draws([3, 7, 9], "space").stream(rng.PARENTS, 2, 11)
    assert alone[0] == together[1]
    slots = rng.slots(together, 5)
    assert torch.equal(slots.view(3, 5)[1], rng.slots(alone, 5))
    many = rng.keys(slots.repeat_interleave(4), torch.arange(4).repeat(15))
    assert torch.equal(many.view(15, 4)[:, 2], rng.keys(slots, 2))
    assert torch.equal(rng.words(many, 9)[:, :4], rng.words(many, 4))


def test_known_values_on_every_platform() -> None:
    """Golden: a change of these numbers changes every result (raise ALGORITHM_VERSION)."""
    stream = rng.Draws([0, 1], "mobilenet_v3").stream(rng.INITIAL, 0, 0)
    words = rng.words(rng.keys(rng.slots(stream, 2), 3), 2)
    assert words.tolist() == GOLDEN


GOLDEN = [
    [1778293372, -1086650179],
    [-142477755, -1937244661],
    [255514120, -2063487865],
    [823247444, 292372132],
]


def test_numbers_are_uniform() -> None:
    u = draws(20_000, 50)
    n = u.numel()
    assert abs(u.mean() - 0.5) < 6 * (1 / 12 / n) ** 0.5
    counts = torch.histc(u, 64, 0, 1)
    chi2 = ((counts - n / 64) ** 2 / (n / 64)).sum()
    assert abs(chi2 - 63) < 6 * (2 * 63) ** 0.5
    assert u.min() >= 0
    assert u.max() < 1


def test_every_bit_of_a_word_is_fair_and_independent_of_its_neighbours() -> None:
    stream = rng.Draws(range(50), "space").stream(rng.CROSSOVER, 1, 2)
    words = rng.words(rng.keys(rng.slots(stream, 2000), 0), 2).view(-1)  # 200,000
    bits = (words[:, None] >> torch.arange(32) & 1).double() * 2 - 1
    n = len(bits)
    assert bits.mean(0).abs().max() < 6 / n**0.5
    correlation = (bits.T @ bits / n).fill_diagonal_(0)
    assert correlation.abs().max() < 6 / n**0.5


def test_streams_slots_attempts_and_seeds_are_uncorrelated() -> None:
    n = 100_000
    base = draws(n, 1).view(-1) - 0.5
    others = [
        draws(n, 1, seed=1).view(-1),
        draws(n, 1, purpose=rng.PARENTS).view(-1),
        draws(n, 1, generation=2).view(-1),
        draws(n, 2)[:, 1],
        draws(n, 1).view(-1).roll(1),
    ]
    for other in others:
        correlation = (base * (other - 0.5)).mean() * 12
        assert abs(correlation) < 6 / n**0.5
