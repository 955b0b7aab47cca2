// The families' codecs without an interpreter: known bytes, round trips, refusals, and a fuzz of
// both directions with a fixed seed. Prints what it checked; exits with 1 where something was
// wrong. Meant to run under the address and undefined behaviour sanitizers.
#include <arpa/inet.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <initializer_list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "families/family.hpp"
#include "families/inet.hpp"

// A value of the caller's: what a Python object is for the interpreter's Context.
struct _object {
    enum class Kind { none, integer, text, bytes, tuple, other } kind = Kind::none;
    __int128 integer = 0;
    std::string text;  // of text and bytes
    std::vector<_object*> items;
};

namespace tracesock {

// Rows of other platforms, whose codecs run on any.
extern const Family bluetooth_rfcomm_windows_family;
extern const Family bluetooth_hci_freebsd_family;
extern const Family divert_family;
extern const Family system_family;
extern const Family system_unsupported_family;
extern const Family hyperv_family;
extern const Family hyperv_unsupported_family;

namespace {

using Kind = _object::Kind;

std::deque<_object> pool;

Object* make(Kind kind) {
    pool.emplace_back().kind = kind;
    return &pool.back();
}
Object* none() {
    return make(Kind::none);
}
Object* other() {
    return make(Kind::other);
}
Object* number(__int128 value) {
    Object* object = make(Kind::integer);
    object->integer = value;
    return object;
}
Object* text(std::string value) {
    Object* object = make(Kind::text);
    object->text = std::move(value);
    return object;
}
Object* bytes(std::string value) {
    Object* object = make(Kind::bytes);
    object->text = std::move(value);
    return object;
}
Object* tuple(std::vector<Object*> items) {
    Object* object = make(Kind::tuple);
    object->items = std::move(items);
    return object;
}

std::string decimal(__int128 value) {
    if (value < 0) return "-" + decimal(-value);
    std::string digits;
    do digits.insert(digits.begin(), static_cast<char>('0' + static_cast<int>(value % 10)));
    while ((value /= 10) != 0);
    return digits;
}

std::string repr(const Object* object) {
    if (object == nullptr) return "<null>";
    std::string out;
    switch (object->kind) {
        case Kind::none:
            return "None";
        case Kind::other:
            return "<object>";
        case Kind::integer:
            return decimal(object->integer);
        case Kind::text:
        case Kind::bytes:
            out = object->kind == Kind::bytes ? "b'" : "'";
            for (const char c : object->text) {
                if (c >= ' ' && c <= '~') {
                    out += c;
                } else {
                    char escaped[8];
                    std::snprintf(escaped, sizeof escaped, "\\x%02x",
                                  static_cast<unsigned>(static_cast<unsigned char>(c)));
                    out += escaped;
                }
            }
            return out + "'";
        case Kind::tuple:
            break;
    }
    out = "(";
    for (std::size_t i = 0; i < object->items.size(); ++i)
        out += (i > 0 ? ", " : "") + repr(object->items[i]);
    return out + (object->items.size() == 1 ? ",)" : ")");
}

const std::map<std::string, unsigned> interfaces{
    {"lo", 1}, {"eth0", 2}, {"vcan0", 7}, {"fifteen-letters", 9}};

class TestContext final : public Context {
  public:
    TestContext(const char* caller, int protocol) : Context(caller, protocol) {}

    bool failed = false;
    Error error = Error::system;
    std::string message;

    bool is_tuple(Object* object) override { return object->kind == Kind::tuple; }
    bool is_text(Object* object) override { return object->kind == Kind::text; }
    bool is_bytes(Object* object) override { return object->kind == Kind::bytes; }
    bool is_int(Object* object) override { return object->kind == Kind::integer; }
    const char* type_name(Object* object) override {
        switch (object->kind) {
            case Kind::none:
                return "NoneType";
            case Kind::integer:
                return "int";
            case Kind::text:
                return "str";
            case Kind::bytes:
                return "bytes";
            case Kind::tuple:
                return "tuple";
            case Kind::other:
                break;
        }
        return "object";
    }

    bool unpack(Object* object, const char* format, ...) override {
        if (object->kind != Kind::tuple)
            return fail(Error::system, "new style getargs format but argument is not a tuple");
        va_list arguments;
        va_start(arguments, format);
        const bool done = convert(object->items, format, arguments);
        va_end(arguments);
        return done;
    }
    bool parse(Object* object, const char* format, ...) override {
        va_list arguments;
        va_start(arguments, format);
        const bool done = convert({object}, format, arguments);
        va_end(arguments);
        return done;
    }
    Converter host_converter() override { return name; }
    Converter path_converter() override { return name; }
    bool path_or_buffer(Object* object, Text& out) override {
        if (object->kind != Kind::text && object->kind != Kind::bytes)
            return fail(Error::type, "a bytes-like object is required, not '%s'",
                        type_name(object));
        out.data = object->text.data();
        out.size = object->text.size();
        return true;
    }
    bool host_and_port(Object* object, const char* usage, Text& host, int& port) override {
        return unpack(object, (std::string("O&i;") + usage).c_str(), host_converter(), &host,
                      &port);
    }

    bool fail(Error kind, const char* format, ...) override {
        char buffer[1024];
        va_list arguments;
        va_start(arguments, format);
        std::vsnprintf(buffer, sizeof buffer, format, arguments);
        va_end(arguments);
        return set(kind, buffer);
    }
    bool fail_errno() override { return set(Error::os, "errno " + std::to_string(errno)); }
    bool error_is(Error kind) override { return failed && error == kind; }
    void clear() override { failed = false; }

