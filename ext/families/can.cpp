// AF_CAN with CAN_RAW and CAN_BCM, Documentation/networking/can.rst: (interface,).
#include "families/can.hpp"

namespace tracesock {

bool can_ifindex(Context& context, const Text& name, std::int32_t& ifindex) {
    if (name.size >= IF_NAMESIZE) return context.fail(Error::os, "AF_CAN interface name too long");
    ifindex = 0;
    if (name.size == 0) return true;
    ifindex = static_cast<std::int32_t>(context.ifindex(name.data));
    return ifindex != 0 || context.fail_errno();
}

Object* can_ifname(Context& context, std::int32_t ifindex) {
    char buffer[IF_NAMESIZE] = {};
    const char* name = ifindex != 0 ? context.ifname(static_cast<unsigned>(ifindex), buffer) : "";
    return context.path(name, std::strlen(name));
}

namespace {

constexpr int can_raw = 1;
constexpr int can_bcm = 2;

bool encode(Context& context, Object* object, Address& out) {
    if (!require_tuple(context, object, "AF_CAN")) return false;
    Text name{&context};
    if (!context.unpack(object, "O&;AF_CAN address must be a tuple (interface, )",
                        context.path_converter(), &name))
        return false;
    auto& can = out.emplace<CanAddress>(af_can);
    return can_ifindex(context, name, can.ifindex);
}

bool refuse(Context& context, Object*, Address&) {
    return context.fail(Error::os, "%s(): unsupported CAN protocol", context.caller);
}

Object* decode(Context& context, const sockaddr& address, socklen_t length) {
    const auto can = read_address<CanAddress>(address, length);
    return context.build("(N)", can_ifname(context, can.ifindex));
}

}  // namespace

extern const Family can_raw_family;
constinit const Family can_raw_family{
    .family = af_can,
    .protocol = can_raw,
    .name = "can_raw",
    .smallest = can_interface_end,
    .largest = sizeof(CanAddress),
    .encode = encode,
    .decode = decode,
    .flags = 0,
};

extern const Family can_bcm_family;
constinit const Family can_bcm_family{
    .family = af_can,
    .protocol = can_bcm,
    .name = "can_bcm",
    .smallest = can_interface_end,
    .largest = sizeof(CanAddress),
    .encode = encode,
    .decode = decode,
    .flags = 0,
};

// A protocol without a codec here: its addresses can be read as far as all of AF_CAN agrees.
extern const Family can_family;
constinit const Family can_family{
    .family = af_can,
    .protocol = any_protocol,
    .name = "can",
    .smallest = can_interface_end,
    .largest = sizeof(CanAddress),
    .encode = refuse,
    .decode = decode,
    .flags = 0,
};

}  // namespace tracesock
