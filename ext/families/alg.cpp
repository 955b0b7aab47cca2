// AF_ALG, the kernel's crypto API (crypto/userspace-if): (type, name[, feat[, mask]]).
#include "families/family.hpp"

namespace tracesock {
namespace {

constexpr int af_alg = 38;

// struct sockaddr_alg of <linux/if_alg.h>.
struct AlgAddress {
    std::uint16_t family;
    char type[14];
    std::uint32_t features;
    std::uint32_t mask;
    char name[64];
};
static_assert(sizeof(AlgAddress) == 88);

bool encode(Context& context, Object* object, Address& out) {
    if (!require_tuple(context, object, "AF_ALG")) return false;
    const char* type = nullptr;
    const char* name = nullptr;
    unsigned short features = 0;
    unsigned short mask = 0;
    if (!context.unpack(object, "ss|HH;AF_ALG address must be a tuple (type, name[, feat[, mask]])",
                        &type, &name, &features, &mask))
        return false;
    auto& alg = out.emplace<AlgAddress>(af_alg);
    // Both are followed by a NUL, which emplace() has left there.
    const std::size_t type_size = std::strlen(type);
    if (type_size >= sizeof alg.type) return context.fail(Error::value, "AF_ALG type too long.");
    const std::size_t name_size = std::strlen(name);
    if (name_size >= sizeof alg.name) return context.fail(Error::value, "AF_ALG name too long.");
    std::memcpy(alg.type, type, type_size);
    std::memcpy(alg.name, name, name_size);
    alg.features = features;
    alg.mask = mask;
    return true;
}

Object* decode(Context& context, const sockaddr& address, socklen_t length) {
    const auto alg = read_address<AlgAddress>(address, length);
    return context.build("(s#s#II)", alg.type,
                         static_cast<std::ptrdiff_t>(strnlen(alg.type, sizeof alg.type)), alg.name,
                         static_cast<std::ptrdiff_t>(strnlen(alg.name, sizeof alg.name)),
                         alg.features, alg.mask);
}

}  // namespace

extern const Family alg_family;
constinit const Family alg_family{
    .family = af_alg,
    .protocol = any_protocol,
    .name = "alg",
    .smallest = offsetof(AlgAddress, name),
    .largest = sizeof(AlgAddress),
    .encode = encode,
    .decode = decode,
    .flags = accepts_without_address,
};

}  // namespace tracesock
