#include "recorder/trace_states.hpp"

#include <limits>

namespace tracesock::recorder {

TraceStates& TraceStates::get() noexcept {
    static auto* const only = new TraceStates();
    return *only;
}

TraceStates::Number TraceStates::hold(std::string_view text) noexcept {
    if (text.empty()) return 0;
    try {
        const std::lock_guard lock(mutex_);
        if (const auto found = numbers_.find(text); found != numbers_.end()) {
            ++entries_[found->second - 1u].holders;
            return found->second;
        }
        if (free_.empty()) {
            if (entries_.size() == std::numeric_limits<Number>::max()) return 0;
            // Room for every number, so that giving one back needs none.
            free_.reserve(entries_.size() + 1);
            entries_.emplace_back();
            free_.push_back(static_cast<Number>(entries_.size()));
        }
        const Number number = free_.back();
        Entry& entry = entries_[number - 1u];
        entry.text = text;
        numbers_.emplace(entry.text, number);
        free_.pop_back();
        entry.holders = 1;
        return number;
    } catch (...) {
        return 0;
    }
}

void TraceStates::hold(Number number) noexcept {
    if (number == 0) return;
    const std::lock_guard lock(mutex_);
    ++entries_[number - 1u].holders;
}

void TraceStates::drop(Number number) noexcept {
    if (number == 0) return;
    const std::lock_guard lock(mutex_);
    Entry& entry = entries_[number - 1u];
    if (--entry.holders != 0) return;
    entry.due = epoch_ + 2;
    try {
        dropped_.emplace_back(entry.due, number);
    } catch (...) {
        // Kept for good then, which is all that happens.
    }
}

std::string TraceStates::text(Number number) const {
    if (number == 0) return {};
    const std::lock_guard lock(mutex_);
    return entries_[number - 1u].text;
}

void TraceStates::begin_round(std::uint64_t epoch) {
    const std::lock_guard lock(mutex_);
    epoch_ = epoch;
    for (; !dropped_.empty() && dropped_.front().first <= epoch; dropped_.pop_front()) {
        const Number number = dropped_.front().second;
        Entry& entry = entries_[number - 1u];
        // Held again, or forgotten or dropped once more since.
        if (entry.holders != 0 || entry.text.empty() || entry.due > epoch) continue;
        numbers_.erase(entry.text);
        entry.text.clear();
        free_.push_back(number);
    }
}

}  // namespace tracesock::recorder
