#include "audit/line.hpp"

#include "audit/audit.hpp"
// clang-format off: audit.hpp brings Python.h, which comes first
#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <ctime>

#include "audit/sha256.hpp"
#include "families/inet.hpp"
// clang-format on

namespace tracesock::audit {
namespace {

constexpr std::int64_t second = 1'000'000'000;  // ns

// Fields one after the other. Once something is not plain, nothing that follows matters.
class Line {
  public:
    bool plain() const noexcept { return plain_; }
    std::string take() && {
        text_ += '}';
        return std::move(text_);
    }

    void name(std::string_view name) {
        if (text_.back() != '{') text_ += ',';
        text_ += '"';
        text_ += name;
        text_ += "\":";
    }
    void open(std::string_view field) {
        name(field);
        text_ += '{';
    }
    void close() { text_ += '}'; }
    // Of characters that need no escape.
    void word(std::string_view field, std::string_view value) {
        name(field);
        text_ += '"';
        text_ += value;
        text_ += '"';
    }
    void word_unless_empty(std::string_view field, std::string_view value) {
        if (!value.empty()) word(field, value);
    }
    // What a program or a peer has chosen: text.clean() leaves it as it is.
    void foreign(std::string_view field, std::string_view value) {
        name(field);
        text_ += '"';
        for (const char c : value) {
            if (c < 0x20 || c > 0x7e || c == '\\') plain_ = false;
            if (c == '"') text_ += '\\';
            text_ += c;
        }
        text_ += '"';
    }
    void raw(std::string_view field, std::string_view value) {
        name(field);
        text_ += value;
    }
    template <class Number>
    void number(std::string_view field, Number value) {
        name(field);
        digits(value);
    }
    template <std::size_t Size>
    void hexadecimal(std::string_view field, const std::array<std::uint8_t, Size>& bytes) {
        name(field);
        text_ += '"';
        for (const std::uint8_t byte : bytes) {
            text_ += "0123456789abcdef"[byte >> 4];
            text_ += "0123456789abcdef"[byte & 15];
        }
        text_ += '"';
    }
    // RFC 3339 in UTC with nanoseconds.
    void time(std::string_view field, std::int64_t ns) {
        const std::time_t seconds = static_cast<std::time_t>(ns / second);
        std::tm parts{};
        if (ns < 0 || ::gmtime_r(&seconds, &parts) == nullptr) {
            plain_ = false;
            return;
        }
        name(field);
        text_ += '"';
        const auto part = [&](int value, int width, char after) {
            padded(value, width);
            text_ += after;
        };
        part(parts.tm_year + 1900, 4, '-');
        part(parts.tm_mon + 1, 2, '-');
        part(parts.tm_mday, 2, 'T');
        part(parts.tm_hour, 2, ':');
        part(parts.tm_min, 2, ':');
        part(parts.tm_sec, 2, '.');
        padded(ns % second, 9);
        text_ += "Z\"";
    }
    // In seconds, as float.__repr__() writes it: the shortest digits that mean the same double.
    // Those are the digits themselves as long as there are at most fifteen.
    void duration(std::string_view field, std::int64_t ns) {
        if (ns < 0 || ns >= 1'000'000'000'000'000) {
            plain_ = false;
            return;
        }
        name(field);
        std::array<char, 24> buffer;
        const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), ns).ptr;
        std::string_view all(buffer.data(), static_cast<std::size_t>(end - buffer.data()));
        if (ns >= 100'000 || ns == 0) {
            digits(ns / second);
            const std::size_t fraction = text_.size() + 1;
            text_ += '.';
            padded(ns % second, 9);
            text_.resize(std::max(text_.find_last_not_of('0'), fraction) + 1);
            return;
        }
        const auto exponent = static_cast<int>(all.size()) - 10;
        all = all.substr(0, all.find_last_not_of('0') + 1);
        text_ += all.front();
        if (all.size() > 1) {
            text_ += '.';
            text_ += all.substr(1);
        }
        text_ += "e-0";
        digits(-exponent);
    }
    // The family of the address, or empty where there is none.
    std::string_view endpoint(std::string_view field, const unsigned char* bytes, std::size_t size,
                              bool write) {
        if (size < sizeof(sa_family_t)) return {};
        sa_family_t family;
        std::memcpy(&family, bytes, sizeof family);
        std::uint16_t port;
        if (family == AF_INET && size >= 8) {
            if (write) {
                std::memcpy(&port, bytes + 2, sizeof port);
                internet(field, AF_INET, bytes + 4, ntohs(port));
            }
            return "inet";
        }
        if (family == AF_INET6 && size >= 24) {
            constexpr std::array<unsigned char, 12> mapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255};
            constexpr std::array<unsigned char, 12> compatible{};
            std::memcpy(&port, bytes + 2, sizeof port);
            const bool is_mapped = std::memcmp(bytes + 8, mapped.data(), mapped.size()) == 0;
            // inet_ntop(3) would write its end as an IPv4 address.
            if (std::memcmp(bytes + 8, compatible.data(), compatible.size()) == 0 &&
                (bytes[20] != 0 || bytes[21] != 0))
                plain_ = false;
            if (write)
                internet(field, is_mapped ? AF_INET : AF_INET6, bytes + (is_mapped ? 20 : 8),
                         ntohs(port));
            return is_mapped ? "inet" : "inet6";
        }
#if !TRACESOCK_WINDOWS
        if (family == AF_UNIX) {
            const auto* const path = reinterpret_cast<const char*>(bytes) + sizeof family;
            std::string_view text(path, size - sizeof family);
            // An abstract name begins with a zero, and may hold others: not plain.
            if (text.empty() || text.front() != '\0') text = text.substr(0, text.find('\0'));
            if (write) {
                open(field);
                foreign("path", text);
                close();
            }
            return "unix";
        }
#endif
        plain_ = false;
        return {};
    }

  private:
    template <class Number>
    void digits(Number value) {
        std::array<char, 24> buffer;
        const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
        text_.append(buffer.data(), end);
    }
    void padded(std::int64_t value, int width) {
        const std::size_t at = text_.size();
        digits(value);
        const std::size_t written = text_.size() - at;
        if (written < static_cast<std::size_t>(width))
            text_.insert(at, static_cast<std::size_t>(width) - written, '0');
    }
    void internet(std::string_view field, int family, const unsigned char* bytes,
                  std::uint16_t port) {
        char text[INET6_ADDRSTRLEN + 1];
        if (family == AF_INET) {
            in_addr address;
            std::memcpy(&address, bytes, sizeof address);
            print_inet(address, text);
        } else if (::inet_ntop(AF_INET6, bytes, text, sizeof text) == nullptr) {
            plain_ = false;
            return;
        }
        open(field);
        word("address", text);
        number("port", port);
        close();
    }

    std::string text_ = "{";
    bool plain_ = true;
};

