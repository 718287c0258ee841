"""Never score an architecture twice in a search: an exact, bounded memory of what each search has scored.

About three quarters of all children are architectures that the same search has scored before. Each search has a table of fixed
size, addressed by a hash of the canonical architecture; an entry holds the architecture itself, packed without loss, so a hit is
never false. A newcomer overwrites what stood in its place: forgetting costs a predictor row, nothing else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from topdown_ray import rng
from topdown_ray.spaces import Space
from topdown_ray.terms import Term, TermIndex, concatenate

SLOTS = 1 << 14  # of each search's table
SEEN = 1 << 16  # of each search's table of fingerprints
_WORD = 2**24  # float32 holds whole numbers exactly up to this
_WORDS = 4


class Identity:
    """Architectures as short keys, equal exactly if their canonical forms are: genes (N, G) -> int64 (N, 3).

    Four packed words and an additive hash, whole numbers in float32: each block's combination of choices is a digit, and a key
    is the sum over blocks, one gather-and-add like a cost.
    """

    def __init__(self, space: Space, device: torch.device):
        groups = [(genes, depth) for genes, depth in space.block_genes()] + [((g,), -1) for g in space.genes_outside_blocks()]
        random = np.random.default_rng(0)
        terms: list[Term] = []
        word, radix = 0, 1
        for own, depth in groups:
            group = (*own, depth) if depth >= 0 else own
            sizes = [space.sizes[g] for g in group]
            choices = np.indices(sizes).reshape(len(group), -1).T  # (rows, genes)
            digit = np.asarray(np.ravel_multi_index(tuple(choices.T[: len(own)]), tuple(sizes[: len(own)]))) + 1
            if depth >= 0:
                digit *= choices[:, -1] >= space.genes[own[0]].minimum_depth  # 0: switched off
            n_digits = int(digit.max()) + 1
            if radix * n_digits > _WORD:
                word, radix = word + 1, 1
            values = np.zeros((len(digit), _WORDS + 2))
            values[:, word] = digit * radix
            values[:, _WORDS] = random.integers(0, _WORD // len(groups), n_digits)[digit]
            radix *= n_digits
            terms.append(Term(group, values.reshape(*sizes, -1)))
        assert word < _WORDS
        self.index = TermIndex(terms, space.G).to(device)
        self.table = torch.from_numpy(concatenate(terms).astype(np.float32)).to(device)

    def __call__(self, genes: torch.Tensor) -> torch.Tensor:
        return functional.embedding_bag(self.index(genes), self.table, mode="sum").view(torch.int64)

    def fingerprints(self, genes: torch.Tensor) -> torch.Tensor:
        """One number for a key: genes (N, G) -> int64 (N,); two canonical forms share one with a chance of 2^-64."""
        first, second, third = self(genes).unbind(1)
        return rng.keys(rng.keys(rng.keys(first, 0) ^ second, 0) ^ third, 0)

    @staticmethod
    def hashes(identity: torch.Tensor) -> torch.Tensor:
        """The additive hashes of keys (N, 3) -> int32 (N,), of 24 bits."""
        return identity.view(torch.float32)[:, _WORDS].int()


class Memo:
    """The accuracies that S searches have already computed: genes (S*n, G), search by search -> float32 (S*n,)."""

    def __init__(self, space: Space, accuracy: Callable[[torch.Tensor], torch.Tensor], S: int, device: torch.device):
        self.accuracy = accuracy
        self.identity = identity_of(space, device)
        self.S = S
        self.keys = torch.full((S * SLOTS, 3), -1, dtype=torch.int64, device=device)
        self.values = torch.zeros(S * SLOTS, device=device)
        self.owners = torch.zeros(S * SLOTS, dtype=torch.int64, device=device)
        self.scored = torch.zeros(S, dtype=torch.int64, device=device)  # predictor rows since the last count
        self._bases: dict[int, torch.Tensor] = {}

    def __call__(self, genes: torch.Tensor) -> torch.Tensor:
        n = len(genes) // self.S
        key = self.identity(genes)
        place = (Identity.hashes(key) & (SLOTS - 1)) + self._base(n)
        scores = self.values.index_select(0, place)
        new = (self.keys.index_select(0, place) == key).all(dim=1).logical_not_().nonzero().view(-1)
        if len(new) == 0:
            return scores
        # Of several newcomers to one place the last one stays there. Those equal to it wait for its score; the others are
        # scored and forgotten.
        key, place = key.index_select(0, new), place.index_select(0, new)
        numbers = torch.arange(len(new), device=genes.device)
        self.owners.scatter_reduce_(0, place, numbers, "amax", include_self=False)
        owner = self.owners.index_select(0, place)
        leader = torch.where((key.index_select(0, owner) == key).all(dim=1), owner, numbers)
        scoring = (leader == numbers).nonzero().view(-1)
        rows = new.index_select(0, scoring)
        found = torch.zeros(len(new), device=genes.device)
        found.index_copy_(0, scoring, self.accuracy(genes.index_select(0, rows)))
        found = found.index_select(0, leader)
        scores.index_copy_(0, new, found)
        stays = owner.index_select(0, scoring) == scoring
        kept = scoring.index_select(0, stays.nonzero().view(-1))
        place = place.index_select(0, kept)
        self.keys.index_copy_(0, place, key.index_select(0, kept))
        self.values.index_copy_(0, place, found.index_select(0, kept))
        self.scored += torch.bincount(torch.div(rows, n, rounding_mode="floor"), minlength=self.S)
        return scores

    def take_count(self) -> torch.Tensor:
        """Predictor rows of each search since the last call: int64 (S,)."""
        count, self.scored = self.scored, torch.zeros_like(self.scored)
        return count

    def _base(self, n: int) -> torch.Tensor:
        if n not in self._bases:
            self._bases[n] = torch.arange(0, self.S * SLOTS, SLOTS, device=self.keys.device).repeat_interleave(n)
        return self._bases[n]


class Seen:
    """The children that each search has drawn: a table of fingerprints; a newcomer overwrites what stood in its place."""

    def __init__(self, S: int, device: torch.device):
        self.names = torch.zeros(S * SEEN, dtype=torch.int64, device=device)
        self.owners = torch.zeros(S * SEEN, dtype=torch.int32, device=device)

    def add(self, name: torch.Tensor, search: torch.Tensor) -> torch.Tensor:
        """Which of these fingerprints are new; of several in one place only the last is: int64 (N,), search (N,) -> bool (N,)."""
        place = (name & SEEN - 1) + search * SEEN
        new = (self.names.index_select(0, place) != name).nonzero().view(-1)
        place, numbers = place.index_select(0, new), torch.arange(len(new), dtype=torch.int32, device=name.device)
        self.owners.scatter_reduce_(0, place, numbers, "amax", include_self=False)
        first = (self.owners.index_select(0, place) == numbers).nonzero().view(-1)
        self.names.index_copy_(0, place.index_select(0, first), name.index_select(0, new.index_select(0, first)))
        return torch.zeros_like(name, dtype=torch.bool).index_fill_(0, new.index_select(0, first), True)


@functools.cache
def identity_of(space: Space, device: torch.device) -> Identity:
    """The keys of a space, their tables built once."""
    return Identity(space, device)
