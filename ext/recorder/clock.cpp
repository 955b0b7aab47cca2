#include "recorder/clock.hpp"

#include <time.h>

#include <atomic>

#include "config.hpp"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

namespace tracesock::recorder {
namespace {

std::uint64_t read_clock(clockid_t clock) noexcept {
    timespec now{};
    ::clock_gettime(clock, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(now.tv_nsec);
}

// One point at which both clocks were read.
struct Point {
    std::uint64_t ticks = 0;
    std::uint64_t monotonic = 0;
    std::uint64_t realtime = 0;
};

Point read_point() noexcept {
    // The reading between the closest two reads of the counter: the thread was not interrupted.
    Point best;
    std::uint64_t narrowest = ~std::uint64_t{0};
    for (int i = 0; i < 5; ++i) {
        const std::uint64_t before = Clock::ticks();
        const std::uint64_t monotonic = read_clock(CLOCK_MONOTONIC);
        const std::uint64_t realtime = read_clock(CLOCK_REALTIME);
        const std::uint64_t after = Clock::ticks();
        if (after - before < narrowest) {
            narrowest = after - before;
            best = {before + (after - before) / 2, monotonic, realtime};
        }
    }
    return best;
}

bool has_invariant_counter() noexcept {
#if (defined(__x86_64__) || defined(__i386__)) && TRACESOCK_LINUX
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid(0x80000007, &a, &b, &c, &d) != 0 && (d & (1u << 8)) != 0;
#else
    return false;
#endif
}

Point first;
// Written by who drains, read by who tells a time: the scale in 2^-32 ns a tick, and the point to
// count from, whose two halves belong together. Odd `version`: they are being written.
std::atomic<std::uint64_t> scale{std::uint64_t{1} << 32};
std::atomic<unsigned> version{0};
std::atomic<std::uint64_t> base_ticks{0};
std::atomic<std::uint64_t> base_realtime{0};

std::uint64_t scaled(std::uint64_t ticks) noexcept {
    const auto product =
        static_cast<unsigned __int128>(ticks) * scale.load(std::memory_order_relaxed);
    return static_cast<std::uint64_t>(product >> 32);
}

}  // namespace

std::uint64_t Clock::monotonic() noexcept {
    return read_clock(CLOCK_MONOTONIC);
}

void Clock::start() noexcept {
    if (first.monotonic != 0) return;
    counter_ = has_invariant_counter();
    first = read_point();
    if (counter_) {
        // A first scale from two milliseconds; each calibration refines it over a longer span.
        timespec pause{0, 2'000'000};
        ::nanosleep(&pause, nullptr);
    }
    calibrate();
}

void Clock::calibrate() noexcept {
    const Point now = read_point();
    if (counter_ && now.ticks > first.ticks) {
        const auto elapsed = static_cast<unsigned __int128>(now.monotonic - first.monotonic) << 32;
        scale.store(static_cast<std::uint64_t>(elapsed / (now.ticks - first.ticks)),
                    std::memory_order_relaxed);
    }
    // Another thread that is at it has just as good a point.
    unsigned before = version.load(std::memory_order_relaxed);
    if ((before & 1) != 0 ||
        !version.compare_exchange_strong(before, before + 1, std::memory_order_acq_rel))
        return;
    base_ticks.store(now.ticks, std::memory_order_release);
    base_realtime.store(now.realtime, std::memory_order_release);
    version.store(before + 2, std::memory_order_release);
}

void Clock::after_fork() noexcept {
    // A thread that is not here may have been at it.
    version.fetch_and(~1u, std::memory_order_relaxed);
    calibrate();
}

std::uint64_t Clock::duration(std::uint64_t ticks) noexcept {
    return counter_ ? scaled(ticks) : ticks;
}

std::uint64_t Clock::unix_time(std::uint64_t ticks) noexcept {
    std::uint64_t base = 0, realtime = 0;
    unsigned before = 0;
    do {
        before = version.load(std::memory_order_acquire);
        base = base_ticks.load(std::memory_order_acquire);
        realtime = base_realtime.load(std::memory_order_acquire);
    } while ((before & 1) != 0 || version.load(std::memory_order_relaxed) != before);
    return ticks <= base ? realtime - duration(base - ticks) : realtime + duration(ticks - base);
}

}  // namespace tracesock::recorder
