// AF_TIPC, tipc(7): (addr_type, v1, v2, v3[, scope]).
#include "families/family.hpp"

namespace tracesock {
namespace {

constexpr int af_tipc = 30;
constexpr unsigned address_service_range = 1;  // TIPC_ADDR_NAMESEQ
constexpr unsigned address_service = 2;        // TIPC_ADDR_NAME
constexpr unsigned address_socket = 3;         // TIPC_ADDR_ID
constexpr unsigned cluster_scope = 2;

// struct sockaddr_tipc of <linux/tipc.h>. The meaning of `value` goes by the type:
// range: type, lower, upper; service: type, instance, domain; socket: reference, node.
struct TipcAddress {
    std::uint16_t family;
    std::uint8_t type;
    std::int8_t scope;
    std::uint32_t value[3];
};
static_assert(sizeof(TipcAddress) == 16);

bool encode(Context& context, Object* object, Address& out) {
    if (!require_tuple(context, object, "AF_TIPC")) return false;
    unsigned type = 0;
    unsigned v1 = 0;
    unsigned v2 = 0;
    unsigned v3 = 0;
    unsigned scope = cluster_scope;
    if (!context.unpack(object,
                        "IIII|I;AF_TIPC address must be a tuple "
                        "(addr_type, v1, v2, v3[, scope])",
                        &type, &v1, &v2, &v3, &scope))
        return false;
    auto& tipc = out.emplace<TipcAddress>(af_tipc);
    tipc.type = static_cast<std::uint8_t>(type);
    tipc.scope = static_cast<std::int8_t>(scope);
    switch (type) {
        case address_service_range:
            tipc.value[0] = v1;
            tipc.value[1] = v2;
            tipc.value[2] = v3;
            return true;
        case address_service:
            tipc.value[0] = v1;
            tipc.value[1] = v2;
            return true;
        case address_socket:
            tipc.value[0] = v2;
            tipc.value[1] = v1;
            return true;
        default:
            return context.fail(Error::type, "Invalid address type");
    }
}

Object* decode(Context& context, const sockaddr& address, socklen_t length) {
    const auto tipc = read_address<TipcAddress>(address, length);
    const auto build = [&](unsigned v1, unsigned v2, unsigned v3) {
        return context.build("(IIIII)", static_cast<unsigned>(tipc.type), v1, v2, v3,
                             static_cast<unsigned>(tipc.scope));
    };
    switch (tipc.type) {
        case address_service_range:
            return build(tipc.value[0], tipc.value[1], tipc.value[2]);
        case address_service:
            return build(tipc.value[0], tipc.value[1], tipc.value[1]);
        case address_socket:
            return build(tipc.value[1], tipc.value[0], 0);
        default:
            context.fail(Error::value, "Invalid address type");
            return nullptr;
    }
}

}  // namespace

extern const Family tipc_family;
constinit const Family tipc_family{
    .family = af_tipc,
    .protocol = any_protocol,
    .name = "tipc",
    .smallest = sizeof(TipcAddress),
    .largest = sizeof(TipcAddress),
    .encode = encode,
    .decode = decode,
    .flags = 0,
};

}  // namespace tracesock
