// PF_SYSTEM of macOS with SYSPROTO_CONTROL, <sys/kern_control.h>: a control's name, or (id, unit).
#include "families/family.hpp"

namespace tracesock {
namespace {

constexpr int af_system = 32;
constexpr int protocol_control = 2;       // SYSPROTO_CONTROL
constexpr std::uint16_t sys_control = 2;  // AF_SYS_CONTROL
constexpr std::size_t longest_name = 96;  // MAX_KCTL_NAME

// struct sockaddr_ctl.
struct ControlAddress {
    std::uint8_t length;
    std::uint8_t family;
    std::uint16_t system_address;
    std::uint32_t id;
    std::uint32_t unit;
    std::uint32_t reserved[5];
};
static_assert(sizeof(ControlAddress) == 32);

bool encode(Context& context, Object* object, Address& out) {
    auto& control = out.emplace<ControlAddress>(af_system);
    control.system_address = sys_control;
    if (context.is_text(object)) {
        Text name{&context};
        if (!context.parse(object, "O&", context.path_converter(), &name)) return false;
        if (name.size > longest_name)
            return context.fail(Error::value, "provided string is too long");
        if (!context.control_id(name.data, control.id))
            return context.fail(Error::os, "cannot find kernel control with provided name");
        return true;
    }
    unsigned id = 0;
    unsigned unit = 0;
    if (!context.is_tuple(object) || !context.unpack(object, "II", &id, &unit)) {
        context.clear();
        return context.fail(Error::type,
                            "%s(): PF_SYSTEM address must be a str or a pair (id, unit)",
                            context.caller);
    }
    control.id = id;
    control.unit = unit;
    return true;
}

Object* decode(Context& context, const sockaddr& address, socklen_t length) {
    const auto control = read_address<ControlAddress>(address, length);
    return context.build("(II)", control.id, control.unit);
}

bool refuse(Context& context, Object*, Address&) {
    return context.fail(Error::os, "%s(): unsupported PF_SYSTEM protocol", context.caller);
}

Object* decode_unsupported(Context& context, const sockaddr&, socklen_t) {
    context.fail(Error::value, "Invalid address type");
    return nullptr;
}

}  // namespace

extern const Family system_family;
constinit const Family system_family{
    .family = af_system,
    .protocol = protocol_control,
    .name = "system",
    .smallest = offsetof(ControlAddress, reserved),
    .largest = sizeof(ControlAddress),
    .encode = encode,
    .decode = decode,
    .flags = 0,
};

extern const Family system_unsupported_family;
constinit const Family system_unsupported_family{
    .family = af_system,
    .protocol = any_protocol,
    .name = "system_unsupported",
    .smallest = 0,
    .largest = 0,
    .encode = refuse,
    .decode = decode_unsupported,
    .flags = 0,
    .unreadable = "getsockaddrlen: unknown PF_SYSTEM protocol",
};

}  // namespace tracesock
