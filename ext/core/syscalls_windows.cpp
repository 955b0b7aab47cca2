// The same calls by Winsock. A SOCKET is a handle, and only the lower 32 bits of a handle say
// anything, so that it fits a Descriptor. Errors come as errno, translated from Winsock's own.
#include "core/syscalls.hpp"

#if TRACESOCK_WINDOWS

#include <windows.h>

#include <cerrno>
#include <climits>

namespace tracesock::sys {
namespace {

// WSAPoll's flags (the header has them only for some targets).
constexpr short poll_read = POLLRDNORM | POLLRDBAND;
constexpr short poll_write = POLLWRNORM;

SOCKET handle(Descriptor fd) noexcept {
    return fd == invalid ? INVALID_SOCKET : static_cast<SOCKET>(static_cast<unsigned>(fd));
}

Descriptor descriptor(SOCKET socket) noexcept {
    return socket == INVALID_SOCKET ? invalid : static_cast<Descriptor>(socket);
}

int translate(int error) noexcept {
    switch (error) {
        case 0:
            return 0;
        case WSAEINTR:
            return EINTR;
        case WSAEBADF:
            return EBADF;
        case WSAEACCES:
            return EACCES;
        case WSAEFAULT:
            return EFAULT;
        case WSAEINVAL:
            return EINVAL;
        case WSAEMFILE:
            return EMFILE;
        case WSAEWOULDBLOCK:
            return EWOULDBLOCK;
        case WSAEINPROGRESS:
            return EINPROGRESS;
        case WSAEALREADY:
            return EALREADY;
        case WSAENOTSOCK:
            return ENOTSOCK;
        case WSAEDESTADDRREQ:
            return EDESTADDRREQ;
        case WSAEMSGSIZE:
            return EMSGSIZE;
        case WSAEPROTOTYPE:
            return EPROTOTYPE;
        case WSAENOPROTOOPT:
            return ENOPROTOOPT;
        case WSAEPROTONOSUPPORT:
            return EPROTONOSUPPORT;
        case WSAEOPNOTSUPP:
            return EOPNOTSUPP;
        case WSAEAFNOSUPPORT:
            return EAFNOSUPPORT;
        case WSAEADDRINUSE:
            return EADDRINUSE;
        case WSAEADDRNOTAVAIL:
            return EADDRNOTAVAIL;
        case WSAENETDOWN:
            return ENETDOWN;
        case WSAENETUNREACH:
            return ENETUNREACH;
        case WSAENETRESET:
            return ENETRESET;
        case WSAECONNABORTED:
            return ECONNABORTED;
        case WSAECONNRESET:
            return ECONNRESET;
        case WSAENOBUFS:
            return ENOBUFS;
        case WSAEISCONN:
            return EISCONN;
        case WSAENOTCONN:
            return ENOTCONN;
        case WSAETIMEDOUT:
            return ETIMEDOUT;
        case WSAECONNREFUSED:
            return ECONNREFUSED;
        case WSAEHOSTUNREACH:
            return EHOSTUNREACH;
        default:
            // Winsock's number, which no errno has: better than a wrong one.
            return error;
    }
}

int failed() noexcept {
    errno = translate(::WSAGetLastError());
    return -1;
}

// Winsock serves no call before it was started; it ends with the process.
bool started() noexcept {
    static const int error = [] {
        WSADATA data;
        return ::WSAStartup(MAKEWORD(2, 2), &data);
    }();
    if (error != 0) errno = translate(error);
    return error == 0;
}

// The older kernels that know no WSA_FLAG_NO_HANDLE_INHERIT are not supported.
constexpr DWORD creation = WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT;

}  // namespace

Descriptor open(int family, int type, int protocol) noexcept {
    if (!started()) return invalid;
    const SOCKET socket = ::WSASocketW(family, type, protocol, nullptr, 0, creation);
    if (socket == INVALID_SOCKET) failed();
    return descriptor(socket);
}

// Windows has no socketpair; the Python layer makes one of two connected sockets.
int open_pair(int, int, int, Descriptor[2]) noexcept {
    errno = EOPNOTSUPP;
    return -1;
}

Descriptor accept(Descriptor fd, sockaddr* address, socklen_t* length) noexcept {
    const SOCKET connection = ::accept(handle(fd), address, length);
    if (connection == INVALID_SOCKET) return failed();
    if (::SetHandleInformation(reinterpret_cast<HANDLE>(connection), HANDLE_FLAG_INHERIT, 0) == 0) {
        ::closesocket(connection);
        errno = EINVAL;
        return invalid;
    }
    return descriptor(connection);
}

Descriptor duplicate(Descriptor fd) noexcept {
    if (!started()) return invalid;
    WSAPROTOCOL_INFOW info;
    if (::WSADuplicateSocketW(handle(fd), ::GetCurrentProcessId(), &info) != 0) return failed();
    const SOCKET copy = ::WSASocketW(FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO,
                                     &info, 0, creation);
    if (copy == INVALID_SOCKET) failed();
    return descriptor(copy);
}

int close(Descriptor fd) noexcept {
    if (::closesocket(handle(fd)) == 0 || ::WSAGetLastError() == WSAECONNRESET) return 0;
    return failed();
}

int set_blocking(Descriptor fd, bool blocking) noexcept {
    u_long nonblocking = blocking ? 0 : 1;
    return ::ioctlsocket(handle(fd), static_cast<long>(FIONBIO), &nonblocking) == 0 ? 0 : failed();
}

// select and not WSAPoll, which never reported a refused connect before Windows 10 2004.
int wait(Descriptor fd, short events, std::int64_t timeout) noexcept {
    const SOCKET socket = handle(fd);
    fd_set read;
    fd_set write;
    fd_set exceptional;
    const auto watch = [&](fd_set& set, bool wanted) noexcept {
        set.fd_count = wanted ? 1 : 0;
        set.fd_array[0] = socket;
    };
    watch(read, (events & poll_read) != 0);
    watch(write, (events & poll_write) != 0);
    // A connect that failed is an exceptional condition here, not a writable descriptor.
    watch(exceptional, (events & (POLLERR | POLLPRI)) != 0);
    timeval limit{};
    if (timeout >= 0) {
        constexpr std::int64_t longest = static_cast<std::int64_t>(INT_MAX) * 1'000'000;
        const std::int64_t bounded = timeout < longest ? timeout : longest;
        const std::int64_t microseconds = bounded / 1000 + (bounded % 1000 != 0 ? 1 : 0);
        limit.tv_sec = static_cast<long>(microseconds / 1'000'000);
        limit.tv_usec = static_cast<long>(microseconds % 1'000'000);
    }
    const int ready = ::select(0, &read, &write, &exceptional, timeout >= 0 ? &limit : nullptr);
    if (ready == SOCKET_ERROR) return failed();
    return ready > 0 ? 1 : 0;
}

int wait(Descriptor fd, Direction direction, std::int64_t timeout) noexcept {
    switch (direction) {
        case Direction::read:
            return wait(fd, poll_read, timeout);
        case Direction::write:
            return wait(fd, poll_write, timeout);
        case Direction::connect:
            return wait(fd, static_cast<short>(poll_write | POLLERR), timeout);
    }
    errno = EINVAL;
    return -1;
}

int connect_result(Descriptor fd) noexcept {
    int error = 0;
    socklen_t size = sizeof error;
    if (::getsockopt(handle(fd), SOL_SOCKET, SO_ERROR, reinterpret_cast<char*>(&error), &size) !=
        0) {
        failed();
        return errno;
    }
    return error == WSAEISCONN ? 0 : translate(error);
}

void populate(void*, std::size_t) noexcept {}

std::int64_t monotonic() noexcept {
    static const std::int64_t frequency = [] {
        LARGE_INTEGER value;
        ::QueryPerformanceFrequency(&value);
        return value.QuadPart;
    }();
    LARGE_INTEGER now;
    ::QueryPerformanceCounter(&now);
    // Seconds and the rest apart: the product of the whole would overflow within months.
    return now.QuadPart / frequency * 1'000'000'000 +
           now.QuadPart % frequency * 1'000'000'000 / frequency;
}

int control_id(const char*, std::uint32_t&) noexcept {
    errno = ENOTSUP;
    return -1;
}

}  // namespace tracesock::sys

#endif
