// AF_CAN with CAN_J1939, SAE J1939, Documentation/networking/j1939.rst:
// (interface, name, pgn, addr).
#include "families/can.hpp"

namespace tracesock {
namespace {

constexpr int can_j1939 = 7;

bool encode(Context& context, Object* object, Address& out) {
    if (!require_tuple(context, object, "AF_CAN")) return false;
    Text ifname{&context};
    unsigned long long name = 0;
    unsigned pgn = 0;
    unsigned char address = 0;
    if (!context.unpack(object, "O&KIB", context.path_converter(), &ifname, &name, &pgn, &address))
        return false;
    auto& can = out.emplace<CanAddress>(af_can);
    can.j1939.name = name;
    can.j1939.pgn = pgn;
    can.j1939.address = address;
    return can_ifindex(context, ifname, can.ifindex);
}

Object* decode(Context& context, const sockaddr& address, socklen_t length) {
    const auto can = read_address<CanAddress>(address, length);
    return context.build("(NKII)", can_ifname(context, can.ifindex),
                         static_cast<unsigned long long>(can.j1939.name), can.j1939.pgn,
                         static_cast<unsigned>(can.j1939.address));
}

}  // namespace

extern const Family can_j1939_family;
constinit const Family can_j1939_family{
    .family = af_can,
    .protocol = can_j1939,
    .name = "can_j1939",
    .smallest = can_j1939_end,
    .largest = sizeof(CanAddress),
    .encode = encode,
    .decode = decode,
    .flags = 0,
};

}  // namespace tracesock
