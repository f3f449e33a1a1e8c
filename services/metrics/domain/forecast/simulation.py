"""From chances to a distribution: a few thousand possible ends of the period.

Why simulated and not convolved: deals of one stage share the uncertainty of its win rate, and new
deals share that of their number, so that they aren't independent; and a convolution would need
amounts of any size on one grid. With fixed random numbers the answer is reproducible all the same,
and two scenarios meet the same luck, so that their difference is of their making (common random
numbers: Glasserman, "Monte Carlo Methods in Financial Engineering", 2003, section 7.1). Each random
number keeps its meaning in every scenario: what is won with a chance is won with a higher one, too,
and therefore no quantile falls when a chance rises.
"""

from dataclasses import dataclass

import numpy as np

from services.metrics.domain.forecast.deals import Bools, Floats, Ints

DRAWS = 4_000  # the place of P10 is then known to half a percent
DEALS_AT_ONCE = 500  # 4 bytes for each and each draw: 8 MB
NEW_AT_ONCE = 64
ONE_BY_ONE = 4_096  # deals of a draw whose sizes are drawn; the sum of further ones is near normal
SIZE_STEPS = 2**16  # the sizes' distribution in equal steps of probability


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospects:
    """What may still be won.

    `group` says which deals share the uncertainty `doubt` (relative standard deviation of their
    chance). `size` is 0 where `unknown`: those and `new` deals take sizes from `sizes` by
    `weights`. `new` is the expected number of won new deals, `new_doubt` its relative variance,
    `size_doubt` that of the mean of `sizes`: it, too, is only known from so many deals.
    """

    chance: Floats
    size: Floats
    unknown: Bools
    group: Ints
    doubt: Floats
    new: float
    new_doubt: float
    sizes: Floats
    weights: Floats
    size_doubt: float


def draw(prospects: Prospects, seed: bytes, draws: int = DRAWS) -> Floats:
    """What is won of these in each of `draws` possible ends."""
    luck, doubts, rates, means, of_new, of_unsized = (
        np.random.default_rng(stream)
        for stream in np.random.SeedSequence(int.from_bytes(seed)).spawn(6)
    )
    groups, group = np.unique(prospects.group, return_inverse=True)
    # Factors of mean 1 that are never negative.
    sigma = np.sqrt(np.log1p(prospects.doubt[groups] ** 2))[:, None]
    doubt = np.exp(sigma * doubts.standard_normal((len(sigma), draws)) - sigma**2 / 2)
    chance, doubt = prospects.chance.astype(np.float32), doubt.astype(np.float32)
    total = np.zeros(draws)
    unsized = np.zeros(draws, np.int64)
    for begin in range(0, len(chance), DEALS_AT_ONCE):
        part = slice(begin, begin + DEALS_AT_ONCE)
        drawn = luck.random((len(chance[part]), draws), np.float32)
        won = drawn < chance[part, None] * doubt[group[part]]
        total += prospects.size[part] @ won.astype(np.float64)
        unsized += won[prospects.unknown[part]].sum(axis=0)
    if not len(prospects.sizes):
        return total
    places = (np.arange(SIZE_STEPS) + 0.5) / SIZE_STEPS
    limits = np.cumsum(prospects.weights) / prospects.weights.sum()
    sizes = prospects.sizes[np.minimum(np.searchsorted(limits, places), len(limits) - 1)]
    arriving = _arriving(prospects.new * _factors(prospects.new_doubt, rates, draws), sizes, of_new)
    sized = arriving + _taken(unsized, sizes, of_unsized)
    return total + sized * _factors(prospects.size_doubt, means, draws)


def _factors(variance: float, stream: np.random.Generator, draws: int) -> Floats:
    """Numbers of mean 1 and this variance, never negative."""
    return stream.gamma(1 / variance, variance, draws) if variance > 0 else np.ones(draws)


def _arriving(expected: Floats, sizes: Floats, stream: np.random.Generator) -> Floats:
    """The sizes of Poisson numbers of deals: those that arrive before `expected` on a clock."""
    draws = len(expected)
    total, clock = np.zeros(draws), np.zeros(draws)
    limit = min(float(expected.max()), ONE_BY_ONE)
    soon = np.minimum(expected, ONE_BY_ONE)
    beyond = stream.standard_normal(draws)
    while clock.min() < limit:
        at = clock + np.cumsum(stream.standard_exponential((NEW_AT_ONCE, draws)), axis=0)
        size = sizes[stream.integers(0, SIZE_STEPS, at.shape, np.uint16)]
        total += np.where(at <= soon, size, 0).sum(axis=0)
        clock = at[-1]
    further = expected - soon
    spread = np.sqrt(further * np.square(sizes).mean())
    total += np.maximum(further * sizes.mean() + spread * beyond, 0)
    return total


def _taken(numbers: Ints, sizes: Floats, stream: np.random.Generator) -> Floats:
    """The sizes of these numbers of deals, read from the front of an endless row."""
    draws = len(numbers)
    total = np.zeros(draws)
    beyond = stream.standard_normal(draws)
    for begin in range(0, min(int(numbers.max()), ONE_BY_ONE), NEW_AT_ONCE):
        position = begin + np.arange(NEW_AT_ONCE)[:, None]
        size = sizes[stream.integers(0, SIZE_STEPS, (NEW_AT_ONCE, draws), np.uint16)]
        total += np.where(position < np.minimum(numbers, ONE_BY_ONE), size, 0).sum(axis=0)
    further = np.maximum(numbers - ONE_BY_ONE, 0)
    spread = np.sqrt(further) * sizes.std()
    total += np.maximum(further * sizes.mean() + spread * beyond, 0)
    return total
