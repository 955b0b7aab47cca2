// Explicit-bucket histograms with one writer: counts, sum, smallest and largest.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>

namespace tracesock::recorder {

// Upper bounds in nanoseconds of `tracesock.connect.duration`, which send and stall durations share
// (TELEMETRY.md); a value equal to a bound falls into its bucket.
inline constexpr std::array<std::uint64_t, 23> call_bounds{
    100'000,       250'000,       500'000,        1'000'000,      2'500'000,     5'000'000,
    10'000'000,    25'000'000,    50'000'000,     75'000'000,     100'000'000,   250'000'000,
    500'000'000,   750'000'000,   1'000'000'000,  2'500'000'000,  3'000'000'000, 5'000'000'000,
    7'000'000'000, 7'500'000'000, 10'000'000'000, 15'000'000'000, 31'000'000'000};

struct Histogram {
    std::array<std::atomic<std::uint64_t>, call_bounds.size() + 1> counts{};
    std::atomic<std::uint64_t> sum{0};  // nanoseconds
    std::atomic<std::uint64_t> smallest{~std::uint64_t{0}};
    std::atomic<std::uint64_t> largest{0};

    void record(std::uint64_t nanoseconds) noexcept {
        // Most calls are shorter than the first bound.
        std::size_t index = 0;
        if (nanoseconds > call_bounds[0])
            index = static_cast<std::size_t>(
                std::lower_bound(call_bounds.begin(), call_bounds.end(), nanoseconds) -
                call_bounds.begin());
        add(counts[index], 1);
        add(sum, nanoseconds);
        if (nanoseconds < smallest.load(std::memory_order_relaxed))
            smallest.store(nanoseconds, std::memory_order_relaxed);
        if (nanoseconds > largest.load(std::memory_order_relaxed))
            largest.store(nanoseconds, std::memory_order_relaxed);
    }

    // Takes another's counts over; both have no writer meanwhile.
    void merge(const Histogram& other) noexcept {
        for (std::size_t i = 0; i < counts.size(); ++i)
            add(counts[i], other.counts[i].load(std::memory_order_relaxed));
        add(sum, other.sum.load(std::memory_order_relaxed));
        smallest.store(std::min(smallest.load(), other.smallest.load()));
        largest.store(std::max(largest.load(), other.largest.load()));
    }

    // One writer: no locked instruction is needed.
    static void add(std::atomic<std::uint64_t>& counter, std::uint64_t value) noexcept {
        counter.store(counter.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
    }
};

// Several threads' histograms together, in plain numbers.
struct HistogramSum {
    std::array<std::uint64_t, call_bounds.size() + 1> counts{};
    std::uint64_t sum = 0;
    std::uint64_t smallest = ~std::uint64_t{0};
    std::uint64_t largest = 0;

    void add(const Histogram& histogram) noexcept {
        for (std::size_t i = 0; i < counts.size(); ++i)
            counts[i] += histogram.counts[i].load(std::memory_order_relaxed);
        sum += histogram.sum.load(std::memory_order_relaxed);
        smallest = std::min(smallest, histogram.smallest.load(std::memory_order_relaxed));
        largest = std::max(largest, histogram.largest.load(std::memory_order_relaxed));
    }
};

}  // namespace tracesock::recorder
