// What a call leaves behind: 64 bytes, written by the calling thread, read by the drain.
#pragma once

#include <array>
#include <cstdint>

namespace tracesock::recorder {

using TraceId = std::array<std::uint8_t, 16>;  // big-endian, as OpenTelemetry writes it
using SpanId = std::array<std::uint8_t, 8>;

enum class Kind : std::uint8_t { send, connect, accept, first_byte, closed };

// Flags of a record.
inline constexpr std::uint8_t has_parent = 1;     // trace and parent hold the caller's context
inline constexpr std::uint8_t only_metric = 2;    // no span: not sampled, not wanted, or no parent
inline constexpr std::uint8_t abandoned = 4;      // a pending connect that nobody finished
inline constexpr std::uint8_t remote_parent = 8;  // the parent is another process's

// `error` of a record: an errno, or one of these.
inline constexpr std::int16_t no_error = 0;
inline constexpr std::int16_t timed_out = -1;    // the socket's own timeout
inline constexpr std::int16_t interrupted = -2;  // a signal handler raised
inline constexpr std::int16_t denied = -3;       // a policy or an audit hook refused

struct Record {
    std::uint64_t start;     // ticks
    std::uint64_t duration;  // ticks
    TraceId trace;
    SpanId parent;
    std::uint64_t size;        // send: bytes; closed: retransmitted segments
    std::uint32_t stall;       // send: microseconds waited; closed: smoothed RTT in microseconds
    std::uint32_t connection;  // the connection's number
    std::uint16_t calls;       // system calls, at most 65535; closed: the kind of socket
    std::int16_t error;        // closed: its protocol
    Kind kind;
    std::uint8_t flags;
    std::uint16_t state;  // of the trace: a number of TraceStates
};
static_assert(sizeof(Record) == 64);

// What socket(2) was called with: in the record of an end, which is then told without looking the
// connection up. A kind of 0 where the numbers are too large for it.
struct SocketKind {
    int family = 0;
    int type = 0;
    int protocol = 0;

    void put(Record& record) const noexcept {
        const bool small = family > 0 && family <= 0xff && type > 0 && type <= 0xff &&
                           protocol >= 0 && protocol <= 0x7fff;
        record.calls = small ? static_cast<std::uint16_t>(family << 8 | type) : std::uint16_t{0};
        record.error = small ? static_cast<std::int16_t>(protocol) : no_error;
    }
    static SocketKind of(const Record& record) noexcept {
        return {record.calls >> 8, record.calls & 0xff, record.error};
    }
};

}  // namespace tracesock::recorder
