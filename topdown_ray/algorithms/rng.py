"""Compute counter-based random numbers, a pure function of (seed, purpose, target, generation, slot, attempt,
gene).

There is no state and no order: a search draws the same numbers no matter what runs next to it and how many
attempts are drawn at once, on CPU and on CUDA. The key of a row is a 64-bit counter passed through the
SplitMix64 finaliser (Steele, Lea and Flood 2014, *Fast splittable pseudorandom number generators*). Its words
are 32-bit counters passed through a finaliser of two multiplications (after O'Neill's and Wellons'
*lowbias32*), with the other half of the key added in between, so that two rows have the same words only if
all 64 bits of their keys are equal. The idea is that of Salmon et al. 2011, *Parallel random numbers: as easy
as 1, 2, 3*.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Sequence

import torch

# purposes, each with its own stream
INITIAL, PARENTS, MUTATION, CROSSOVER, PRUNING, JOINT, UNIFORM = range(1, 8)

_WORDS_AHEAD = 1 << 18

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15


def _signed(value: int, bits: int = 64) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _mix(value: int) -> int:
    """The SplitMix64 finaliser on a Python integer."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _MASK
    return value ^ (value >> 31)


_M1, _M2 = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)
_W1, _W2 = _signed(0x7FEB352D, 32), _signed(0x846CA68B, 32)
_STEP = _signed(0x9E3779B9, 32)


def mix_tensor(value: torch.Tensor) -> torch.Tensor:
    """Apply the SplitMix64 finaliser to int64 in place. (torch shifts arithmetically, and the masks make the
    shifts logical.)
    """
    value.bitwise_xor_((value >> 30).bitwise_and_(2**34 - 1)).mul_(_M1)
    value.bitwise_xor_((value >> 27).bitwise_and_(2**37 - 1)).mul_(_M2)
    return value.bitwise_xor_((value >> 31).bitwise_and_(2**33 - 1))


class Draws:
    """The random numbers of S searches, named by their seeds and one common name (the space's)."""

    def __init__(self, seeds: Sequence[int], name: str = "", device: torch.device | str = "cpu"):
        salt = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        mixed = [_signed(_mix(_mix(seed * _GOLDEN & _MASK) ^ salt)) for seed in seeds]
        self.seeds = torch.tensor(mixed, device=device)  # int64 (S,)
        self._ahead: dict[int, tuple[tuple[int, ...], torch.Tensor]] = {}

    def part(self, index: torch.Tensor) -> Draws:
        """Return the draws of some of the searches: index int64 (n,)."""
        part = copy.copy(self)
        part.seeds, part._ahead = self.seeds.index_select(0, index), {}
        return part

    def stream(self, purpose: int, target: int, generation: int) -> torch.Tensor:
        """Return the key of one stream of every search: int64 (S,)."""
        return self._streams(purpose, target, generation, 1)[0]

    def _streams(self, purpose: int, target: int, generation: int, count: int) -> torch.Tensor:
        first = purpose << 48 ^ target << 32
        names = [_signed(_mix((first ^ generation + i) * _GOLDEN & _MASK)) for i in range(count)]
        return mix_tensor(torch.tensor(names, device=self.seeds.device)[:, None] ^ self.seeds)  # (count, S)

    def words(
        self, purpose: int, target: int, generation: int, n_slots: int, attempts: int, n: int
    ) -> torch.Tensor:
        """Return n words for the first attempts of every slot of every search: int32 (S * n_slots * attempts,
        n).

        Consecutive generations are computed together, as many as fit into a processor's cache, which needs
        fewer operations for the same numbers.
        """
        rows = len(self.seeds) * n_slots * attempts
        count = max(1, _WORDS_AHEAD // max(rows * n, 1))
        block, number = divmod(generation, count)
        name = (target, block, n_slots, attempts, n)
        if purpose not in self._ahead or self._ahead[purpose][0] != name:
            counters = self._streams(purpose, target, block * count, count)[:, :, None, None]
            counters = (
                counters
                + _arange(n_slots, self.seeds.device)[:, None]
                + (_arange(attempts, self.seeds.device) << 32)
            )
            self._ahead[purpose] = name, words(mix_tensor(counters).view(-1), n).view(count, rows, n)
        return self._ahead[purpose][1][number]


def slots(stream: torch.Tensor, n: int) -> torch.Tensor:
    """Return the counters of n slots of every search: stream int64 (S,) -> int64 (S*n,)."""
    return (stream[:, None] + _arange(n, stream.device)).view(-1)


def keys(slot: torch.Tensor, attempt: torch.Tensor | int) -> torch.Tensor:
    """Return the keys of single draws: counters of slots int64 (N,), attempts (N,) or one number -> int64
    (N,).
    """
    return mix_tensor(slot + (attempt << 32))


@functools.cache
def _arange(n: int, device: torch.device) -> torch.Tensor:
    return torch.arange(n, device=device)


@functools.cache
def _counters(n: int, device: torch.device) -> torch.Tensor:
    return torch.arange(1, n + 1, dtype=torch.int32, device=device).mul_(_STEP)


def words(key: torch.Tensor, n: int) -> torch.Tensor:
    """n random 32-bit words for every key: int64 (N,) -> int32 (N, n), all bits random."""
    halves = key.view(torch.int32).view(-1, 2)  # (N, 2)
    x = halves[:, :1] + _counters(n, key.device)  # (N, n)
    x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF)).mul_(_W1).add_(halves[:, 1:])
    x.bitwise_xor_((x >> 15).bitwise_and_(0x1FFFF)).mul_(_W2)
    return x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF))


def uniform(key: torch.Tensor, n: int) -> torch.Tensor:
    """Return n uniform numbers in [0, 1), in steps of at most 2^-24, for every key: int64 (N,) -> float32 (N,
    n).
    """
    return to_uniform(words(key, n))


def to_uniform(words: torch.Tensor) -> torch.Tensor:
    """Return words as numbers in [0, 1): int32 -> float32."""
    return (words & 0xFFFFFF).float().mul_(2.0**-24)
