"""Cache the accuracies of the architectures that each search has scored, exactly and in bounded memory.

About three quarters of all children are architectures that the same search has scored before. Each search has
a table of fixed size, addressed by a hash of the canonical architecture. An entry contains the architecture
itself, packed without loss, so that a hit is never wrong. A new entry overwrites the previous one in its
place: forgetting costs a predictor row, and nothing else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch

from topdown_ray.algorithms import kernels, rng
from topdown_ray.errors import UserError
from topdown_ray.spaces.space import Space
from topdown_ray.spaces.terms import Term, TermIndex, flatten

SLOTS = 1 << 14  # size of each search's table
SEEN = 1 << 16  # size of each search's table of fingerprints
_WORD = 2**62


class Identity:
    """Short keys of architectures, which are equal exactly if the canonical forms are: genes (N, G) -> int64
    (N, 2).

    The combination of choices of each block is a digit of a mixed-radix number in two words. Like a cost, a
    key is a sum over terms.
    """

    def __init__(self, space: Space, device: torch.device):
        groups = [(genes, depth) for genes, depth in space.block_genes()] + [
            ((g,), -1) for g in space.genes_outside_blocks()
        ]
        terms: list[Term] = []
        digits: list[np.ndarray[tuple[int, int], np.dtype[np.int64]]] = []
        word, radix = 0, 1
        for own, depth in groups:
            group = (*own, depth) if depth >= 0 else own
            sizes = [space.sizes[g] for g in group]
            choices = np.indices(sizes).reshape(len(group), -1).T  # (rows, genes)
            digit = (
                np.asarray(np.ravel_multi_index(tuple(choices[:, : len(own)].T), tuple(sizes[: len(own)])))
                + 1
            )
            if depth >= 0:
                digit *= choices[:, -1] >= space.genes[own[0]].minimum_depth  # 0 if the block is switched off
            n_digits = int(digit.max()) + 1
            if radix * n_digits > _WORD:
                word, radix = word + 1, 1
            values = np.zeros((len(digit), 2), dtype=np.int64)
            values[:, word] = digit * radix
            radix *= n_digits
            terms.append(Term(group, digit.reshape(sizes).astype(np.float64)))
            digits.append(values)
        self.index = TermIndex(terms, space.G).to(device)
        self.sum = flatten(terms)
        self.digits = torch.from_numpy(np.concatenate(digits)).to(device)  # (rows, 2)

    def __call__(self, genes: torch.Tensor) -> torch.Tensor:
        """Return the keys of genes (N, G): int64 (N, 2)."""
        places = self.index(genes)  # (N, T)
        return self.digits.index_select(0, places.view(-1)).view(*places.shape, 2).sum(1)

    def fingerprints(self, genes: torch.Tensor) -> torch.Tensor:
        """Return one number for each key: genes (N, G) -> int64 (N,). Two canonical forms have the same one
        with a probability of 2^-64.
        """
        return self.hashes(self(genes))

    @staticmethod
    def hashes(identity: torch.Tensor) -> torch.Tensor:
        """Return hashes of keys (N, 2) -> int64 (N,), with all bits random."""
        return rng.mix_tensor(identity[:, 0] ^ rng.mix_tensor(identity[:, 1].clone()))


def newcomers(
    owners: torch.Tensor, place: torch.Tensor, key: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return which of n new entries for the places of a table get a value of their own: place int64 (n,), key
    int64 (n, words).

    Of several new entries for one place, the last one stays. Those equal to it take its value; the others get
    their own and are forgotten. owners (table) is scratch memory. Returns for each entry the one that stays
    in its place (n,), the one whose value it takes (n,), and those that take their own (m,), ascending.
    """
    numbers = torch.arange(len(place), device=place.device)
    owners.scatter_reduce_(0, place, numbers, "amax", include_self=False)
    owner = owners.index_select(0, place)
    leader = torch.where((key.index_select(0, owner) == key).all(dim=1), owner, numbers)
    return owner, leader, (leader == numbers).nonzero().view(-1)


def scored(accuracy: Callable[[torch.Tensor], torch.Tensor], genes: torch.Tensor) -> torch.Tensor:
    """Return a predictor's accuracies: genes (N, G) -> float32 (N,). Every score of a search comes from here.

    Raises UserError for a value that is not from 0 to 1, because NaN would be ordered before every number.
    """
    found = accuracy(genes)
    if len(found):
        low, high = found.aminmax()  # NaN if any value is NaN
        if not (low >= 0 and high <= 1):
            row = int(((found >= 0) & (found <= 1)).logical_not_().nonzero()[0, 0])
            name = getattr(accuracy, "name", type(accuracy).__name__)
            raise UserError(
                "predictor: expected a top-1 from 0 to 1 for every architecture, found "
                f"{float(found[row]):g} by {name} "
                f"for the genes {genes[row].tolist()}"
            )
    return found


