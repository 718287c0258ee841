"""Compute matrix products in tiles of fixed numbers of rows, so that the bits of a row do not depend on its
batch.

On a CPU, products of 128 rows give every row the same bits. Other numbers of rows are used if their products
have the same bits on this processor, which is tested at the first use of such a number. Larger tiles are
faster, because there are fewer products, and smaller tiles need less padding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

TILE = 128  # rows of one matrix product
_LARGE = (1024, 512, 256)
LEAST = 16  # rows of the smallest tile
_STEP, _MOST = 8, 264  # sizes of tiles for the last rows: multiples of _STEP up to _MOST
_TRIED = 1024  # rows on which a size of tiles is tested

Products = Callable[[torch.Tensor], torch.Tensor]  # rows (n, ...) -> (n, ...)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Use one torch thread in the block, because several threads could change the bits of a product, and
    actors share the cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Tiles:
    """Splits rows into tiles whose products have the same bits as tiles of :data:`TILE` rows.

    probe: draws rows (n, width) on which the products are tested.
    """

    def __init__(self, products: Products, probe: Callable[[int], torch.Tensor]):
        self._products, self._probe = products, probe
        self._agrees = {TILE: True}
        self._expected: tuple[torch.Tensor, torch.Tensor] | None = None  # rows, and their products in TILEs
        self._splits: dict[int, list[int]] = {}

    def padding(self, n: int) -> int:
        """Return the number of rows that must be added to n rows to fill whole tiles."""
        return sum(self._split(n)) - n

    def map(self, products: Products, rows: torch.Tensor) -> torch.Tensor:
        """Return the products of whole tiles: rows (n, ...) -> (n, ...). n includes the padding and may be
        0.
        """
        sizes = self._split(len(rows))
        if len(sizes) < 2:
            return products(rows)
        return torch.cat([products(tile) for tile in torch.split(rows, sizes)])

    def _split(self, n: int) -> list[int]:
        """The sizes of tiles for n rows, the largest first. Only the last tile may need padding. The padded
        number has the same tiles.
        """
        if n not in self._splits:
            sizes, left = [], n
            while left > _MOST:
                sizes.append(next(size for size in (*_LARGE, TILE) if size <= left and self._agree(size)))
                left -= sizes[-1]
            while left > 0:
                small = range(max(LEAST, left + -left % _STEP), _MOST + 1, _STEP)
                sizes.append(next((size for size in small if self._agree(size)), TILE))
                left -= sizes[-1]
            self._splits[n] = self._splits[sum(sizes)] = sizes
        return self._splits[n]

    def _agree(self, size: int) -> bool:
        """Whether tiles of this many rows have the same bits as tiles of :data:`TILE` rows."""
        if size not in self._agrees:
            with one_thread(), torch.inference_mode():
                if self._expected is None:
                    rows = self._probe(_TRIED)
                    self._expected = rows, self._by(TILE, rows)
                rows, expected = self._expected
                whole = _TRIED - _TRIED % size
                self._agrees[size] = torch.equal(self._by(size, rows[:whole]), expected[:whole])
        return self._agrees[size]

    def _by(self, size: int, rows: torch.Tensor) -> torch.Tensor:
        return torch.cat([self._products(tile) for tile in torch.split(rows, size)])
