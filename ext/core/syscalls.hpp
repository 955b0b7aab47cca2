// The socket calls of the platform, by one name each. No policy, no Python: -1 and errno.
#pragma once

#include <cstddef>
#include <cstdint>

#include "config.hpp"

#if TRACESOCK_WINDOWS
#include <winsock2.h>
#include <ws2tcpip.h>
// After the two above, which they need.
#include <afunix.h>
#include <iphlpapi.h>
#else
#include <arpa/inet.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#endif

namespace tracesock::sys {

using Descriptor = int;
inline constexpr Descriptor invalid = -1;

// The flag of send(2) that makes the connection first, which then may wait for it.
#ifdef MSG_FASTOPEN
inline constexpr int fast_open = MSG_FASTOPEN;
#else
inline constexpr int fast_open = 0;
#endif

enum class Direction : std::uint8_t { read, write, connect };

// socket(2), non-inheritable from birth (PEP 446).
Descriptor open(int family, int type, int protocol) noexcept;
// socketpair(2), non-inheritable from birth: 0, or -1 and errno.
int open_pair(int family, int type, int protocol, Descriptor pair[2]) noexcept;
// accept4(2) with SOCK_CLOEXEC; address may be null.
Descriptor accept(Descriptor fd, sockaddr* address, socklen_t* length) noexcept;
// fcntl(F_DUPFD_CLOEXEC).
Descriptor duplicate(Descriptor fd) noexcept;
// close(2), never retried; ECONNRESET is not an error (bpo-30319).
int close(Descriptor fd) noexcept;
int set_blocking(Descriptor fd, bool blocking) noexcept;
// poll(2) on one descriptor for at most `timeout` nanoseconds (< 0: without end, at most INT_MAX
// milliseconds): 1 ready, 0 timed out, -1 and errno.
int wait(Descriptor fd, Direction direction, std::int64_t timeout) noexcept;
int wait(Descriptor fd, short events, std::int64_t timeout) noexcept;
// The error that a finished connect left in SO_ERROR, or 0.
int connect_result(Descriptor fd) noexcept;
// sendfile(2) from `offset` of `file`: the bytes sent, or -1 and errno.
std::int64_t send_file(Descriptor fd, int file, std::int64_t offset, std::size_t size) noexcept;
#if !TRACESOCK_WINDOWS
// A message of a batch: its header, and the bytes that were moved.
#if TRACESOCK_HAVE_SENDMMSG
using Message = ::mmsghdr;
#else
struct Message {
    msghdr msg_hdr;
    unsigned msg_len;
};
#endif
// sendmmsg(2) and recvmmsg(2), or one call after the other where the platform has none: the number
// of messages moved, or -1 and errno where not even the first could be. The receive waits for the
// first only.
int send_messages(Descriptor fd, Message* messages, unsigned count, int flags) noexcept;
int receive_messages(Descriptor fd, Message* messages, unsigned count, int flags) noexcept;
// The same for a descriptor whose messages may end: nothing is taken after an empty one.
int receive_until_empty(Descriptor fd, Message* messages, unsigned count, int flags) noexcept;
#endif
// Has the system give memory to this part of a mapping, whose first writer would wait for each page
// of it: MADV_POPULATE_WRITE, where there is one. `memory` begins a page.
void populate(void* memory, std::size_t size) noexcept;
// Nanoseconds of CLOCK_MONOTONIC.
std::int64_t monotonic() noexcept;
// ioctl(CTLIOCGINFO) of macOS: the id of a kernel control by its name (at most 96 bytes). ENOTSUP
// elsewhere.
int control_id(const char* name, std::uint32_t& id) noexcept;

}  // namespace tracesock::sys
