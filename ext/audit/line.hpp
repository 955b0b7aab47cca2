// The line of a record in tracesock's own form, of those that most records are.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "audit/entry.hpp"

namespace tracesock::audit {

// What the entry does not know.
struct LineContext {
    std::uint64_t sequence;
    std::string_view source;       // hexadecimal digits
    std::string_view thread_name;  // in JSON, with its quotes
    std::string_view error;        // the errno's name
};

// The JSON object that formats.jsonl() makes of the record, character by character, its hash still
// zeros. Nothing for what only Python knows how to write: notes, names that are not plain ASCII,
// families other than Internet and Unix, times and durations that a double does not hold.
std::optional<std::string> line_of(const Entry& entry, const LineContext& context);

inline constexpr std::string_view no_hash =
    "0000000000000000000000000000000000000000000000000000000000000000";

// Puts the line into the chain: its hash into its place, over `hash`, that of the line before, and
// itself; and its end after it. `hash` is its own afterwards. As chain.link().
void seal(std::string& line, std::string& hash);

}  // namespace tracesock::audit
