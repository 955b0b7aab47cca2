// AF_UNIX, unix(7): a path, an abstract name that begins with NUL, or "" for autobind.
#include <cstring>

#include "families/family.hpp"

namespace tracesock {
namespace {

constexpr std::size_t path_offset = offsetof(sockaddr_un, sun_path);
constexpr std::size_t path_capacity = sizeof(sockaddr_un) - path_offset;

bool encode(Context& context, Object* object, Address& out) {
    Text path{&context};
    if (!context.path_or_buffer(object, path)) return false;
    auto& address = out.emplace<sockaddr_un>(AF_UNIX);
    const bool abstract = TRACESOCK_LINUX && (path.size == 0 || path.data[0] == '\0');
    // A path is followed by a NUL, an abstract name is as long as it is.
    const std::size_t capacity = abstract ? path_capacity : path_capacity - 1;
    if (path.size > capacity) return context.fail(Error::os, "AF_UNIX path too long");
    std::memcpy(address.sun_path, path.data, path.size);
    out.length = static_cast<socklen_t>(path_offset + path.size + (abstract ? 0 : 1));
    return true;
}

Object* decode(Context& context, const sockaddr& address, socklen_t length) {
    const auto& local = reinterpret_cast<const sockaddr_un&>(address);
    const auto total = static_cast<std::size_t>(length);
    const std::size_t size = total > path_offset ? total - path_offset : 0;
    const std::size_t bounded = size < path_capacity ? size : path_capacity;
    if (TRACESOCK_LINUX && bounded > 0 && local.sun_path[0] == '\0')
        return context.build("y#", local.sun_path, static_cast<std::ptrdiff_t>(bounded));
    return context.path(local.sun_path, strnlen(local.sun_path, bounded));
}

}  // namespace

extern const Family unix_family;
constinit const Family unix_family{
    .family = AF_UNIX,
    .protocol = any_protocol,
    .name = "unix",
    .smallest = path_offset,
    .largest = sizeof(sockaddr_un),
    .encode = encode,
    .decode = decode,
    .flags = is_path,
};

}  // namespace tracesock
