"""The histogram layout: where durations go, and what comes out as percentiles."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracesock.dashboard import histogram
from tracesock.dashboard.ingest.slots import pack, unpack_into


@given(st.floats(min_value=0, max_value=5000, allow_nan=False))
def test_a_duration_lies_within_its_bucket(seconds: float) -> None:
    bucket = histogram.bucket_of(seconds)
    assert histogram.lower_bound(bucket) <= seconds * (1 + 1e-9)
    assert seconds <= histogram.upper_bound(bucket) * (1 + 1e-9)


@given(st.integers(min_value=0, max_value=10**13))
def test_nanoseconds_and_seconds_agree(nanoseconds: int) -> None:
    of_ns = histogram.bucket_of_ns(nanoseconds)
    assert abs(of_ns - histogram.bucket_of(nanoseconds / 1e9)) <= 1
    low, high = histogram.lower_bound(of_ns), histogram.upper_bound(of_ns)
    assert low * (1 - 1e-6) <= nanoseconds / 1e9 <= high * (1 + 1e-6)


def test_five_seconds_have_a_bucket_of_their_own() -> None:
    for seconds in (4.8, 5.0, 5.005, 5.5):
        assert histogram.bucket_of(seconds) == histogram.FIVE_SECONDS
    for seconds in (4.7, 5.7):
        assert histogram.bucket_of(seconds) != histogram.FIVE_SECONDS
    assert histogram.bucket_of(10.01) == histogram.TEN_SECONDS


@pytest.mark.parametrize("quantile", [0.5, 0.95, 0.99])
def test_percentiles_are_within_a_bucket_of_the_true_ones(quantile: float) -> None:
    rng = random.Random(3)
    values = sorted(rng.lognormvariate(-6, 1.3) for _ in range(5000))
    counts: dict[int, float] = {}
    for value in values:
        bucket = histogram.bucket_of(value)
        counts[bucket] = counts.get(bucket, 0) + 1
    true = values[math.ceil(quantile * len(values)) - 1]
    found = histogram.percentile(counts, quantile)
    assert found is not None
    assert true / 1.2 < found < true * 1.2


def test_percentile_of_nothing_and_of_what_is_too_long() -> None:
    assert histogram.percentile({}, 0.5) is None
    assert histogram.percentile({histogram.OVERFLOW: 3}, 0.5) == pytest.approx(1024)


def test_spreading_keeps_the_count_and_the_bounds() -> None:
    bounds = [0.005, 0.01, 0.1, 1.0]
    spread = histogram.spread(bounds, [10, 20, 30, 40, 5])
    assert sum(spread.values()) == pytest.approx(105)
    upto = sum(n for b, n in spread.items() if histogram.upper_bound(b) <= 0.1)
    assert 52 < upto <= 60.1
    assert max(spread) == histogram.bucket_of(1.0) + 1


def test_spreading_takes_milliseconds() -> None:
    assert histogram.spread([100.0], [4, 0], 1e-3) == pytest.approx(histogram.spread([0.1], [4, 0]))


def test_spreading_refuses_counts_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="2 bucket counts for 2 bounds"):
        histogram.spread([1.0, 2.0], [1, 2])


def test_exponential_histogram() -> None:
    # Scale 0, offset -2: (0.25, 0.5], (0.5, 1], (1, 2]
    spread = histogram.spread_exponential(0, 3, -2, [8, 4, 2])
    assert sum(spread.values()) == pytest.approx(17)
    assert spread[0] == 3
    below_half = sum(n for b, n in spread.items() if 0 < b <= histogram.bucket_of(0.5))
    assert below_half == pytest.approx(8)


@given(st.dictionaries(st.integers(0, 121), st.integers(1, 10**9), max_size=40))
def test_packed_buckets_come_back(buckets: dict[int, float]) -> None:
    out: dict[int, float] = {}
    unpack_into(out, pack(buckets))
    assert out == buckets
    # Texts written one after the other are the sum.
    unpack_into(out, pack({7: 1, 8: 0.5}) + pack({8: 2.0}) + pack({}))
    assert {b: n for b, n in out.items() if b not in (7, 8)} == {
        b: n for b, n in buckets.items() if b not in (7, 8)
    }
    assert (out[7], out[8]) == (buckets.get(7, 0) + 1, buckets.get(8, 0) + 2.5)
