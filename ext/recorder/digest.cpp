#include "recorder/digest.hpp"

#include <algorithm>
#include <utility>

namespace tracesock::recorder {
namespace {

double seconds_of(std::uint64_t ticks) noexcept {
    return static_cast<double>(Clock::duration(ticks)) / 1e9;
}

template <class Number>
void append(std::string& out, Number number) {
    out.append(reinterpret_cast<const char*>(&number), sizeof number);
}

}  // namespace

void append_identity(std::string& out, const Connection& connection) {
    const std::string_view peer(connection.peer), server(connection.server);
    append(out, connection.family);
    append(out, connection.type);
    append(out, connection.protocol);
    append(out, peer.size());
    out += peer;
    out += server;
}

Digest& Digest::get() noexcept {
    // Never destroyed, as the recorder.
    static Digest* const only = std::make_unique<Digest>().release();
    return *only;
}

Digest::Group& Digest::group_of(const Record& record, const Connection& connection) {
    const SocketKind socket{connection.family, connection.type, connection.protocol};
    if (record.kind == Kind::closed) return group_of_end(socket);
    key_.assign(1, static_cast<char>(record.kind));
    append_identity(key_, connection);
    Group& group = groups_.try_emplace(key_).first->second;
    if (group.records == 0) {
        group.kind = record.kind;
        group.socket = socket;
        group.peer = std::string_view(connection.peer);
        group.server = std::string_view(connection.server);
    }
    return group;
}

Digest::Group& Digest::group_of_end(const SocketKind& socket) {
    key_.assign(1, static_cast<char>(Kind::closed));
    append(key_, socket);
    Group& group = groups_.try_emplace(key_).first->second;
    group.kind = Kind::closed;
    group.socket = socket;
    return group;
}

void Digest::add(Group& group, const Record& record, const OwnSpan& own) {
    ++group.records;
    ++size_;
    if (record.kind == Kind::closed) {
        ended_.push_back(record.connection);
        if (record.stall != 0) group.round_trips.push_back(static_cast<double>(record.stall) / 1e6);
        group.retransmits += record.size;
        // Its start is not known.
        if (record.duration == 0) return;
    }
    const double seconds = seconds_of(record.duration);
    if (group.longest.has_value() && group.longest->seconds >= seconds) {
        group.durations.push_back(seconds);
        return;
    }
    if (group.longest.has_value()) group.durations.push_back(group.longest->seconds);
    const bool connects = record.kind == Kind::connect;
    group.longest = Exemplar{.seconds = seconds,
                             .traced = connects ? own.made : (record.flags & has_parent) != 0,
                             .trace = connects ? own.trace : record.trace,
                             .span = connects ? own.id : record.parent,
                             .flags = connects ? std::uint8_t{0} : record.flags};
}

std::vector<Digest::Group> Digest::take_groups() {
    std::vector<Group> taken;
    for (auto& [key, group] : groups_) {
        if (group.records == 0) continue;
        Group& own = taken.emplace_back(std::exchange(group, Group{}));
        group.shown = own.shown;
        std::ranges::sort(own.durations);
        std::ranges::sort(own.round_trips);
    }
    size_ = 0;
    const std::uint64_t now = Clock::ticks();
    if (Clock::duration(now - began_) >= shown_for) {
        began_ = now;
        groups_.clear();
    }
    return taken;
}

std::vector<std::uint32_t> Digest::take_ended() {
    return std::exchange(ended_, {});
}

void Digest::clear() noexcept {
    groups_.clear();
    ended_.clear();
    size_ = 0;
}

}  // namespace tracesock::recorder
