#include "core/syscalls.hpp"

#if !TRACESOCK_WINDOWS

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#if TRACESOCK_MACOS
#include <sys/kern_control.h>
#endif

#if TRACESOCK_LINUX
#include <sys/sendfile.h>
#endif

#include <cerrno>
#include <climits>
#include <cstring>

namespace tracesock::sys {

Descriptor open(int family, int type, int protocol) noexcept {
#ifdef SOCK_CLOEXEC
    return ::socket(family, type | SOCK_CLOEXEC, protocol);
#else
    const Descriptor fd = ::socket(family, type, protocol);
    if (fd != invalid) ::fcntl(fd, F_SETFD, FD_CLOEXEC);
    return fd;
#endif
}

int open_pair(int family, int type, int protocol, Descriptor pair[2]) noexcept {
#ifdef SOCK_CLOEXEC
    return ::socketpair(family, type | SOCK_CLOEXEC, protocol, pair);
#else
    const int result = ::socketpair(family, type, protocol, pair);
    if (result == 0)
        for (int i = 0; i < 2; ++i) ::fcntl(pair[i], F_SETFD, FD_CLOEXEC);
    return result;
#endif
}

Descriptor accept(Descriptor fd, sockaddr* address, socklen_t* length) noexcept {
#if TRACESOCK_HAVE_ACCEPT4
    return ::accept4(fd, address, length, SOCK_CLOEXEC);
#else
    const Descriptor connection = ::accept(fd, address, length);
    if (connection != invalid) ::fcntl(connection, F_SETFD, FD_CLOEXEC);
    return connection;
#endif
}

Descriptor duplicate(Descriptor fd) noexcept {
    return ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

int close(Descriptor fd) noexcept {
    const int result = ::close(fd);
    return result < 0 && errno == ECONNRESET ? 0 : result;
}

int set_blocking(Descriptor fd, bool blocking) noexcept {
    int nonblocking = blocking ? 0 : 1;
    return ::ioctl(fd, FIONBIO, &nonblocking);
}

int wait(Descriptor fd, short events, std::int64_t timeout) noexcept {
    pollfd entry{fd, events, 0};
    int milliseconds = -1;
    if (timeout >= 0) {
        const std::int64_t rounded_up = timeout / 1'000'000 + (timeout % 1'000'000 != 0 ? 1 : 0);
        milliseconds = rounded_up > INT_MAX ? INT_MAX : static_cast<int>(rounded_up);
    }
    return ::poll(&entry, 1, milliseconds);
}

int wait(Descriptor fd, Direction direction, std::int64_t timeout) noexcept {
    switch (direction) {
        case Direction::read:
            return wait(fd, static_cast<short>(POLLIN), timeout);
        case Direction::write:
            return wait(fd, static_cast<short>(POLLOUT), timeout);
        case Direction::connect:
            return wait(fd, static_cast<short>(POLLOUT | POLLERR), timeout);
    }
    errno = EINVAL;
    return -1;
}

int connect_result(Descriptor fd) noexcept {
    int error = 0;
    socklen_t size = sizeof error;
    if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0) return errno;
    return error == EISCONN ? 0 : error;
}

void populate([[maybe_unused]] void* memory, [[maybe_unused]] std::size_t size) noexcept {
#ifdef MADV_POPULATE_WRITE
    const int error = errno;
    ::madvise(memory, size, MADV_POPULATE_WRITE);
    errno = error;
#endif
}

std::int64_t send_file(Descriptor fd, int file, std::int64_t offset, std::size_t size) noexcept {
#if TRACESOCK_LINUX
    off_t from = offset;
    return ::sendfile(fd, file, &from, size);
#elif TRACESOCK_MACOS
    off_t length = static_cast<off_t>(size);
    return ::sendfile(file, fd, offset, &length, nullptr, 0) == 0 || length > 0 ? length : -1;
#elif TRACESOCK_FREEBSD
    off_t sent = 0;
    return ::sendfile(file, fd, offset, size, nullptr, &sent, 0) == 0 || sent > 0 ? sent : -1;
#else
    (void)fd, (void)file, (void)offset, (void)size;
    errno = ENOSYS;
    return -1;
#endif
}

namespace {

// One recvmsg(2) after the other, the first as `flags` say, the others without waiting.
int receive_each(Descriptor fd, Message* messages, unsigned count, int flags,
                 bool until_empty) noexcept {
    for (unsigned i = 0; i < count; ++i) {
        const ssize_t size =
            ::recvmsg(fd, &messages[i].msg_hdr, i == 0 ? flags : flags | MSG_DONTWAIT);
        if (size < 0) return i > 0 ? static_cast<int>(i) : -1;
        messages[i].msg_len = static_cast<unsigned>(size);
        if (size == 0 && until_empty) return static_cast<int>(i) + 1;
    }
    return static_cast<int>(count);
}

}  // namespace

int send_messages(Descriptor fd, Message* messages, unsigned count, int flags) noexcept {
#if TRACESOCK_HAVE_SENDMMSG
    return static_cast<int>(::sendmmsg(fd, messages, count, flags));
#else
    for (unsigned i = 0; i < count; ++i) {
        const ssize_t size = ::sendmsg(fd, &messages[i].msg_hdr, flags);
        if (size < 0) return i > 0 ? static_cast<int>(i) : -1;
        messages[i].msg_len = static_cast<unsigned>(size);
    }
    return static_cast<int>(count);
#endif
}

int receive_messages(Descriptor fd, Message* messages, unsigned count, int flags) noexcept {
#if TRACESOCK_HAVE_SENDMMSG
    return static_cast<int>(::recvmmsg(fd, messages, count, flags | MSG_WAITFORONE, nullptr));
#else
    return receive_each(fd, messages, count, flags, false);
#endif
}

int receive_until_empty(Descriptor fd, Message* messages, unsigned count, int flags) noexcept {
    return receive_each(fd, messages, count, flags, true);
}

std::int64_t monotonic() noexcept {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

int control_id([[maybe_unused]] const char* name, [[maybe_unused]] std::uint32_t& id) noexcept {
#if TRACESOCK_MACOS
    constexpr int protocol_control = 2;  // SYSPROTO_CONTROL of <sys/sys_domain.h>
    ctl_info info{};
    const std::size_t size = std::strlen(name);
    if (size > sizeof info.ctl_name) {
        errno = ENAMETOOLONG;
        return -1;
    }
    std::memcpy(info.ctl_name, name, size);
    const Descriptor fd = open(PF_SYSTEM, SOCK_DGRAM, protocol_control);
    if (fd == invalid) return -1;
    const int result = ::ioctl(fd, CTLIOCGINFO, &info);
    const int error = errno;
    ::close(fd);
    errno = error;
    if (result == 0) id = info.ctl_id;
    return result;
#else
    errno = ENOTSUP;
    return -1;
#endif
}

}  // namespace tracesock::sys

#endif