    bool resolve(const char* host, int family, Address& out) override {
        const std::string name = *host != '\0' ? host : family == AF_INET ? "0.0.0.0" : "::";
        out = Address();
        void* const place = family == AF_INET ? static_cast<void*>(&out.inet.sin_addr)
                                              : static_cast<void*>(&out.inet6.sin6_addr);
        out.header.sa_family = static_cast<sa_family_t>(family);
        return inet_pton(family, name.c_str(), place) == 1 || set(Error::os, "gaierror");
    }
    unsigned ifindex(const char* interface) override {
        const auto found = interfaces.find(interface);
        if (found != interfaces.end()) return found->second;
        errno = ENODEV;
        return 0;
    }
    const char* ifname(unsigned index, char* out) override {
        for (const auto& [interface, number] : interfaces)
            if (number == index) return std::strcpy(out, interface.c_str());
        return "";
    }
    bool control_id(const char* control, std::uint32_t& id) override {
        id = 5;
        return std::strcmp(control, "org.example.control") == 0;
    }

    Object* build(const char* format, ...) override {
        std::vector<Object*> items;
        bool complete = true;
        va_list arguments;
        va_start(arguments, format);
        for (const char* code = format; *code != '\0'; ++code) {
            switch (*code) {
                case '(':
                case ')':
                    break;
                case 'i':
                    items.push_back(number(va_arg(arguments, int)));
                    break;
                case 'I':
                    items.push_back(number(va_arg(arguments, unsigned)));
                    break;
                case 'K':
                    items.push_back(number(va_arg(arguments, unsigned long long)));
                    break;
                case 'N':
                    items.push_back(va_arg(arguments, Object*));
                    complete = complete && items.back() != nullptr;
                    break;
                case 's':
                case 'y': {
                    const bool is_text = *code == 's';
                    const char* data = va_arg(arguments, const char*);
                    std::size_t size = 0;
                    if (code[1] == '#') {
                        ++code;
                        size = static_cast<std::size_t>(va_arg(arguments, std::ptrdiff_t));
                    } else {
                        size = std::strlen(data);
                    }
                    items.push_back(is_text ? tracesock::text({data, size})
                                            : tracesock::bytes({data, size}));
                    break;
                }
                default:
                    std::fprintf(stderr, "build: unknown code in %s\n", format);
                    std::abort();
            }
        }
        va_end(arguments);
        if (!complete) return nullptr;
        return *format == '(' ? tuple(std::move(items)) : items.front();
    }
    Object* path(const char* data, std::size_t size) override {
        return tracesock::text({data, size});
    }
    Object* none() override { return tracesock::none(); }

  private:
    bool set(Error kind, std::string said) {
        failed = true;
        error = kind;
        message = std::move(said);
        return false;
    }

    static int name(Object* object, void* slot) {
        auto& out = *static_cast<Text*>(slot);
        auto& context = *static_cast<TestContext*>(out.context);
        if (object->kind != Kind::text && object->kind != Kind::bytes) {
            context.fail(Error::type, "str, bytes or bytearray expected, not %s",
                         context.type_name(object));
            return 0;
        }
        if (object->text.find('\0') != std::string::npos) {
            context.fail(Error::value, "embedded null byte");
            return 0;
        }
        out.data = object->text.c_str();
        out.size = object->text.size();
        return 1;
    }