class Memo:
    """The accuracies that S searches have already computed: genes (S*n, G), search by search -> float32
    (S*n,).

    ``compiled`` (None: on the CPU) uses compiled code instead of tensor operations, with the same results.
    """

    def __init__(
        self,
        space: Space,
        accuracy: Callable[[torch.Tensor], torch.Tensor],
        S: int,
        device: torch.device,
        compiled: bool | None = None,
    ):
        self.accuracy = accuracy
        self.identity = identity_of(space, device)
        self.S, self.slots = S, SLOTS
        self.keys = torch.full((S * SLOTS, 2), -1, dtype=torch.int64, device=device)
        self.values = torch.zeros(S * SLOTS, device=device)
        self.compiled = device.type == "cpu" if compiled is None else compiled
        self.owners = torch.zeros(
            S * SLOTS, dtype=torch.int32 if self.compiled else torch.int64, device=device
        )
        self.scored = torch.zeros(S, dtype=torch.int64, device=device)  # predictor rows since the last count
        self._bases: dict[int, torch.Tensor] = {}

    def __call__(self, genes: torch.Tensor) -> torch.Tensor:
        """Return the accuracies of genes (S*n, G), from memory or from the predictor: float32 (S*n,)."""
        return self._compiled(genes) if self.compiled else self._tensors(genes)

    def predict(self, genes: torch.Tensor) -> torch.Tensor:
        """Return the predictor's accuracies of genes (N, G), always computed: float32 (N,). See
        :func:`scored`.
        """
        return scored(self.accuracy, genes)

    def _compiled(self, genes: torch.Tensor) -> torch.Tensor:
        n = len(genes) // self.S
        keys, values, owners, scored = (x.numpy() for x in (self.keys, self.values, self.owners, self.scored))
        scores = np.empty(len(genes), dtype=np.float32)
        rows, places, waiting, leaders = kernels.recall(
            genes.numpy(),
            n,
            self.identity.sum,
            self.identity.digits.numpy(),
            keys,
            values,
            owners,
            self.slots,
            scores,
            scored,
        )
        if len(rows):
            found = self.predict(genes.index_select(0, torch.from_numpy(rows))).numpy()
            kernels.remember(found, rows, places, waiting, leaders, values, scores)
        return torch.from_numpy(scores)

    def _tensors(self, genes: torch.Tensor) -> torch.Tensor:
        n = len(genes) // self.S
        key = self.identity(genes)
        place = (Identity.hashes(key) & (self.slots - 1)) + self._base(n)
        scores = self.values.index_select(0, place)
        new = (self.keys.index_select(0, place) == key).all(dim=1).logical_not_().nonzero().view(-1)
        if len(new) == 0:
            return scores
        key, place = key.index_select(0, new), place.index_select(0, new)
        owner, leader, scoring = newcomers(self.owners, place, key)
        rows = new.index_select(0, scoring)
        found = torch.zeros(len(new), device=genes.device)
        found.index_copy_(0, scoring, self.predict(genes.index_select(0, rows)))
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
        """Return the predictor rows of each search since the last call: int64 (S,)."""
        count, self.scored = self.scored, torch.zeros_like(self.scored)
        return count

    def part(self, index: torch.Tensor) -> Memo:
        """Return a copy of the memory of some of the searches: index int64 (n,)."""
        part = Memo.__new__(Memo)
        part.accuracy, part.identity, part.compiled = self.accuracy, self.identity, self.compiled
        part.S, part.slots, part._bases = len(index), self.slots, {}
        tables = (self.keys.view(self.S, -1, 2), self.values.view(self.S, -1), self.owners.view(self.S, -1))
        keys, values, owners = (table.index_select(0, index) for table in tables)
        part.keys, part.values, part.owners = keys.view(-1, 2), values.view(-1), owners.view(-1)
        part.scored = self.scored.index_select(0, index)
        return part

    def put_back(self, index: torch.Tensor, part: Memo) -> None:
        """Replace the memory of some of the searches: index int64 (n,)."""
        self.keys.view(self.S, -1, 2).index_copy_(0, index, part.keys.view(part.S, -1, 2))
        self.values.view(self.S, -1).index_copy_(0, index, part.values.view(part.S, -1))
        self.scored.index_copy_(0, index, part.scored)

    def _base(self, n: int) -> torch.Tensor:
        if n not in self._bases:
            self._bases[n] = torch.arange(
                0, self.S * self.slots, self.slots, device=self.keys.device
            ).repeat_interleave(n)
        return self._bases[n]


class Seen:
    """The children that each search has drawn, as a table of fingerprints. A new entry overwrites the
    previous one in its place.
    """

    def __init__(self, S: int, device: torch.device):
        self.places = SEEN  # places of each search
        self.names = torch.zeros(S * SEEN, dtype=torch.int64, device=device)
        self.owners = torch.zeros(S * SEEN, dtype=torch.int32, device=device)

    def add(self, name: torch.Tensor, search: torch.Tensor) -> torch.Tensor:
        """Add fingerprints and return which of them are new: int64 (N,), search (N,) -> bool (N,). Of several
        in one place, only the last one is.
        """
        place = (name & self.places - 1) + search * self.places
        new = (self.names.index_select(0, place) != name).nonzero().view(-1)
        place, numbers = (
            place.index_select(0, new),
            torch.arange(len(new), dtype=torch.int32, device=name.device),
        )
        self.owners.scatter_reduce_(0, place, numbers, "amax", include_self=False)
        first = (self.owners.index_select(0, place) == numbers).nonzero().view(-1)
        self.names.index_copy_(
            0, place.index_select(0, first), name.index_select(0, new.index_select(0, first))
        )
        return torch.zeros_like(name, dtype=torch.bool).index_fill_(0, new.index_select(0, first), True)


@functools.cache
def identity_of(space: Space, device: torch.device) -> Identity:
    """Return the keys of a space. Their tables are built once."""
    return Identity(space, device)
