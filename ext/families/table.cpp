// The one table of address families. A protocol's own row stands before its family's general one.
#include <algorithm>
#include <array>
#include <cstring>

#include "families/family.hpp"
#include "families/inet.hpp"

namespace tracesock {

extern const Family inet6_family;
extern const Family unix_family;

namespace {

bool refuse(Context& context, Object*, Address&) {
    return context.fail(Error::os, "%s(): bad family", context.caller);
}

Object* decode_unknown(Context& context, const sockaddr& address, socklen_t) {
    return context.build("(iy#)", static_cast<int>(address.sa_family), address.sa_data,
                         static_cast<std::ptrdiff_t>(sizeof address.sa_data));
}

constexpr Family unknown_family{
    .family = AF_UNSPEC,
    .protocol = any_protocol,
    .name = "unknown",
    .smallest = 0,
    .largest = 0,
    .encode = refuse,
    .decode = decode_unknown,
    .flags = 0,
    .unreadable = "getsockaddrlen: bad family",
};

constexpr std::array table{
    &inet_family,
    &inet6_family,
    &unix_family,
};

}  // namespace

const Family* find_family(int family, int protocol) noexcept {
    const auto row = std::ranges::find_if(table, [=](const Family* candidate) {
        return candidate->family == family &&
               (candidate->protocol == any_protocol || candidate->protocol == protocol);
    });
    return row != table.end() ? *row : &unknown_family;
}

std::span<const Family* const> all_families() noexcept {
    return table;
}

Object* decode_address(Context& context, const Address& address) {
    if (address.length == 0) return context.none();
    const Family* row = find_family(address.header.sa_family, context.protocol);
    if (address.length < row->smallest) row = &unknown_family;
    return row->decode(context, address.header, address.length);
}

}  // namespace tracesock
