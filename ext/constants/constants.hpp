// The public constants of the module, out of constants.toml; without Python.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace tracesock::constants {

// What the constant is in Python: a member of AddressFamily, SocketKind, MsgFlag or AddressInfo,
// an int or a str.
enum class Kind : std::uint8_t {
    address_family,
    socket_kind,
    message_flag,
    address_info,
    integer,
    text,
};

struct Constant {
    std::string_view name;  // followed by a NUL
    Kind kind;
    std::int64_t value = 0;
    std::string_view text = {};       // for Kind::text; followed by a NUL
    std::uint32_t windows_build = 0;  // the first build of Windows that has it; 0: every one
};

// The constants of this platform, in the order of constants.toml.
std::span<const Constant> all() noexcept;

}  // namespace tracesock::constants
