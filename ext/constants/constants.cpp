#include "constants/constants.hpp"

#include "config.hpp"

// Each known platform has its own part of the table, made of literals. Elsewhere the headers tell
// what there is: on Solaris, say, or on Android, where bionic numbers EAI_*, AI_* and NI_*
// otherwise than the other C libraries of Linux.
#if defined(TRACESOCK_TABLE_HEADERS)  // asked for by the tests
#elif TRACESOCK_LINUX && !defined(__ANDROID__)
#define TRACESOCK_TABLE_LINUX
#elif TRACESOCK_MACOS
#define TRACESOCK_TABLE_MACOS
#elif TRACESOCK_FREEBSD
#define TRACESOCK_TABLE_FREEBSD
#elif defined(__NetBSD__)
#define TRACESOCK_TABLE_NETBSD
#elif defined(__OpenBSD__)
#define TRACESOCK_TABLE_OPENBSD
#elif TRACESOCK_WINDOWS
#define TRACESOCK_TABLE_WINDOWS
#else
#define TRACESOCK_TABLE_HEADERS
#endif

#if defined(TRACESOCK_TABLE_HEADERS)
#include "constants/platform_headers.hpp"
#elif defined(TRACESOCK_TABLE_LINUX)
#include <sys/ioctl.h>
#include <sys/socket.h>
// Of <linux/vm_sockets.h>; the macro knows how the architecture encodes a request.
#ifndef IOCTL_VM_SOCKETS_GET_LOCAL_CID
#define IOCTL_VM_SOCKETS_GET_LOCAL_CID _IO(7, 0xb9)
#endif
#endif

namespace tracesock::constants {
namespace {

// The standard library makes its constants of C's long: where that has 32 bits, a value above
// 0x7fffffff is negative.
[[maybe_unused]] constexpr std::int64_t c_long(auto value) {
    return static_cast<long>(value);
}

constexpr Constant table[] = {
#include "constants_table.inc"
};

}  // namespace

std::span<const Constant> all() noexcept {
    return table;
}

}  // namespace tracesock::constants
