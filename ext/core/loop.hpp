// The one wait-and-retry loop, under every call that can block: deadline, EINTR by PEP 475,
// signals, spurious wake-ups, and the runtime's lock, which is given up only around what can block.
//
// `Runtime` stands for the interpreter, so that this header needs none:
//   unlocked(f)   runs f without the interpreter's lock and returns its result
//   signals()     runs pending signal handlers; false when one raised
//   waiting()     whether the socket has a timeout above zero, now (another thread may change it)
//   holds(fd)     whether the descriptor is still the socket's
#pragma once

#include <cerrno>
#include <cstdint>

#include "core/deadline.hpp"
#include "core/syscalls.hpp"

namespace tracesock {

enum class Status : std::uint8_t {
    done,
    failed,       // `error` holds the errno
    timed_out,    // the deadline passed
    interrupted,  // a signal handler raised
};

inline bool would_block(int error) noexcept {
    return error == EAGAIN || error == EWOULDBLOCK;
}

// Nothing was done, and the call may be made again, after a wait.
inline bool told_to_wait(int error) noexcept {
    return would_block(error) || error == EINTR;
}

// How a call may be tried before waiting.
enum class Attempt : std::uint8_t {
    with_lock,     // `op` never blocks as called here: try it with the lock held
    without_lock,  // `op` may block or is long: give up the lock around it
};

// op() returns >= 0, or -1 with errno.
template <class Runtime, class Op>
Status attempt(Runtime& runtime, Attempt how, Op& op, std::int64_t& result, int& error) {
    for (;;) {
        const auto call = [&]() noexcept {
            const std::int64_t value = op();
            error = value < 0 ? errno : 0;
            return value;
        };
        result = how == Attempt::with_lock ? call() : runtime.unlocked(call);
        if (result >= 0) return Status::done;
        if (error != EINTR) return Status::failed;
        if (!runtime.signals()) return Status::interrupted;
    }
}

// Waits until the descriptor is ready: done, timed_out, interrupted or failed.
template <class Runtime>
Status wait_ready(Runtime& runtime, sys::Descriptor fd, sys::Direction direction,
                  Deadline& deadline, int& error) {
    // Nothing to wait for: the call itself says what is wrong with a closed socket.
    if (fd == sys::invalid) return Status::done;
    deadline.start();
    for (;;) {
        // Closed by another thread, or by the handler of a signal that ended the last wait.
        if (!runtime.holds(fd)) {
            error = EBADF;
            return Status::failed;
        }
        const std::int64_t left = deadline.remaining();
        const int ready = runtime.unlocked([&]() noexcept {
            const int value = sys::wait(fd, direction, left);
            error = value < 0 ? errno : 0;
            return value;
        });
        if (ready > 0) return Status::done;
        if (ready == 0) {
            // poll(2) is limited to INT_MAX milliseconds: a longer limit waits again.
            if (deadline.limited() && deadline.remaining() > 0) continue;
            return Status::timed_out;
        }
        if (error != EINTR) return Status::failed;
        if (!runtime.signals()) return Status::interrupted;
        if (deadline.limited() && deadline.remaining() == 0) return Status::timed_out;
    }
}

// Whether to wait before the first try. A call that would block if the descriptor were not really
// non-blocking (its mode is shared with every duplicate), and cannot be told not to, waits first.
enum class First : std::uint8_t { attempt, wait };

// `op` until it is done: tried, and waited for while the socket has a timeout.
template <class Runtime, class Op>
Status retry(Runtime& runtime, sys::Descriptor fd, sys::Direction direction, Deadline& deadline,
             Attempt how, First first, Op& op, std::int64_t& result, int& error) {
    const auto wait = [&] {
        const Status status = wait_ready(runtime, fd, direction, deadline, error);
        if (status != Status::timed_out || runtime.holds(fd)) return status;
        // Closed meanwhile: poll(2) says so at its end, where the descriptor is gone.
        error = EBADF;
        return Status::failed;
    };
    if (first == First::wait && deadline.limited()) {
        const Status status = wait();
        if (status != Status::done) return status;
    }
    for (;;) {
        Status status = attempt(runtime, how, op, result, error);
        if (status != Status::failed || !would_block(error) || !runtime.waiting()) return status;
        status = wait();
        if (status != Status::done) return status;
    }
}

}  // namespace tracesock
