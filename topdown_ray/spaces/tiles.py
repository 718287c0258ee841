"""Matrix products in tiles of fixed numbers of rows, so that a row's bits do not depend on the batch it comes
in.

On a CPU a product of 128 rows at a time was measured to give every row the same bits. Other numbers of rows
are used where this processor's products agree with those, which is tried out when such a number first occurs:
fewer products are faster, and small tiles waste less on padding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

TILE = 128  # rows of one matrix product
_LARGE = (1024, 512, 256)
LEAST = 16  # rows of the smallest tile
_STEP, _MOST = 8, 264  # the last rows have tiles of multiples of the step, up to the most
_TRIED = 1024  # rows that a number of rows is tried on

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
    """Splits rows into tiles whose products have the bits of tiles of :data:`TILE` rows here.

    probe: draws rows (n, width) that the products are tried on.
    """

    def __init__(self, products: Products, probe: Callable[[int], torch.Tensor]):
        self._products, self._probe = products, probe
        self._agrees = {TILE: True}
        self._expected: tuple[torch.Tensor, torch.Tensor] | None = None  # rows, and their products by TILE
        self._splits: dict[int, list[int]] = {}

    def padding(self, n: int) -> int:
        """How many rows n rows lack to whole tiles."""
        return sum(self._split(n)) - n

    def map(self, products: Products, rows: torch.Tensor) -> torch.Tensor:
        """The products of whole tiles: rows (n, ...) -> (n, ...), where n lacks no padding; n may be 0."""
        sizes = self._split(len(rows))
        if len(sizes) < 2:
            return products(rows)
        return torch.cat([products(tile) for tile in torch.split(rows, sizes)])

    def _split(self, n: int) -> list[int]:
        """Tiles for n rows, the largest first; only the last one may lack some. The padded number has the
        same tiles.
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
        """Whether tiles of this many rows have the bits of tiles of :data:`TILE` rows."""
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
