// One call on a socket: which descriptor, how it is tried, and what becomes of its error.
#pragma once

#include "socket/state.hpp"

namespace tracesock {

// How long a call may be expected to take once the kernel can serve it.
enum class Length : std::uint8_t { brief, lengthy };

// `op(fd, flags)` for a call that takes message flags. MSG_DONTWAIT lets it be tried with the lock
// held, whatever mode the descriptor is in; only when it would have to wait is the lock given up.
// `whole`: without MSG_DONTWAIT the call would wait for more than is there now (MSG_WAITALL).
template <class Op>
bool transfer(Socket& socket, sys::Direction direction, Deadline& deadline, Length length,
              bool whole, Op&& op, std::int64_t& result) noexcept {
    const bool blocking = !deadline.limited();
    const bool waiting = socket.timeout.load(std::memory_order_relaxed) > 0;
    if (may_hold_lock && length == Length::brief && !(whole && blocking)) {
        const sys::Descriptor fd = socket.handle.get();
        result = op(fd, MSG_DONTWAIT);
        if (result >= 0) return true;
        if (!would_block(errno) && errno != EINTR) {
            set_os_error();
            return false;
        }
    }
    Runtime runtime(socket);
    SharedHandle::Lease lease(socket.handle);
    const sys::Descriptor fd = lease.get();
    int error = 0;
    // In timeout mode the answer must come now, whoever shares the descriptor's mode. Otherwise the
    // descriptor's own mode decides: it blocks, or says EAGAIN.
    const int flags = waiting ? MSG_DONTWAIT : 0;
    const auto attempt = [&]() noexcept -> std::int64_t {
        // Closed by another thread while this one waited: not the descriptor's to read any more.
        if (socket.handle.get() != fd) {
            errno = EBADF;
            return -1;
        }
        return op(fd, flags);
    };
    const bool tried = may_hold_lock && length == Length::brief;
    const Status status =
        retry(runtime, fd, direction, deadline,
              waiting && tried ? Attempt::with_lock : Attempt::without_lock,
              waiting && tried ? First::wait : First::attempt, attempt, result, error);
    if (status == Status::done) return true;
    raise_status(status, error);
    return false;
}

// The deadline of a call that begins now.
inline Deadline deadline_of(const Socket& socket) noexcept {
    return Deadline(socket.timeout.load(std::memory_order_relaxed));
}

}  // namespace tracesock
