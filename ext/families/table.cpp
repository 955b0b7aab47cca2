// The one table of address families. A protocol's own row stands before its family's general one.
#include <algorithm>
#include <array>
#include <cstring>

#include "families/family.hpp"
#include "families/inet.hpp"

namespace tracesock {

extern const Family inet6_family;
extern const Family unix_family;
extern const Family netlink_family;
extern const Family packet_family;
extern const Family tipc_family;
extern const Family alg_family;
extern const Family vsock_family;
extern const Family qipcrtr_family;
extern const Family rds_family;
extern const Family can_raw_family;
extern const Family can_bcm_family;
extern const Family can_isotp_family;
extern const Family can_j1939_family;
extern const Family can_family;
extern const Family bluetooth_l2cap_family;
extern const Family bluetooth_rfcomm_family;
extern const Family bluetooth_rfcomm_windows_family;
extern const Family bluetooth_hci_family;
extern const Family bluetooth_hci_freebsd_family;
extern const Family bluetooth_sco_family;
extern const Family bluetooth_family;
extern const Family divert_family;
extern const Family system_family;
extern const Family system_unsupported_family;
extern const Family hyperv_family;
extern const Family hyperv_unsupported_family;

namespace {

bool refuse(Context& context, Object*, Address&) {
    return context.fail(Error::os, "%s(): bad family", context.caller);
}

Object* decode_unknown(Context& context, const sockaddr& address, socklen_t) {
    return context.build("(iy#)", static_cast<int>(address.sa_family), address.sa_data,
                         static_cast<std::ptrdiff_t>(sizeof address.sa_data));
}

}  // namespace

constinit const Family unknown_family{
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

namespace {

constexpr std::array table{
    &inet_family,
    &inet6_family,
    &unix_family,
#if TRACESOCK_LINUX
    &netlink_family,
    &packet_family,
    &vsock_family,
    &can_raw_family,
    &can_bcm_family,
    &can_isotp_family,
    &can_j1939_family,
    &can_family,
    &tipc_family,
    &alg_family,
    &qipcrtr_family,
    &rds_family,
    &bluetooth_l2cap_family,
    &bluetooth_rfcomm_family,
    &bluetooth_hci_family,
    &bluetooth_sco_family,
    &bluetooth_family,
#elif TRACESOCK_FREEBSD
    &netlink_family,
    &divert_family,
    &bluetooth_l2cap_family,
    &bluetooth_rfcomm_family,
    &bluetooth_hci_freebsd_family,
    &bluetooth_sco_family,
    &bluetooth_family,
#elif TRACESOCK_MACOS
    &system_family, &system_unsupported_family,
#elif TRACESOCK_WINDOWS
    &bluetooth_rfcomm_windows_family,
    &bluetooth_family,
    &hyperv_family,
    &hyperv_unsupported_family,
#endif
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
