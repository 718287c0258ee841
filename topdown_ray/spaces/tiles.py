"""Matrix products in tiles of fixed numbers of rows, so that a row's bits do not depend on the batch it comes
in.

On a CPU a product of 128 rows at a time was measured to give every row the same bits; other numbers of rows
are used where this processor's products agree with those, which is tried out when the products are set up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

TILE = 128  # rows of one matrix product
# Other numbers of rows: large ones are a little faster, small ones waste less on padding.
_OTHERS = (1024, 512, 256, 64, 32, 16)

Products = Callable[[torch.Tensor], torch.Tensor]  # rows (n, ...) -> (n, ...)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread: how a product is split over threads could change its bits, and actors share the cores
    anyway.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Tiles:
    """The numbers of rows whose products have the bits of a tile's here, largest first; :data:`TILE` is
    always one of them.

    probe: draws rows (n, width) that the products are tried on.
    """

    def __init__(self, products: Products, probe: Callable[[int], torch.Tensor]):
        with one_thread(), torch.inference_mode():
            rows = probe(max(_OTHERS))
            expected = torch.cat([products(tile) for tile in torch.split(rows, TILE)])
            same = [
                size
                for size in _OTHERS
                if torch.equal(torch.cat([products(tile) for tile in torch.split(rows, size)]), expected)
            ]
        self.sizes = tuple(sorted({TILE, *same}, reverse=True))

    def padding(self, n: int) -> int:
        """How many rows n rows lack to whole tiles."""
        return -n % self.sizes[-1]

    def map(self, products: Products, rows: torch.Tensor) -> torch.Tensor:
        """The products of whole tiles: rows (n, ...) -> (n, ...), where n lacks no padding; n may be 0."""
        if len(rows) in self.sizes or len(rows) == 0:
            return products(rows)
        return torch.cat([products(tile) for tile in torch.split(rows, self._split(len(rows)))])

    def _split(self, n: int) -> list[int]:
        """n rows as a sum of tiles, the largest first."""
        parts = []
        for size in self.sizes:
            parts += [size] * (n // size)
            n %= size
        return parts
