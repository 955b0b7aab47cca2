"""The one histogram layout of the dashboard: four buckets to each doubling of the duration.

Bucket `i` (1 to 120) holds durations above `2**((i-1)/4 - 20)` and up to `2**(i/4 - 20)` seconds,
so from about a microsecond to 1024 seconds; bucket 0 what is shorter, bucket 121 what is longer. A
bucket is 19 % wide, which bounds the error of a percentile. The one from 4.76 to 5.66 s makes the
resolver's five-second retry a bucket of its own.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

PER_DOUBLING = 4
LOWEST_EXPONENT = -20
BUCKETS = 120
OVERFLOW = BUCKETS + 1
# The bucket that 5 s and the one that 10 s fall in: the resolver's first and second retry.
FIVE_SECONDS = math.ceil(PER_DOUBLING * (math.log2(5.0) - LOWEST_EXPONENT))
TEN_SECONDS = math.ceil(PER_DOUBLING * (math.log2(10.0) - LOWEST_EXPONENT))

_log2 = math.log2
_LOWEST = 2.0**LOWEST_EXPONENT

# The longest duration of each bucket but the last, nanoseconds: ingest has integers.
_BOUNDS_NS: Final = tuple(
    math.floor(2.0 ** (i / PER_DOUBLING + LOWEST_EXPONENT) * 1e9) for i in range(BUCKETS + 1)
)


def bucket_of(seconds: float) -> int:
    """The bucket of a duration in seconds; zero and negative durations are in bucket 0."""
    if seconds <= _LOWEST:
        return 0
    if seconds == math.inf:
        return OVERFLOW
    return min(OVERFLOW, math.ceil(PER_DOUBLING * (_log2(seconds) - LOWEST_EXPONENT) - 1e-9))


# The bucket of a duration in nanoseconds. Called once a span: no frame of Python.
bucket_of_ns: Final[Callable[[int], int]] = partial(bisect_left, _BOUNDS_NS)


def upper_bound(bucket: int) -> float:
    """The longest duration in the bucket, seconds; infinity for the last."""
    if bucket >= OVERFLOW:
        return math.inf
    return float(2.0 ** (bucket / PER_DOUBLING + LOWEST_EXPONENT))


def lower_bound(bucket: int) -> float:
    """The duration, seconds, above which the bucket begins; 0 for the first."""
    return 0.0 if bucket <= 0 else upper_bound(bucket - 1)


def percentile(counts: Mapping[int, float], quantile: float) -> float | None:
    """The quantile (0 to 1) in seconds, linear inside its bucket; None without observations.

    For the overflow bucket its lower bound is returned: the value is at least that.
    """
    total = sum(counts.values())
    if total <= 0:
        return None
    rank = quantile * total
    seen = 0.0
    last = 0
    for bucket in sorted(counts):
        count = counts[bucket]
        if count <= 0:
            continue
        last = bucket
        if seen + count >= rank:
            low = lower_bound(bucket)
            if bucket >= OVERFLOW:
                return low
            share = max(0.0, (rank - seen) / count)
            return low + (upper_bound(bucket) - low) * share
        seen += count
    return lower_bound(last) if last >= OVERFLOW else upper_bound(last)


def spread(
    bounds: Sequence[float], counts: Sequence[float], scale: float = 1.0
) -> dict[int, float]:
    """An explicit-bucket histogram in this layout.

    `bounds` are the upper bounds of all buckets but the last, in units of `scale` seconds; `counts`
    has one entry more. The observations of a bucket are taken as evenly spread over it, which is
    what interpolating a percentile assumes; the lowest is taken to begin at a sixteenth of its
    bound. What is above the last bound is put just above it.

    Raises ValueError when the lengths do not match.
    """
    if len(counts) != len(bounds) + 1:
        raise ValueError(
            f"{len(counts)} bucket counts for {len(bounds)} bounds: one more is needed"
        )
    return _spread_ranges(_explicit_ranges(bounds, counts, scale))


def spread_exponential(
    scale: int, zero_count: float, offset: int, counts: Sequence[float], unit: float = 1.0
) -> dict[int, float]:
    """The positive half of an exponential histogram in this layout (OTLP, data model)."""

    def ranges() -> Iterable[tuple[float, float, float]]:
        if zero_count:
            yield 0.0, 0.0, zero_count
        for i, count in enumerate(counts):
            if count:
                exponent = (offset + i) * 2.0**-scale
                width = 2.0**-scale
                yield _power(exponent) * unit, _power(exponent + width) * unit, count

    return _spread_ranges(ranges())


def _power(exponent: float) -> float:
    return float(2.0 ** max(-1000.0, min(1000.0, exponent)))


def _explicit_ranges(
    bounds: Sequence[float], counts: Sequence[float], scale: float
) -> Iterable[tuple[float, float, float]]:
    low = bounds[0] * scale / 16 if bounds and bounds[0] > 0 else 0.0
    for bound, count in zip(bounds, counts, strict=False):
        high = max(low, bound * scale)
        if count:
            yield low, high, count
        low = high
    if counts[-1]:
        yield low, low, counts[-1]


def _spread_ranges(ranges: Iterable[tuple[float, float, float]]) -> dict[int, float]:
    out: dict[int, float] = {}
    for low, high, count in ranges:
        first, last = bucket_of(low), bucket_of(high)
        if high <= low or first == last:
            # An overflow bucket has no width: its observations lie above its lower bound.
            bucket = first if high > low else min(OVERFLOW, first + (1 if low > 0 else 0))
            out[bucket] = out.get(bucket, 0.0) + count
            continue
        for bucket in range(first, last + 1):
            start, end = max(low, lower_bound(bucket)), min(high, upper_bound(bucket))
            if end > start:
                out[bucket] = out.get(bucket, 0.0) + count * (end - start) / (high - low)
    return out
