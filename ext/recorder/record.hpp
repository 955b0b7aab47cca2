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
    std::uint16_t calls;       // system calls, at most 65535
    std::int16_t error;
    Kind kind;
    std::uint8_t flags;
    std::uint16_t state;  // of the trace: a number of TraceStates
};
static_assert(sizeof(Record) == 64);

}  // namespace tracesock::recorder