std::string_view transport_of(const Entry& entry) noexcept {
#if !TRACESOCK_WINDOWS
    if (entry.family == AF_UNIX) return "unix";
#endif
    if (entry.family != AF_INET && entry.family != AF_INET6) return {};
    if (entry.type == SOCK_RAW) return "raw";
    switch (entry.protocol) {
        case 6:
            return "tcp";
        case 17:
            return "udp";
        case 132:
            return "sctp";
        case 136:
            return "udplite";
        case 262:
            return "mptcp";
        default:
            return entry.type == SOCK_STREAM  ? "tcp"
                   : entry.type == SOCK_DGRAM ? "udp"
                                              : std::string_view{};
    }
}

}  // namespace

std::optional<std::string> line_of(const Entry& entry, const LineContext& context) {
    if (entry.event == Event::note) return {};
    const std::size_t peer_size = std::min<std::size_t>(entry.peer_size, address_capacity);
    const std::size_t local_size = std::min<std::size_t>(entry.local_size, address_capacity);
    Line line;
    line.number("seq", context.sequence);
    line.time("time", entry.time);
    line.word("event", name_of(entry.event));
    line.word_unless_empty("action", name_of(entry.decision));
    const std::string_view rule(entry.rule, std::min<std::size_t>(entry.rule_size, rule_capacity));
    if (!rule.empty() && (entry.flags & by_policy) != 0) line.foreign("rule", rule);
    if (entry.event == Event::accept)
        line.word("direction", "ingress");
    else if ((entry.flags & egress) != 0)
        line.word("direction", "egress");
    line.word_unless_empty("outcome", name_of(entry.outcome));
    if (entry.error != 0) line.word("error", context.error);
    if (entry.duration >= 0) line.duration("duration", entry.duration);
    const std::string_view there = line.endpoint({}, entry.peer, peer_size, false);
    const std::string_view here = line.endpoint({}, entry.local, local_size, false);
    // A record without addresses has the socket's family, whose names Python knows.
    if (there.empty() && here.empty()) return {};
    line.word("family", there.empty() ? here : there);
    line.word_unless_empty("transport", transport_of(entry));
    const std::string_view host(entry.host, std::min<std::size_t>(entry.host_size, host_capacity));
    if (!host.empty()) line.foreign("host", host);
    line.endpoint("peer", entry.peer, peer_size, true);
    line.endpoint("local", entry.local, local_size, true);
    if (entry.event == Event::close) {
        line.open("bytes");
        line.number("sent", entry.sent);
        line.number("received", entry.received);
        line.close();
    }
    if (entry.pid != 0) line.number("pid", entry.pid);
    if (entry.native_thread != 0) {
        line.open("thread");
        line.number("id", entry.native_thread);
        line.raw("name", context.thread_name);
        line.close();
    }
    if ((entry.flags & traced) != 0) {
        line.hexadecimal("trace_id", entry.trace);
        line.hexadecimal("span_id", entry.span);
    }
    line.word_unless_empty("source", context.source);
    if (entry.number != 0) line.number("number", entry.number);
    line.word("hash", no_hash);
    if (!line.plain()) return {};
    return std::move(line).take();
}

void seal(std::string& line, std::string& hash) {
    Sha256 sha;
    sha.update(hash);
    sha.update("\n");
    sha.update(line);
    const auto digest = sha.digest();
    hash.assign(digest.data(), digest.size());
    // Before the quote and the brace that end it.
    line.replace(line.size() - 2 - no_hash.size(), no_hash.size(), hash);
    line += '\n';
}

}  // namespace tracesock::audit
