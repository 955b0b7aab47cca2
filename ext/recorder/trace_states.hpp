// The values of W3C `tracestate` that the contexts in use have. A record has room for a number: a
// text has it while a thread's context, a call or a connection holds it, and until the drain has
// read the records that were written by then.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace tracesock::recorder {

class TraceStates {
  public:
    using Number = std::uint16_t;  // 0: no state

    // Never destroyed, as the recorder is not.
    static TraceStates& get() noexcept;

    // The number of a text, held: the caller's to drop. 0 where there is no room or no memory: what
    // is told is then told without its state.
    Number hold(std::string_view text) noexcept;
    // Once more, what the caller knows to be held.
    void hold(Number number) noexcept;
    void drop(Number number) noexcept;
    // The text of a number that a record has.
    std::string text(Number number) const;
    // At the start of a round of the drain, `epoch` having ended: forgets what nobody has held for
    // two of them.
    void begin_round(std::uint64_t epoch);

    // Around a fork.
    void lock() { mutex_.lock(); }
    void unlock() { mutex_.unlock(); }

  private:
    struct Entry {
        std::string text;
        std::uint32_t holders = 0;
        std::uint64_t due = 0;  // the epoch from which it may be forgotten, without holders
    };

    mutable std::mutex mutex_;   // taken after the recorder's
    std::deque<Entry> entries_;  // that of number 1 first
    std::unordered_map<std::string_view, Number> numbers_;
    std::vector<Number> free_;
    std::deque<std::pair<std::uint64_t, Number>> dropped_;  // due, in that order
    std::uint64_t epoch_ = 0;
};

// A state that is held as long as this lives.
class HeldState {
  public:
    HeldState() = default;
    HeldState(const HeldState&) = delete;
    HeldState& operator=(const HeldState&) = delete;
    ~HeldState() { reset(0); }

    TraceStates::Number get() const noexcept { return number_; }
    // `number`: one that the caller knows to be held.
    void reset(TraceStates::Number number) noexcept {
        if (number != 0) [[unlikely]]
            TraceStates::get().hold(number);
        if (number_ != 0) [[unlikely]]
            TraceStates::get().drop(number_);
        number_ = number;
    }

  private:
    TraceStates::Number number_ = 0;
};

}  // namespace tracesock::recorder
