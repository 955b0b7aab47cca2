// AF_CAN with CAN_ISOTP, ISO 15765-2, Documentation/networking/iso15765-2.rst:
// (interface, rx_addr, tx_addr).
#include "families/can.hpp"

namespace tracesock {
namespace {

constexpr int can_isotp = 6;

bool encode(Context& context, Object* object, Address& out) {
    if (!require_tuple(context, object, "AF_CAN")) return false;
    Text name{&context};
    unsigned long rx_id = 0;
    unsigned long tx_id = 0;
    if (!context.unpack(object, "O&kk", context.path_converter(), &name, &rx_id, &tx_id))
        return false;
    auto& can = out.emplace<CanAddress>(af_can);
    can.isotp.rx_id = static_cast<std::uint32_t>(rx_id);
    can.isotp.tx_id = static_cast<std::uint32_t>(tx_id);
    return can_ifindex(context, name, can.ifindex);
}

Object* decode(Context& context, const sockaddr& address, socklen_t length) {
    const auto can = read_address<CanAddress>(address, length);
    return context.build("(NII)", can_ifname(context, can.ifindex), can.isotp.rx_id,
                         can.isotp.tx_id);
}

}  // namespace

extern const Family can_isotp_family;
constinit const Family can_isotp_family{
    .family = af_can,
    .protocol = can_isotp,
    .name = "can_isotp",
    .smallest = can_isotp_end,
    .largest = sizeof(CanAddress),
    .encode = encode,
    .decode = decode,
    .flags = 0,
};

}  // namespace tracesock
