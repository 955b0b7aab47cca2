// How much of a buffer a receive has filled.
#pragma once

#include <algorithm>

#include "socket/state.hpp"

namespace tracesock {

inline constexpr int sctp = 132;  // IPPROTO_SCTP

// With MSG_TRUNC the kernel reports the length of the datagram, which may exceed the buffer, and on
// a TCP stream (tcp(7); SCTP's is none) it throws the bytes away and writes none. No byte that it
// did not write is returned.
inline Py_ssize_t written(const Socket& socket, int flags, std::int64_t count,
                          Py_ssize_t capacity) noexcept {
    const bool discarded = (flags & MSG_TRUNC) != 0 && socket.type == SOCK_STREAM &&
                           (socket.family == AF_INET || socket.family == AF_INET6) &&
                           socket.protocol != sctp;
    return discarded ? 0 : static_cast<Py_ssize_t>(std::min<std::int64_t>(count, capacity));
}

}  // namespace tracesock
