// A record of the audit stream as calls leave it behind: of a fixed size and form, because the ring
// that holds it may be a file, which another process reads when this one was killed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace tracesock::audit {

enum class Event : std::uint8_t {
    connect,
    connected,  // how a connect that did not wait ended
    sendto,
    sendmsg,
    send,      // of a connected datagram socket
    sendfile,  // the same
    accept,
    listen,
    close,
    note,  // of the audit itself: `text` holds a JSON object
};

enum class Decision : std::uint8_t {
    none,  // nothing was to be decided
    allow,
    deny,
    would_deny,  // a policy that only reports
};

enum class Outcome : std::uint8_t {
    success,
    denied,
    in_progress,  // a connect that does not wait
    failed,       // `error` holds the errno, or 0 where the call raised something else
    timed_out,    // the socket's own timeout
    abandoned,    // closed while its connect was in progress
};

inline constexpr std::uint8_t egress = 1;      // else ingress
inline constexpr std::uint8_t traced = 2;      // trace and span are set
inline constexpr std::uint8_t suppressed = 4;  // instrumentation was suppressed in the caller
inline constexpr std::uint8_t by_policy = 8;   // a policy was in force

inline constexpr std::int64_t unknown_duration = -1;
inline constexpr std::size_t address_capacity = 128;
inline constexpr std::size_t rule_capacity = 64;
inline constexpr std::size_t host_capacity = 256;

// Numbers are in the machine's order.
struct Entry {
    std::uint64_t number;   // of this process's records, from 1
    std::int64_t time;      // ns since the epoch: when the call began
    std::int64_t duration;  // ns
    std::uint64_t sent;     // bytes
    std::uint64_t received;
    std::uint64_t thread;         // as threading.get_ident() has it
    std::uint64_t native_thread;  // as the system has it
    std::int32_t pid;
    std::int32_t error;
    std::int32_t family;
    std::int32_t type;
    std::int32_t protocol;
    std::int32_t descriptor;
    std::array<std::uint8_t, 16> trace;
    std::array<std::uint8_t, 8> span;
    Event event;
    Decision decision;
    Outcome outcome;
    std::uint8_t flags;
    std::uint16_t peer_size;
    std::uint16_t local_size;
    std::uint16_t rule_size;
    std::uint16_t host_size;
    std::uint16_t text_size;  // instead of the four
    std::uint16_t reserved;
    union {
        struct {
            unsigned char peer[address_capacity];
            unsigned char local[address_capacity];
            char rule[rule_capacity];
            char host[host_capacity];
        };
        char text[904];
    };
};
static_assert(sizeof(Entry) == 1024 && std::is_trivially_copyable_v<Entry>);

}  // namespace tracesock::audit
