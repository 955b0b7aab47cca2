// Look-ups of names: what was asked, by whom, how long it took and what came of it. They wait for
// the drain in a queue of their own, because a name is no record of a fixed size.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "recorder/recorder.hpp"

namespace tracesock::recorder {

// A look-up that has ended.
struct LookupRecord {
    const char* kind;                  // the function's name
    std::string host;                  // UTF-8
    std::uint64_t start = 0, end = 0;  // ticks
    TraceId trace{};
    SpanId parent{};
    std::uint8_t flags = 0;  // of a record in the caller's context
    std::string state;       // of the trace
    std::string error;       // the exception's class; empty: none
    int code = 0;            // its own: an errno, or one of the resolver's
    std::vector<std::string> answers;
};

// Those that wait; guarded by the recorder's mutex.
class Lookups {
  public:
    static Lookups& get() noexcept;

    // Whether the drain is to be woken. What does not fit is counted.
    bool put(LookupRecord&& lookup);
    std::vector<LookupRecord> take() noexcept { return std::exchange(waiting_, {}); }
    std::uint64_t written() const noexcept { return written_; }
    std::uint64_t dropped() const noexcept { return dropped_; }
    std::size_t size() const noexcept { return waiting_.size(); }
    void clear() noexcept {
        waiting_.clear();
        written_ = dropped_ = 0;
    }

  private:
    std::vector<LookupRecord> waiting_;
    std::uint64_t written_ = 0;
    std::uint64_t dropped_ = 0;
};

enum class Asks : std::uint8_t {
    nobody,
    for_addresses,
    for_names,
};

// A look-up in progress; needs the interpreter's lock. Nothing while telemetry is off.
class LookupProbe {
  public:
    // `kind` is the name of the function. `numeric`: flags say that the host is a number, or is to
    // stay one. An address in place of the host asks nobody, but whoever connects to it next means
    // the address, not a name by which it was found.
    LookupProbe(const char* kind, Asks asks, bool numeric, std::string_view host) noexcept {
        if (active() != 0 && asks != Asks::nobody) [[unlikely]]
            begin(kind, asks, numeric, host);
    }
    LookupProbe(const LookupProbe&) = delete;
    LookupProbe& operator=(const LookupProbe&) = delete;

    // Whether what is found is to be said.
    explicit operator bool() const noexcept { return tells_; }
    // An address, and its text for the caller, where that says more than the number.
    void found(const Address& address, std::string_view text = {}) noexcept;
    void found(std::string_view name) noexcept;
    // It has ended: with the pending exception, which stays, or without.
    void end() noexcept {
        if (tells_) [[unlikely]]
            finish();
    }

  private:
    void begin(const char* kind, Asks asks, bool numeric, std::string_view host) noexcept;
    void finish() noexcept;

    static constexpr std::size_t most_answers = 16;  // that a span keeps

    bool tells_ = false;
    LookupRecord lookup_{};
};

}  // namespace tracesock::recorder
