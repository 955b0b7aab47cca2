// Time for records: ticks that cost little to take, and their meaning in nanoseconds.
//
// Where the time-stamp counter is invariant a tick is one of its counts, elsewhere a nanosecond of
// CLOCK_MONOTONIC. Ticks are taken on the caller's path, converted only by the drain.
#pragma once

#include <cstdint>

namespace tracesock::recorder {

class Clock {
  public:
    // Decides which counter serves; called once, before the first record.
    static void start() noexcept;

    static std::uint64_t ticks() noexcept {
#if defined(__x86_64__) || defined(__i386__)
        if (counter_) return __builtin_ia32_rdtsc();
#endif
        return monotonic();
    }

    // Nanoseconds that `ticks` counts are.
    static std::uint64_t duration(std::uint64_t ticks) noexcept;
    // Nanoseconds since the Unix epoch at which the counter stood at `ticks`.
    static std::uint64_t unix_time(std::uint64_t ticks) noexcept;
    // Compares the counter with the system's clocks again; the drain calls it before it converts.
    static void calibrate() noexcept;
    // In a forked child, before anything else here.
    static void after_fork() noexcept;
    // Whether the time-stamp counter serves.
    static bool uses_counter() noexcept { return counter_; }

  private:
    static std::uint64_t monotonic() noexcept;

    static inline bool counter_ = false;
};

}  // namespace tracesock::recorder