    // PyArg_VaParse, as far as the codecs use it.
    bool convert(const std::vector<Object*>& items, const char* format, va_list arguments) {
        std::string codes = format;
        std::string usage;
        std::string function = "function";
        if (const auto end = codes.find_first_of(";:"); end != std::string::npos) {
            (codes[end] == ';' ? usage : function) = codes.substr(end + 1);
            if (codes[end] == ':') function += "()";
            codes.resize(end);
        }
        std::size_t least = 0;
        std::size_t most = 0;
        bool optional = false;
        for (const char code : codes) {
            if (code == '|') optional = true;
            if (code == '|' || code == '&') continue;
            ++most;
            if (!optional) ++least;
        }
        if (items.size() < least || items.size() > most) {
            if (!usage.empty()) return fail(Error::type, "%s", usage.c_str());
            return fail(Error::type, "%s takes %s %zu argument%s (%zu given)", function.c_str(),
                        least == most          ? "exactly"
                        : items.size() < least ? "at least"
                                               : "at most",
                        items.size() < least ? least : most,
                        (items.size() < least ? least : most) == 1 ? "" : "s", items.size());
        }
        std::size_t position = 0;
        for (std::size_t i = 0; i < codes.size(); ++i) {
            if (codes[i] == '|') continue;
            Object* const item = position < items.size() ? items[position] : nullptr;
            ++position;
            switch (codes[i]) {
                case 'O':
                    if (i + 1 < codes.size() && codes[i + 1] == '&') {
                        ++i;
                        const auto converter = va_arg(arguments, Converter);
                        void* const slot = va_arg(arguments, void*);
                        if (item != nullptr && converter(item, slot) == 0) return false;
                    } else {
                        Object** const slot = va_arg(arguments, Object**);
                        if (item != nullptr) *slot = item;
                    }
                    break;
                case 'U': {
                    Object** const slot = va_arg(arguments, Object**);
                    if (item->kind != Kind::text) return mismatch(usage, "str", item);
                    *slot = item;
                    break;
                }
                case 's':
                case 'y': {
                    const char** const slot = va_arg(arguments, const char**);
                    if (item->kind != (codes[i] == 's' ? Kind::text : Kind::bytes))
                        return mismatch(usage, codes[i] == 's' ? "str" : "bytes", item);
                    if (item->text.find('\0') != std::string::npos)
                        return fail(Error::value, "embedded null character");
                    *slot = item->text.c_str();
                    break;
                }
                case 'i': {
                    int* const slot = va_arg(arguments, int*);
                    if (item == nullptr) break;
                    if (item->kind != Kind::integer) return not_integer(item);
                    if (item->integer != static_cast<int>(item->integer))
                        return fail(Error::overflow, "Python int too large to convert to C int");
                    *slot = static_cast<int>(item->integer);
                    break;
                }
                case 'I':
                    if (!masked(item, va_arg(arguments, unsigned*))) return false;
                    break;
                case 'H':
                    if (!masked(item, va_arg(arguments, unsigned short*))) return false;
                    break;
                case 'B':
                    if (!masked(item, va_arg(arguments, unsigned char*))) return false;
                    break;
                case 'k':
                    if (!masked(item, va_arg(arguments, unsigned long*))) return false;
                    break;
                case 'K':
                    if (!masked(item, va_arg(arguments, unsigned long long*))) return false;
                    break;
                default:
                    std::fprintf(stderr, "unpack: unknown code in %s\n", format);
                    std::abort();
            }
        }
        return true;
    }
    template <class T>
    bool masked(Object* item, T* slot) {
        if (item == nullptr) return true;
        if (item->kind != Kind::integer) return not_integer(item);
        *slot = static_cast<T>(item->integer);
        return true;
    }
    bool not_integer(Object* item) {
        return fail(Error::type, "'%s' object cannot be interpreted as an integer",
                    type_name(item));
    }
    bool mismatch(const std::string& usage, const char* wanted, Object* item) {
        if (!usage.empty()) return fail(Error::type, "%s", usage.c_str());
        return fail(Error::type, "must be %s, not %s", wanted, type_name(item));
    }
};

// --- checks ----------------------------------------------------------------------------------

long checks = 0;
long failures = 0;

void check(bool holds, const std::string& what) {
    ++checks;
    if (holds) return;
    if (++failures <= 50) std::fprintf(stderr, "FAILED %s\n", what.c_str());
}

std::string repeated(const char* part, int times) {
    std::string out;
    while (times-- > 0) out += part;
    return out;
}

std::string hex(const Address& address) {
    std::string out;
    char digits[3];
    for (socklen_t i = 0; i < address.length; ++i) {
        std::snprintf(digits, sizeof digits, "%02x", address.bytes[i]);
        out += digits;
    }
    return out;
}

// The row's own decoder on exactly the kernel's bytes, so that a read past them is caught.
Object* decode_exactly(TestContext& context, const Family& row, const unsigned char* data,
                       std::size_t size) {
    const std::unique_ptr<unsigned char, decltype(&std::free)> copy(
        static_cast<unsigned char*>(std::malloc(size > 0 ? size : 1)), &std::free);
    std::memcpy(copy.get(), data, size);
    return row.decode(context, *reinterpret_cast<const sockaddr*>(copy.get()),
                      static_cast<socklen_t>(size));
}

const Family& row(int family, int protocol = 0) {
    return *find_family(family, protocol);
}

// `object` encodes to `wire`, which decodes to `returned`.
void round_trip(const Family& family, Object* object, const std::string& wire,
                const std::string& returned) {
    const std::string what = std::string(family.name) + " " + repr(object);
    TestContext context("bind", family.protocol);
    Address address;
    if (!family.encode(context, object, address)) {
        check(false, what + ": " + context.message);
        return;
    }
    check(!context.failed, what + ": an error is left");
    check(address.length >= family.smallest && address.length <= family.largest,
          what + ": length out of the row's bounds");
    check(hex(address) == wire, what + ": encoded to " + hex(address) + ", not " + wire);
    Object* const back = decode_exactly(context, family, address.bytes, address.length);
    check(repr(back) == returned, what + ": decoded to " + repr(back) + ", not " + returned);
}

void refused(const Family& family, Object* object, Error kind, const std::string& said,
             int protocol = any_protocol) {
    const std::string what = std::string(family.name) + " " + repr(object);
    TestContext context("bind", protocol);
    Address address;
    check(!family.encode(context, object, address), what + ": not refused");
    check(context.failed && context.error == kind, what + ": another kind of error");
    check(context.message == said, what + ": '" + context.message + "', not '" + said + "'");
}

void decoded(int protocol, const std::string& wire, const std::string& expected) {
    Address address;
    for (std::size_t i = 0; i < wire.size(); i += 2)
        address.bytes[i / 2] =
            static_cast<unsigned char>(std::stoi(wire.substr(i, 2), nullptr, 16));
    address.length = static_cast<socklen_t>(wire.size() / 2);
    TestContext context("getsockname", protocol);
    Object* const object = decode_address(context, address);
    const std::string got = object != nullptr ? repr(object) : "error: " + context.message;
    check(got == expected, "decode " + wire + ": " + got + ", not " + expected);
}

constexpr int netlink = 16, packet = 17, rds = 21, can = 29, tipc = 30, bluetooth = 31, alg = 38,
              vsock = 40, qipcrtr = 42;
constexpr int can_raw = 1, can_bcm = 2, can_isotp = 6, can_j1939 = 7;
constexpr int l2cap = 0, hci = 1, sco = 2, rfcomm = 3;

void the_table() {
    std::set<std::string> names;
    std::set<std::pair<int, int>> served;
    std::set<int> ended;
    for (const Family* family : all_families()) {
        const std::string name = family->name;
        check(names.insert(name).second, name + ": two rows of this name");
        check(served.insert({family->family, family->protocol}).second, name + ": served twice");
        check(!ended.contains(family->family), name + ": stands after its family's general row");
        if (family->protocol == any_protocol) ended.insert(family->family);
        check(find_family(family->family, family->protocol) == family, name + ": not found");
        check(family->smallest <= family->largest || family->largest == 0, name + ": bounds");
        check(family->largest <= sizeof(sockaddr_storage), name + ": larger than any address");
        check((family->largest == 0) == (family->unreadable != nullptr), name + ": unreadable");
        check(family->encode != nullptr && family->decode != nullptr, name + ": no codec");
    }
    for (const char* name : {"inet",
                             "inet6",
                             "unix",
                             "netlink",
                             "packet",
                             "vsock",
                             "can_raw",
                             "can_bcm",
                             "can_isotp",
                             "can_j1939",
                             "can",
                             "tipc",
                             "alg",
                             "qipcrtr",
                             "rds",
                             "bluetooth_l2cap",
                             "bluetooth_rfcomm",
                             "bluetooth_hci",
                             "bluetooth_sco",
                             "bluetooth"})
        check(names.contains(name), std::string(name) + ": no row on Linux");
    check((row(vsock).flags & options_are_64_bit) != 0, "vsock: 64-bit options");
    check((row(alg).flags & accepts_without_address) != 0, "alg: accept without address");
    check(std::string(row(bluetooth, 99).unreadable) == "getsockaddrlen: unknown BT protocol",
          "bluetooth: unreadable");
    check(std::string(row(250).unreadable) == "getsockaddrlen: bad family", "unknown: unreadable");
}

void internet() {
    round_trip(row(AF_INET), tuple({text("127.0.0.1"), number(8080)}),
               "02001f907f0000010000000000000000", "('127.0.0.1', 8080)");
    round_trip(row(AF_INET), tuple({text(""), number(0)}), "02000000000000000000000000000000",
               "('0.0.0.0', 0)");
    round_trip(row(AF_INET6), tuple({text("::1"), number(443)}),
               "0a0001bb000000000000000000000000000000000000000100000000", "('::1', 443, 0, 0)");
    round_trip(row(AF_INET6), tuple({text("fe80::1"), number(1), number(5), number(0x200000003)}),
               "0a00000100000005fe80000000000000000000000000000103000000", "('fe80::1', 1, 5, 3)");
    // RDS and DIVERT have the IPv4 codec, and so the kernel's addresses have its family.
    for (const Family* family : {&row(rds), &divert_family})
        round_trip(*family, tuple({text("10.0.0.1"), number(18634)}),
                   "020048ca0a0000010000000000000000", "('10.0.0.1', 18634)");
    refused(row(rds), text("10.0.0.1"), Error::type,
            "bind(): AF_INET address must be tuple, not str");
    refused(row(AF_INET), tuple({text("127.0.0.1")}), Error::type,
            "AF_INET address must be a pair (host, port)");
    for (const __int128 port :
         {static_cast<__int128>(-1), static_cast<__int128>(65536), static_cast<__int128>(1) << 40})
        refused(row(AF_INET), tuple({text(""), number(port)}), Error::overflow,
                "bind(): port must be 0-65535.");
    refused(row(AF_INET), tuple({text("nowhere"), number(99999)}), Error::os, "gaierror");
    refused(row(AF_INET6), tuple({text("::"), number(1), number(0x100000)}), Error::overflow,
            "bind(): flowinfo must be 0-1048575.");
}

void local() {
    round_trip(row(AF_UNIX), text("/a"), "01002f6100", "'/a'");
    round_trip(row(AF_UNIX), bytes(std::string("\0a\0b", 4)), "010000610062", "b'\\x00a\\x00b'");
    round_trip(row(AF_UNIX), text(""), "0100", "''");
    TestContext context("bind", 0);
    Address address;
    check(row(AF_UNIX).encode(context, text(std::string(107, 'p')), address), "unix: 107 bytes");
    refused(row(AF_UNIX), text(std::string(108, 'p')), Error::os, "AF_UNIX path too long");
    check(row(AF_UNIX).encode(context, bytes(std::string(108, '\0')), address), "unix: 108 NUL");
    refused(row(AF_UNIX), bytes(std::string(109, '\0')), Error::os, "AF_UNIX path too long");
}

void kernel_links() {
    round_trip(row(netlink), tuple({number(1234), number(0x80000001)}), "10000000d204000001000080",
               "(1234, 2147483649)");
    round_trip(row(netlink), tuple({number(-1), number((static_cast<__int128>(1) << 32) + 2)}),
               "10000000ffffffff02000000", "(4294967295, 2)");
    refused(row(netlink), text("x"), Error::type,
            "bind(): AF_NETLINK address must be tuple, not str");
    refused(row(netlink), tuple({number(1)}), Error::type,
            "AF_NETLINK address must be a pair (pid, groups)");
    refused(row(netlink), tuple({number(1), none()}), Error::type,
            "'NoneType' object cannot be interpreted as an integer");

    round_trip(row(vsock), tuple({number(2), number(1024)}), "28000000000400000200000000000000",
               "(2, 1024)");
    round_trip(row(vsock), tuple({number(-1), number(-1)}), "28000000ffffffffffffffff00000000",
               "(4294967295, 4294967295)");
    refused(row(vsock), none(), Error::type,
            "getsockaddrarg: AF_VSOCK address must be tuple, not NoneType");
    refused(row(vsock), tuple({number(1)}), Error::type,
            "getsockaddrarg() takes exactly 2 arguments (1 given)");

    round_trip(row(qipcrtr), tuple({number(1), number(0xfffffffe)}), "2a00000001000000feffffff",
               "(1, 4294967294)");
    refused(row(qipcrtr), number(1), Error::type,
            "getsockaddrarg: AF_QIPCRTR address must be tuple, not int");
    refused(row(qipcrtr), tuple({}), Error::type,
            "getsockaddrarg() takes exactly 2 arguments (0 given)");

    round_trip(row(tipc), tuple({number(1), number(1000), number(5), number(9)}),
               "1e000102e80300000500000009000000", "(1, 1000, 5, 9, 2)");
    round_trip(row(tipc), tuple({number(2), number(1000), number(5), number(9), number(3)}),
               "1e000203e80300000500000000000000", "(2, 1000, 5, 5, 3)");
    round_trip(row(tipc), tuple({number(3), number(7), number(8), number(9)}),
               "1e000302080000000700000000000000", "(3, 7, 8, 0, 2)");
    for (const int type : {0, 4, 257})
        refused(row(tipc), tuple({number(type), number(1), number(1), number(1)}), Error::type,
                "Invalid address type");
    refused(row(tipc), tuple({number(1)}), Error::type,
            "AF_TIPC address must be a tuple (addr_type, v1, v2, v3[, scope])");
    decoded(0, "1e00090200000000000000000000000000", "error: Invalid address type");
    decoded(0, "1e0003ff080000000700000000000000", "(3, 7, 8, 0, 4294967295)");
}

void packets() {
    round_trip(row(packet), tuple({text("lo"), number(3)}),
               "110000030100000000000000" + std::string(16, '0'), "('lo', 3, 0, 0, b'')");
    round_trip(row(packet),
               tuple({text("eth0"), number(0x88cc), number(4), number(1), bytes("\1\2\3\4\5\6")}),
               "110088cc0200000001000406" + std::string("0102030405060000"),
               "('eth0', 35020, 4, 1, b'\\x01\\x02\\x03\\x04\\x05\\x06')");
    // A name that struct ifreq has no room for is cut.
    round_trip(row(packet), tuple({text("fifteen-letters-and-more"), number(0)}),
               "110000000900000000000000" + std::string(16, '0'),
               "('fifteen-letters', 0, 0, 0, b'')");
    refused(row(packet), text("lo"), Error::type,
            "bind(): AF_PACKET address must be tuple, not str");
    refused(row(packet), tuple({text("lo")}), Error::type,
            "AF_PACKET address must be a tuple of two to five elements");
    refused(row(packet), tuple({bytes("lo"), number(0)}), Error::type,
            "AF_PACKET address must be a tuple of two to five elements");
    refused(row(packet), tuple({text("lo"), number(0x100000000)}), Error::overflow,
            "bind(): address argument out of range");
    refused(row(packet), tuple({text("lo"), number(65536)}), Error::overflow,
            "bind(): proto must be 0-65535.");
    // The interface is looked up before the rest is judged.
    refused(row(packet), tuple({text("none"), number(65536)}), Error::os,
            "errno " + std::to_string(ENODEV));
    refused(row(packet),
            tuple({text("lo"), number(65536), number(0), number(0), bytes("123456789")}),
            Error::value, "Hardware address must be 8 bytes or less");
    refused(row(packet), tuple({text("lo"), number(0), number(0), number(0), text("1")}),
            Error::type, "a bytes-like object is required, not 'str'");
    refused(row(packet), tuple({text("none"), number(0), number(0), number(0), number(1)}),
            Error::type, "a bytes-like object is required, not 'int'");
    // The kernel gives as many bytes as the hardware address has, and says how many it has.
    decoded(0, "110000000200000001000006a0b0c0d0e0f0",
            "('eth0', 0, 0, 1, b'\\xa0\\xb0\\xc0\\xd0\\xe0\\xf0')");
    decoded(0, "110000000200000001000006a0b0", "('eth0', 0, 0, 1, b'\\xa0\\xb0')");
    decoded(0, "1100000002000000010000ffa0b0", "('eth0', 0, 0, 1, b'\\xa0\\xb0')");
    decoded(0, "110000000000000000000000", "('', 0, 0, 0, b'')");
    decoded(0, "110000006300000000000000", "('', 0, 0, 0, b'')");
    decoded(0, "1100000000000000", "(17, b'" + repeated("\\x00", 14) + "')");
}

void controller_area_network() {
    const std::string rest(32, '0');
    for (const int protocol : {can_raw, can_bcm}) {
        round_trip(row(can, protocol), tuple({text("vcan0")}), "1d00000007000000" + rest,
                   "('vcan0',)");
        round_trip(row(can, protocol), tuple({text("")}), "1d00000000000000" + rest, "('',)");
        refused(row(can, protocol), text("vcan0"), Error::type,
                "bind(): AF_CAN address must be tuple, not str");
        refused(row(can, protocol), tuple({text("vcan0"), number(1)}), Error::type,
                "AF_CAN address must be a tuple (interface, )");
        refused(row(can, protocol), tuple({text("sixteen-letters-")}), Error::os,
                "AF_CAN interface name too long");
        refused(row(can, protocol), tuple({text("none")}), Error::os,
                "errno " + std::to_string(ENODEV));
    }
    round_trip(row(can, can_isotp), tuple({text("vcan0"), number(0x123), number(-1)}),
               "1d0000000700000023010000ffffffff0000000000000000", "('vcan0', 291, 4294967295)");
    refused(row(can, can_isotp), text("vcan0"), Error::type,
            "bind(): AF_CAN address must be tuple, not str");
    refused(row(can, can_isotp), tuple({text("vcan0"), number(1)}), Error::type,
            "function takes exactly 3 arguments (2 given)");
    round_trip(row(can, can_j1939),
               tuple({text("vcan0"), number((static_cast<__int128>(1) << 64) + 2), number(0x3ff00),
                      number(257)}),
               "1d00000007000000020000000000000000ff030001000000", "('vcan0', 2, 261888, 1)");
    refused(row(can, can_j1939), none(), Error::type,
            "bind(): AF_CAN address must be tuple, not NoneType");
    refused(row(can, can_j1939), tuple({text("vcan0")}), Error::type,
            "function takes exactly 4 arguments (1 given)");
    // As the kernel gives an unbound one: no interface, no name, J1939_NO_PGN, J1939_NO_ADDR.
    decoded(can_j1939, "1d00000000000000000000000000000000000400ff000000", "('', 0, 262144, 255)");
    // A protocol without a codec.
    refused(row(can, 5), text("vcan0"), Error::os, "bind(): unsupported CAN protocol");
    decoded(5, "1d00000007000000", "('vcan0',)");
    // What each protocol's kernel code gives at least.
    decoded(can_raw, "1d00000007000000", "('vcan0',)");
    decoded(can_isotp, "1d000000070000000100000002000000", "('vcan0', 1, 2)");
    decoded(can_j1939, "1d00000007000000010000000000000002000000ff", "('vcan0', 1, 2, 255)");
    decoded(can_raw, "1d00000063000000", "('',)");
}

void crypto() {
    const std::string type = "68617368" + std::string(20, '0');
    const std::string name = "736861323536" + std::string(116, '0');
    round_trip(row(alg), tuple({text("hash"), text("sha256")}),
               "2600" + type + "0000000000000000" + name, "('hash', 'sha256', 0, 0)");
    round_trip(row(alg), tuple({text("hash"), text("sha256"), number(0x10001), number(2)}),
               "2600" + type + "0100000002000000" + name, "('hash', 'sha256', 1, 2)");
    refused(row(alg), none(), Error::type, "bind(): AF_ALG address must be tuple, not NoneType");
    refused(row(alg), tuple({text("hash")}), Error::type,
            "AF_ALG address must be a tuple (type, name[, feat[, mask]])");
    refused(row(alg), tuple({text(std::string(14, 't')), text(std::string(64, 'n'))}), Error::value,
            "AF_ALG type too long.");
    refused(row(alg), tuple({text(std::string(13, 't')), text(std::string(64, 'n'))}), Error::value,
            "AF_ALG name too long.");
    refused(row(alg), tuple({text(std::string("a\0b", 3)), text("n")}), Error::value,
            "embedded null character");
    TestContext context("bind", 0);
    Address address;
    check(row(alg).encode(context, tuple({text(std::string(13, 't')), text(std::string(63, 'n'))}),
                          address),
          "alg: the longest names");
}

void bluetooth_devices() {
    const Family& l2 = row(bluetooth, l2cap);
    round_trip(l2, tuple({text("01:23:45:67:89:AB"), number(0x1001)}),
               "1f000110ab896745230100000000", "('01:23:45:67:89:AB', 4097)");
    round_trip(l2, tuple({text("1:2:3:4:5:6"), number(0), number(4)}),
               "1f0000000605040302010400" + std::string("0000"), "('01:02:03:04:05:06', 0, 4)");
    round_trip(l2, tuple({text("ff:ff:ff:ff:ff:ff"), number(65537), number(0), number(258)}),
               "1f000100ffffffffffff00000200", "('FF:FF:FF:FF:FF:FF', 1, 0, 2)");
    // An older kernel's structure ends after the device.
    decoded(l2cap, "1f000110060504030201", "('01:02:03:04:05:06', 4097)");
    for (Object* object :
         {text("01:23:45:67:89:AB"), none(), tuple({}), tuple({text("01:23:45:67:89:AB")}),
          tuple({bytes("01:23:45:67:89:AB"), number(1)}), tuple({text("1:2:3:4:5:6"), text("1")}),
          tuple({text("1:2:3:4:5:6"), number(1), number(1), number(1), number(1)})})
        refused(l2, object, Error::os, "bind(): wrong format");
    for (const char* device :
         {"", "01", "01:23:45:67:89", "01:23:45:67:89:AB:CD", "01:23:45:67:89:ABx",
          "100:23:45:67:89:AB", "-1:23:45:67:89:AB", "01:23:45:67:89:GG", "01-23-45-67-89-AB"})
        refused(l2, tuple({text(device), number(1)}), Error::os, "bad bluetooth address");

    round_trip(row(bluetooth, rfcomm), tuple({text("1:2:3:4:5:6"), number(258)}),
               "1f000605040302010200", "('01:02:03:04:05:06', 2)");
    refused(row(bluetooth, rfcomm), tuple({text("1:2:3:4:5:6")}), Error::os,
            "bind(): wrong format");
    round_trip(bluetooth_rfcomm_windows_family, tuple({text("1:2:3:4:5:6"), number(258)}),
               "1f00060504030201" + std::string(36, '0') + "02010000",
               "('01:02:03:04:05:06', 258)");

    round_trip(row(bluetooth, hci), number(3), "1f0003000000", "3");
    round_trip(row(bluetooth, hci), tuple({number(3)}), "1f0003000000", "3");
    round_trip(row(bluetooth, hci), tuple({number(0xffff), number(65537)}), "1f00ffff0100",
               "(65535, 1)");
    refused(row(bluetooth, hci), text("hci0"), Error::os, "bind(): wrong format");
    refused(row(bluetooth, hci), tuple({number(1), number(1), number(1)}), Error::os,
            "bind(): wrong format");
    decoded(hci, "1f000300", "3");
    const Family& node = bluetooth_hci_freebsd_family;
    round_trip(node, text("ubt0hci"), "1f007562743068636900" + std::string(48, '0'), "'ubt0hci'");
    round_trip(node, text(repeated("n", 32)), "1f00" + repeated("6e", 32),
               "'" + repeated("n", 32) + "'");
    refused(node, text(std::string(33, 'n')), Error::value, "bind: node too long");
    refused(node, number(0), Error::os, "bind: wrong format");

    for (Object* device : {text("1:2:3:4:5:6"), bytes("1:2:3:4:5:6")})
        round_trip(row(bluetooth, sco), device, "1f00060504030201", "'01:02:03:04:05:06'");
    refused(row(bluetooth, sco), tuple({text("1:2:3:4:5:6")}), Error::os, "bind(): wrong format");
    refused(row(bluetooth, sco), text("x"), Error::os, "bad bluetooth address");
    refused(row(bluetooth, sco), bytes(std::string("1:2:3:4:5:6\0", 12)), Error::value,
            "embedded null character");

    refused(row(bluetooth, 7), none(), Error::os, "bind(): unknown Bluetooth protocol");
    decoded(7, "1f00060504030201", "error: Unknown Bluetooth protocol");
}

void other_platforms() {
    round_trip(system_family, tuple({number(1), number(2)}),
               "200002000100000002000000" + std::string(40, '0'), "(1, 2)");
    round_trip(system_family, text("org.example.control"),
               "200002000500000000000000" + std::string(40, '0'), "(5, 0)");
    refused(system_family, text("org.example.none"), Error::os,
            "cannot find kernel control with provided name");
    refused(system_family, text(std::string(97, 'c')), Error::value, "provided string is too long");
    for (Object* object : {none(), number(1), tuple({number(1)}), tuple({text("1"), number(1)})})
        refused(system_family, object, Error::type,
                "bind(): PF_SYSTEM address must be a str or a pair (id, unit)");
    refused(system_unsupported_family, none(), Error::os, "bind(): unsupported PF_SYSTEM protocol");

    const char* vm = "90DB8B89-0d35-4f79-8ce9-49ea0ac8b7cd";
    const char* service = "00112233-4455-6677-8899-aabbccddeeff";
    round_trip(hyperv_family, tuple({text(vm), text(service)}),
               "22000000898bdb90350d794f8ce949ea0ac8b7cd33221100554477668899aabbccddeeff",
               "('90db8b89-0d35-4f79-8ce9-49ea0ac8b7cd', '00112233-4455-6677-8899-aabbccddeeff')");
    refused(hyperv_family, text(vm), Error::type,
            "bind(): AF_HYPERV address must be tuple, not str");
    refused(hyperv_family, tuple({text(vm), number(1)}), Error::type,
            "AF_HYPERV address must be a str tuple (vm_id, service_id)");
    for (const char* wrong :
         {"", "x", "90db8b89-0d35-4f79-8ce9-49ea0ac8b7c", "90db8b89-0d35-4f79-8ce9-49ea0ac8b7cdd",
          "90db8b89+0d35-4f79-8ce9-49ea0ac8b7cd", "g0db8b89-0d35-4f79-8ce9-49ea0ac8b7cd"}) {
        refused(hyperv_family, tuple({text(wrong), text(service)}), Error::value,
                "bind(): AF_HYPERV address vm_id is not a valid UUID string");
        refused(hyperv_family, tuple({text(vm), text(wrong)}), Error::value,
                "bind(): AF_HYPERV address service_id is not a valid UUID string");
    }
    refused(hyperv_unsupported_family, none(), Error::os,
            "bind(): unsupported AF_HYPERV protocol: 3", 3);
}

void unknown() {
    refused(row(250), none(), Error::os, "bind(): bad family");
    decoded(0, "fa000102030405060708090a0b0c0d0e",
            "(250, b'\\x01\\x02\\x03\\x04\\x05\\x06\\x07\\x08\\x09\\x0a\\x0b\\x0c\\x0d\\x0e')");
    decoded(0, "", "None");
    // One byte less than a family needs says no more than that it is of this family.
    for (const auto& [protocol, wire] : {std::pair{0, "02001f907f00000100000000000000"},
                                         {0, "10000000d2040000010000"},
                                         {0, "2800000000040000020000"},
                                         {0, "1e000102e803000005000000090000"},
                                         {0, "1100000302000000000000"},
                                         {can_raw, "1d000000070000"},
                                         {can_isotp, "1d0000000700000001000000020000"},
                                         {can_j1939, "1d00000007000000010000000000000002000000"},
                                         {l2cap, "1f0001100605040302"},
                                         {rfcomm, "1f00060504030201"},
                                         {hci, "1f0003"},
                                         {sco, "1f000605040302"}}) {
        std::string bytes(wire);
        bytes.resize(32, '0');
        std::string shown;
        for (std::size_t i = 4; i < bytes.size(); i += 2) {
            const int value = std::stoi(bytes.substr(i, 2), nullptr, 16);
            const auto c = static_cast<char>(value);
            const std::string one(1, c);
            shown += c >= ' ' && c <= '~' ? one : "\\x" + bytes.substr(i, 2);
        }
        const int family = std::stoi(bytes.substr(0, 2), nullptr, 16);
        decoded(protocol, wire, "(" + std::to_string(family) + ", b'" + shown + "')");
    }
    const std::string zeros = repeated("\\x00", 14);
    decoded(0, "0200", "(2, b'" + zeros + "')");
    decoded(0, "00", "(0, b'" + zeros + "')");
}

// --- fuzz ------------------------------------------------------------------------------------

// splitmix64, from a fixed seed: the same run on every machine.
class Random {
  public:
    std::uint64_t next() noexcept {
        std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        return z ^ (z >> 31);
    }
    std::size_t below(std::size_t limit) noexcept { return next() % limit; }

