// One call on a socket: which descriptor, how it is tried, and what becomes of its error.
#pragma once

#include "audit/audit.hpp"
#include "recorder/recorder.hpp"
#include "socket/state.hpp"

namespace tracesock {

// How long a call may be expected to take once the kernel can serve it.
enum class Length : std::uint8_t { brief, lengthy };

// The OSError of a send or receive that the kernel refused; always null.
inline PyObject* raise_failed(Socket& socket, int error) noexcept {
    recorder::failed(socket, error);
    return set_os_error(error);
}

// `op(fd, flags)` for a call that takes message flags. MSG_DONTWAIT lets it be tried with the lock
// held, whatever mode the descriptor is in; only when it would have to wait is the lock given up.
// `whole`: MSG_DONTWAIT would change what the call does, not only whether it waits: with
// MSG_WAITALL it would take less, with MSG_FASTOPEN leave a connection half made. `stats`: what
// telemetry wants to know of the call, or null. `tried`: the caller has tried already, and was told
// to wait.
template <class Op>
bool transfer(Socket& socket, sys::Direction direction, Deadline& deadline, Length length,
              bool whole, Op&& op, std::int64_t& result, recorder::CallStats* stats = nullptr,
              bool tried = false) noexcept {
    const bool blocking = !deadline.limited();
    const bool waiting = socket.timeout.load(std::memory_order_relaxed) > 0;
    if (may_hold_lock && length == Length::brief && !(whole && blocking) && !tried) {
        const sys::Descriptor fd = socket.handle.get();
        result = op(fd, MSG_DONTWAIT);
        if (stats != nullptr) [[unlikely]]
            ++stats->calls;
        if (result >= 0) {
            if (direction == sys::Direction::write) audit::moved(socket, true, result);
            return true;
        }
        if (!told_to_wait(errno)) {
            if (stats != nullptr) stats->error = static_cast<std::int16_t>(errno);
            raise_failed(socket, errno);
            return false;
        }
    }
    const bool brief = may_hold_lock && length == Length::brief;
    std::uint64_t stalled_since = stats != nullptr && brief ? recorder::Clock::ticks() : 0;
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
        if (stats == nullptr) [[likely]]
            return op(fd, flags);
        // What blocks inside the kernel is tried first, to tell work from waiting.
        if (blocking && stats->resumes && stalled_since == 0) {
            ++stats->calls;
            const std::int64_t value = op(fd, MSG_DONTWAIT);
            if (value >= 0 || !would_block(errno)) return value;
            stalled_since = recorder::Clock::ticks();
        }
        ++stats->calls;
        const std::int64_t value = op(fd, flags);
        if (value < 0 && would_block(errno) && stalled_since == 0)
            stalled_since = recorder::Clock::ticks();
        return value;
    };
    const Status status =
        retry(runtime, fd, direction, deadline,
              waiting && brief ? Attempt::with_lock : Attempt::without_lock,
              waiting && brief ? First::wait : First::attempt, attempt, result, error);
    if (stats != nullptr) {
        // Where nothing waits, EAGAIN is the answer, and no error.
        const bool refused = status == Status::failed && would_block(error);
        if (stalled_since != 0 && !refused)
            stats->stalled += recorder::Clock::ticks() - stalled_since;
        if (status != Status::done && !refused) stats->error = recorder::code_of(status, error);
        stats->refused = refused;
    }
    if (status == Status::done) {
        if (direction == sys::Direction::write) audit::moved(socket, true, result);
        return true;
    }
    if (status == Status::failed) recorder::failed(socket, error);
    raise_status(status, error);
    return false;
}

// The deadline of a call that begins now.
inline Deadline deadline_of(const Socket& socket) noexcept {
    return Deadline(socket.timeout.load(std::memory_order_relaxed));
}

}  // namespace tracesock
