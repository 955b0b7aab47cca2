// AF_INET6, ipv6(7): (host, port[, flowinfo[, scope_id]]).
#include "families/family.hpp"

namespace tracesock {
namespace {

bool encode(Context& context, Object* object, Address& out) {
    if (!require_tuple(context, object, "AF_INET6")) return false;
    Text host{&context};
    int port = 0;
    unsigned flowinfo = 0;
    unsigned scope_id = 0;
    if (!context.unpack(object,
                        "O&i|II;AF_INET6 address must be a tuple "
                        "(host, port[, flowinfo[, scopeid]])",
                        context.host_converter(), &host, &port, &flowinfo, &scope_id)) {
        if (!context.error_is(Error::overflow)) return false;
        context.clear();
        return context.fail(Error::overflow, "%s(): port must be 0-65535.", context.caller);
    }
    if (!context.resolve(host.data, AF_INET6, out)) return false;
    if (port < 0 || port > 0xffff)
        return context.fail(Error::overflow, "%s(): port must be 0-65535.", context.caller);
    if (flowinfo > 0xfffff)
        return context.fail(Error::overflow, "%s(): flowinfo must be 0-1048575.", context.caller);
    const in6_addr resolved = out.inet6.sin6_addr;
    auto& inet6 = out.emplace<sockaddr_in6>(AF_INET6);
    inet6.sin6_addr = resolved;
    inet6.sin6_port = htons(static_cast<std::uint16_t>(port));
    inet6.sin6_flowinfo = htonl(flowinfo);
    // Given or not, this overwrites the zone that a name may have carried, as CPython does.
    inet6.sin6_scope_id = scope_id;
    return true;
}

Object* decode(Context& context, const sockaddr& address, socklen_t) {
    const auto& inet6 = reinterpret_cast<const sockaddr_in6&>(address);
    char text[INET6_ADDRSTRLEN];
    if (inet_ntop(AF_INET6, &inet6.sin6_addr, text, sizeof text) == nullptr) {
        context.fail_errno();
        return nullptr;
    }
    return context.build("(siII)", text, static_cast<int>(ntohs(inet6.sin6_port)),
                         static_cast<unsigned>(ntohl(inet6.sin6_flowinfo)),
                         static_cast<unsigned>(inet6.sin6_scope_id));
}

}  // namespace

extern const Family inet6_family;
constinit const Family inet6_family{
    .family = AF_INET6,
    .protocol = any_protocol,
    .name = "inet6",
    .smallest = sizeof(sockaddr_in6),
    .largest = sizeof(sockaddr_in6),
    .encode = encode,
    .decode = decode,
    .flags = resolves_names,
};

}  // namespace tracesock