  private:
    std::uint64_t state_ = 20;
};

// Our reading of dotted decimals is inet_pton(3)'s: of every text that is nearly one.
void dotted_decimals(Random& random) {
    const auto same = [](const std::string& text) {
        in_addr ours{}, theirs{};
        const bool known = ::inet_pton(AF_INET, text.c_str(), &theirs) == 1;
        check(parse_inet(text.c_str(), ours) == known && (!known || ours.s_addr == theirs.s_addr),
              "dotted decimals: " + text);
    };
    for (const char* text : {"",           ".",
                             "1",          "1.2.3",
                             "1.2.3.",     ".1.2.3",
                             "1.2.3.4",    "1.2.3.4.",
                             "1.2.3.4.5",  "1..3.4",
                             "0.0.0.0",    "00.0.0.0",
                             "01.2.3.4",   "255.255.255.255",
                             "256.0.0.0",  "1.2.3.999",
                             "1.2.3.1000", "99999999999.1.1.1",
                             "1.2.3.4 ",   " 1.2.3.4",
                             "1.2.3.0x4",  "1.2.3.-4",
                             "a"})
        same(text);
    for (int i = 0; i < 200'000; ++i) {
        std::string text;
        for (int left = static_cast<int>(random.below(16)); left > 0; --left)
            text += "0123456789.. 2505a"[random.below(18)];
        same(text);
        text.clear();
        for (int part = 0; part < 4; ++part)
            text += (part != 0 ? "." : "") + std::to_string(random.below(300));
        same(text);
    }
}

const std::vector<const Family*>& every_row() {
    static const std::vector<const Family*> rows = [] {
        std::vector<const Family*> all(all_families().begin(), all_families().end());
        for (const Family* family :
             {&bluetooth_rfcomm_windows_family, &bluetooth_hci_freebsd_family, &divert_family,
              &system_family, &system_unsupported_family, &hyperv_family,
              &hyperv_unsupported_family})
            all.push_back(family);
        return all;
    }();
    return rows;
}

// A result or an error, never both and never neither.
bool answered(const TestContext& context, bool succeeded) {
    return succeeded != context.failed;
}

void fuzz_decoders(Random& random, int rounds) {
    for (int round = 0; round < rounds; ++round) {
        pool.clear();
        const Family& family = *every_row()[random.below(every_row().size())];
        unsigned char data[sizeof(sockaddr_storage)];
        const bool zeros = random.below(4) == 0;
        for (auto& byte : data)
            byte = static_cast<unsigned char>(zeros && random.below(8) != 0 ? 0 : random.next());
        TestContext context("recvfrom", family.protocol);
        const std::size_t size = family.smallest + random.below(sizeof data - family.smallest + 1);
        Object* const object = decode_exactly(context, family, data, size);
        check(answered(context, object != nullptr), std::string(family.name) + ": fuzzed bytes");

        // And through the table, with any family and any length, even one beyond the storage.
        Address address;
        std::memcpy(address.bytes, data, sizeof data);
        if (random.below(2) == 0)
            address.header.sa_family = static_cast<sa_family_t>(family.family);
        address.length = static_cast<socklen_t>(random.below(2 * sizeof data));
        TestContext any("recvfrom", random.below(2) == 0 ? family.protocol
                                                         : static_cast<int>(random.below(10)));
        Object* const read = decode_address(any, address);
        check(answered(any, read != nullptr), "decode_address: fuzzed bytes");
    }
}

Object* any_value(Random& random, int depth) {
    static const std::vector<std::string> words{"",
                                                "127.0.0.1",
                                                "::1",
                                                "lo",
                                                "vcan0",
                                                "hash",
                                                "sha256",
                                                "1:2:3:4:5:6",
                                                "01:23:45:67:89:AB",
                                                "00112233-4455-6677-8899-aabbccddeeff",
                                                "org.example.control",
                                                std::string("\0\0x", 3),
                                                std::string(15, 'a'),
                                                std::string(16, 'a'),
                                                std::string(300, 'b')};
    switch (random.below(depth > 0 ? 9 : 6)) {
        case 0:
            return none();
        case 1:
            return number(static_cast<__int128>(random.next()) - (1LL << 62));
        case 2:
            return number(static_cast<__int128>(random.below(8)));
        case 3:
            return text(words[random.below(words.size())]);
        case 4:
            return bytes(words[random.below(words.size())]);
        case 5:
            return other();
        default: {
            std::vector<Object*> items;
            for (std::size_t i = random.below(6); i > 0; --i)
                items.push_back(any_value(random, depth - 1));
            return tuple(std::move(items));
        }
    }
}

// Whatever encodes fits its row, and once decoded, encodes to what decodes to the same.
void fuzz_encoders(Random& random, int rounds) {
    for (int round = 0; round < rounds; ++round) {
        pool.clear();
        const Family& family = *every_row()[random.below(every_row().size())];
        Object* const object = any_value(random, 2);
        TestContext context("sendto", family.protocol);
        Address address;
        const bool encoded = family.encode(context, object, address);
        const std::string what = std::string(family.name) + " " + repr(object);
        check(answered(context, encoded), what);
        if (!encoded) continue;
        check(address.length >= family.smallest && address.length <= family.largest,
              what + ": length");
        Object* const first = decode_exactly(context, family, address.bytes, address.length);
        Address again;
        check(first != nullptr && family.encode(context, first, again), what + ": once more");
        Object* const second = decode_exactly(context, family, again.bytes, again.length);
        check(repr(first) == repr(second), what + ": " + repr(first) + " then " + repr(second));
    }
}

}  // namespace
}  // namespace tracesock

int main() {
    using namespace tracesock;
    the_table();
    internet();
    local();
    kernel_links();
    packets();
    controller_area_network();
    crypto();
    bluetooth_devices();
    other_platforms();
    unknown();
    const long named = checks;
    Random random;
    dotted_decimals(random);
    fuzz_decoders(random, 70'000);
    fuzz_encoders(random, 70'000);
    std::printf("%zu rows, %ld checks, %ld fuzzed, %ld failed\n", every_row().size(), named,
                checks - named, failures);
    return failures == 0 ? 0 : 1;
}
