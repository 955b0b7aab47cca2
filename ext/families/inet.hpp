// The IPv4 codec, which other families with IPv4 addresses (RDS, DIVERT, UDP-Lite …) use as well.
#pragma once

#include "families/family.hpp"

namespace tracesock {

bool encode_inet(Context& context, Object* object, Address& out);
Object* decode_inet(Context& context, const sockaddr& address, socklen_t length);

extern const Family inet_family;

}  // namespace tracesock
