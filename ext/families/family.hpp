// What an address family is: one row. A family's file holds its codec and its row, the table in
// table.cpp lists the rows, and the socket keeps a pointer to its own, so that no call walks a
// switch.
//
// Nothing here includes Python: a codec reads and builds the caller's objects only through the
// Context, which a test or a fuzzer may supply as well as the interpreter does.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "core/syscalls.hpp"

struct _object;  // the interpreter's object, never looked into here

namespace tracesock {

using Object = ::_object;

// An encoded address: the bytes that the kernel gets.
struct Address {
    union {
        sockaddr header;
        sockaddr_storage storage;
        sockaddr_in inet;
        sockaddr_in6 inet6;
        unsigned char bytes[sizeof(sockaddr_storage)];
    };
    socklen_t length;

    Address() noexcept : storage{}, length(0) {}

    // The storage as one family's structure, all zero but the family.
    template <class T>
    T& emplace(int family) noexcept {
        static_assert(sizeof(T) <= sizeof(sockaddr_storage));
        storage = {};
        header.sa_family = static_cast<decltype(header.sa_family)>(family);
        length = sizeof(T);
        return *reinterpret_cast<T*>(&storage);
    }
};

// The kernel's bytes as one family's structure: a copy, so that alignment does not matter, and zero
// where an older kernel gave fewer bytes.
template <class T>
T read_address(const sockaddr& address, socklen_t length) noexcept {
    T out{};
    std::memcpy(&out, &address, std::min<std::size_t>(length, sizeof out));
    return out;
}

enum class Error : std::uint8_t { type, value, overflow, os, system };

// The caller's text, in the encoding that the platform's resolver or file system takes. The
// Context that filled it keeps it alive.
struct Text {
    class Context* context = nullptr;
    const char* data = nullptr;
    std::size_t size = 0;
};

class Context {
  public:
    // `caller` is the method in error texts ("bind"); `protocol` selects among codecs of a family.
    Context(const char* caller, int protocol) noexcept : caller(caller), protocol(protocol) {}
    virtual ~Context() = default;

    const char* const caller;
    const int protocol;

    // --- reading the caller's object ---------------------------------------------------------
    virtual bool is_tuple(Object* object) = 0;
    virtual bool is_text(Object* object) = 0;   // str
    virtual bool is_bytes(Object* object) = 0;  // bytes
    virtual bool is_int(Object* object) = 0;    // int, or anything with __index__
    virtual const char* type_name(Object* object) = 0;
    // PyArg_ParseTuple and PyArg_Parse: same formats, same error texts.
    virtual bool unpack(Object* tuple, const char* format, ...) = 0;
    virtual bool parse(Object* object, const char* format, ...) = 0;
    // Converters for "O&"; the argument is a Text whose `context` is this.
    using Converter = int (*)(Object*, void*);
    // A host name: str (IDNA when not ASCII), bytes or bytearray, without a NUL.
    virtual Converter host_converter() = 0;
    // A name in the file system's encoding: str, bytes or path-like, without a NUL.
    virtual Converter path_converter() = 0;
    // A str in the file system's encoding (surrogateescape), or any contiguous buffer.
    virtual bool path_or_buffer(Object* object, Text& out) = 0;
    // (host, port) as two values: `unpack(tuple, "O&i;" usage, ...)`, with a short cut for the
    // usual types. Says which error it was by error_is().
    virtual bool host_and_port(Object* tuple, const char* usage, Text& host, int& port) = 0;

    // --- errors ------------------------------------------------------------------------------
    // Sets an exception and returns false. Formats: %s %d %zd %.500s.
    virtual bool fail(Error kind, const char* format, ...) = 0;
    // OSError from errno.
    virtual bool fail_errno() = 0;
    // Whether the pending exception is of this kind; clear() removes it.
    virtual bool error_is(Error kind) = 0;
    virtual void clear() = 0;

    // --- the machine -------------------------------------------------------------------------
    // The first address of `host` in `family` (AF_UNSPEC: any), without a port.
    virtual bool resolve(const char* host, int family, Address& out) = 0;
    // Interface index by name, 0 with errno where there is none.
    virtual unsigned ifindex(const char* name) = 0;
    // Interface name by index into `name` (IF_NAMESIZE bytes); "" where there is none.
    virtual const char* ifname(unsigned index, char* name) = 0;
    // The id of a kernel control of macOS by its name: false with errno, no exception.
    virtual bool control_id(const char* name, std::uint32_t& id) {
        return sys::control_id(name, id) == 0;
    }

    // --- building the result -----------------------------------------------------------------
    // Py_BuildValue; a new reference, null with an exception set.
    virtual Object* build(const char* format, ...) = 0;
    // A str from the file system's encoding with surrogateescape.
    virtual Object* path(const char* data, std::size_t size) = 0;
    virtual Object* none() = 0;
};

inline constexpr int any_protocol = -1;

enum FamilyFlag : unsigned {
    accepts_without_address = 1u << 0,  // accept(2) refuses an address buffer (AF_ALG)
    options_are_64_bit = 1u << 1,       // getsockopt and setsockopt take a u64 (AF_VSOCK)
    resolves_names = 1u << 2,           // an address holds a host name and a port
    is_path = 1u << 3,                  // an address names a file
};

struct Family {
    int family;
    int protocol;  // any_protocol, or the one that this codec serves
    const char* name;
    // Bounds of an encoded address. largest 0: no address of this family can be read, and
    // `unreadable` is the text of the OSError.
    socklen_t smallest;
    socklen_t largest;
    // Encodes the caller's object: false with an exception set.
    bool (*encode)(Context& context, Object* object, Address& out);
    // Builds the caller's object from at least `smallest` bytes: null with an exception set.
    Object* (*decode)(Context& context, const sockaddr& address, socklen_t length);
    unsigned flags;
    const char* unreadable = nullptr;
};

// Any family without a row: it refuses to encode and decodes to (family, bytes).
extern const Family unknown_family;

// The row of a family and protocol, unknown_family where there is none.
const Family* find_family(int family, int protocol) noexcept;
std::span<const Family* const> all_families() noexcept;

// Decodes by the kernel's family, not the socket's: None for an empty address, and the unknown
// row's (family, bytes) for one too short to be read by its family's row.
Object* decode_address(Context& context, const Address& address);

// TypeError "bind(): AF_X address must be tuple, not list".
inline bool require_tuple(Context& context, Object* object, const char* family) {
    if (context.is_tuple(object)) return true;
    return context.fail(Error::type, "%s(): %s address must be tuple, not %.500s", context.caller,
                        family, context.type_name(object));
}

}  // namespace tracesock
