// What connections leave for the metrics, added up: of many records that are told alike, Python
// sees the first few, for their exemplars, and the sums of the rest.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "recorder/recorder.hpp"

namespace tracesock::recorder {

// The span that an observation belongs to.
struct Exemplar {
    double seconds;
    bool traced;
    TraceId trace;
    SpanId span;
    std::uint8_t flags;
};

// The span of a connect.
struct OwnSpan {
    bool made = false;  // or none was wanted after all
    TraceId trace{};
    SpanId id{};
};

// What became of it.
enum class Making : std::uint8_t {
    done,     // made, or none was wanted
    left,     // to Python, with the record
    waiting,  // whoever makes it has kept the record, and brings it again
};

class Digest {
  public:
    // Records of a kind whose metrics have the same attributes.
    struct Group {
        Kind kind;
        SocketKind socket;
        std::string peer;  // encoded; empty for the ends of connections, which are told without
        std::string server;
        std::uint32_t shown = 0;  // to Python
        std::uint64_t records = 0;
        std::vector<double> durations;    // seconds, but the longest
        std::vector<double> round_trips;  // seconds; of ends
        std::uint64_t retransmits = 0;    // segments; of ends
        std::optional<Exemplar> longest;
    };

    // The one of this process; guarded by the recorder's drain_mutex.
    static Digest& get() noexcept;

    // Whether a record need not be seen by Python: it has nothing to tell, or is one of many and
    // counted here. `make_span(record, connection, identity, own)` is asked where a connect that is
    // to be counted wants a span, with the connection's identity.
    template <class MakeSpan>
    bool take(const Record& record, MakeSpan&& make_span) {
        if (record.kind == Kind::accept) return (record.flags & only_metric) != 0;
        const bool connects = record.kind == Kind::connect;
        if (!connects && record.kind != Kind::first_byte && record.kind != Kind::closed)
            return false;
        // Of the rarer outcomes Python knows more.
        if (connects && (record.error != no_error || (record.flags & abandoned) != 0)) return false;
        if (record.kind == Kind::closed && record.calls != 0) {
            Group& group = group_of_end(SocketKind::of(record));
            if (shows(group)) return false;
            add(group, record, {});
            return true;
        }
        Recorder& recorder = Recorder::get();
        const std::lock_guard lock(recorder.mutex);
        const auto found = recorder.connections.find(record.connection);
        if (found == recorder.connections.end()) return false;
        Group& group = group_of(record, *found->second);
        if (shows(group)) return false;
        OwnSpan own;
        if (connects && (record.flags & only_metric) == 0) {
            const std::string_view identity = std::string_view(key_).substr(1);
            const Making making = make_span(record, *found->second, identity, own);
            if (making == Making::left) return false;
            if (making == Making::waiting) return true;
        }
        add(group, record, own);
        return true;
    }

    // What was added since the last call, by group; numbers in ascending order.
    std::vector<Group> take_groups();
    // The numbers of the connections whose ends were counted.
    std::vector<std::uint32_t> take_ended();
    std::size_t size() const noexcept { return size_; }
    void clear() noexcept;

  private:
    // Of a group, in a second. With the longest of the rest these are the metrics' exemplars.
    static constexpr std::uint32_t most_shown = 3;
    static constexpr std::uint64_t shown_for = 1'000'000'000;  // ns

    Group& group_of(const Record& record, const Connection& connection);
    Group& group_of_end(const SocketKind& kind);
    // Whether Python is to see the record itself, as one of the first.
    static bool shows(Group& group) noexcept {
        if (group.shown >= most_shown) return false;
        ++group.shown;
        return true;
    }
    void add(Group& group, const Record& record, const OwnSpan& own);

    std::unordered_map<std::string, Group> groups_;
    std::vector<std::uint32_t> ended_;
    std::string key_;  // of the group looked up last: its kind, and the rest of what it is known by
    std::uint64_t began_ = 0;  // ticks at which showing began anew
    std::size_t size_ = 0;     // records
};

// What the attributes of a connection's metrics, and of its connect's span, depend on; of the
// latter all but its own address.
void append_identity(std::string& out, const Connection& connection);

}  // namespace tracesock::recorder
