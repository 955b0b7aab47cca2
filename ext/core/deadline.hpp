// Time limits: nanoseconds, negative for "no limit".
#pragma once

#include <cstdint>
#include <limits>

#include "core/syscalls.hpp"

namespace tracesock {

inline constexpr std::int64_t no_timeout = -1;

// The clock is read when the limit is first needed, which a call that does not wait never does.
class Deadline {
  public:
    explicit Deadline(std::int64_t timeout) noexcept : timeout_(timeout) {}

    bool limited() const noexcept { return timeout_ >= 0; }

    void start() noexcept {
        if (limited() && !started_) {
            const std::int64_t now = sys::monotonic();
            constexpr std::int64_t latest = std::numeric_limits<std::int64_t>::max();
            end_ = timeout_ > latest - now ? latest : now + timeout_;
            started_ = true;
        }
    }

    // Nanoseconds left; negative where there is no limit. 0: the limit has passed.
    std::int64_t remaining() noexcept {
        if (!limited()) return no_timeout;
        if (!started_) {
            start();
            return timeout_;
        }
        const std::int64_t left = end_ - sys::monotonic();
        return left > 0 ? left : 0;
    }

    bool expired() noexcept { return started_ && remaining() == 0; }

  private:
    std::int64_t timeout_;
    std::int64_t end_ = 0;
    bool started_ = false;
};

}  // namespace tracesock
