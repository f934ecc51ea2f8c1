"""Random numbers that belong to a request and an item, whoever proposes the item.

A candidate then meets the same luck under every generator, so that two arms differ by their candidates alone (common
random numbers). The numbers come from a hash, so a pair is drawn without drawing the others.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Luck:
    """The luck of one run of the market; another ``seed`` is other luck."""

    seed: int

    def uniform(self, purpose: str, request: Words, number: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return a number in (0, 1) for each pair [pairs], uniform, independent between purposes and pairs.

        Args:
            request: keys of requests [pairs].
            number: of the item, or of another thing that the purpose is about [pairs].
        """
        return _fraction(self._words(purpose, request, number) >> np.uint64(11), 53)

    def normal(self, purpose: str, request: Words, number: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return a standard normal number for each pair [pairs]; arguments as ``uniform``.

        Source: Box and Muller, 1958, "A note on the generation of random normal deviates".
        """
        words = self._words(purpose, request, number)
        radius = np.sqrt(-2 * np.log(_fraction(words >> np.uint64(32), 32)))
        drawn: NDArray[np.float64] = radius * np.cos(2 * np.pi * _fraction(words & np.uint64(2**32 - 1), 32))
        return drawn

    def _words(self, purpose: str, request: Words, number: NDArray[np.int64]) -> Words:
        start = np.array([zlib.crc32(purpose.encode()) << 32 | self.seed % 2**32], np.uint64)
        return _mix(_mix(request ^ _mix(start)) + number.astype(np.uint64))


def _fraction(words: Words, bits: int) -> NDArray[np.float64]:
    """Return the words of so many bits as fractions in (0, 1)."""
    return (words.astype(np.float64) + 0.5) * 2.0**-bits


def _mix(words: Words) -> Words:
    """Return a bijection of the words in which each bit of the input changes half of the output's.

    Source: the finaliser of splitmix64; Steele, Lea and Flood, 2014, "Fast splittable pseudorandom number generators".
    """
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
