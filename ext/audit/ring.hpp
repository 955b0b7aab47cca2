// The ring between the calls that leave records and the sinks that deliver them. No Python here.
//
// Each sink reads at its own pace. Where the ring is full, the sink that is behind decides: the
// call waits, or the call is refused, or the sink's oldest records are dropped and counted. A
// record is given up by the ring only when its sink has delivered it, so with a file behind the
// ring (the spool) what a killed process had not delivered is still there.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "audit/entry.hpp"

namespace tracesock::audit {

enum class WhenFull : std::uint8_t { block, drop, fail_closed };

inline constexpr std::size_t most_sinks = 8;
inline constexpr std::size_t source_size = 16;

// The first page of a spool.
struct RingHeader {
    char magic[8];
    std::uint32_t entry_size;
    std::uint32_t capacity;  // entries
    std::int32_t pid;
    std::uint32_t reserved;
    char source[source_size];            // names the process in the records: hexadecimal digits
    std::atomic<std::uint64_t> emitted;  // records left
    std::atomic<std::uint64_t> refused;  // calls refused because no record could be kept
    std::atomic<std::uint64_t> lost;     // records that could not wait for room
    struct Sink {
        std::atomic<std::uint64_t> taken;      // records before this were handed to the sink
        std::atomic<std::uint64_t> delivered;  // records before this were delivered or dropped
        std::atomic<std::uint64_t> dropped;    // how many of them were dropped
        std::atomic<std::uint32_t> in_use;
        WhenFull when_full;
        bool failing;
        std::uint16_t reserved;
    } sinks[most_sinks];
};
inline constexpr std::size_t header_size = 4096;
inline constexpr char ring_magic[8] = {'T', 'S', 'A', 'U', 'D', 'I', 'T', '1'};
static_assert(sizeof(RingHeader) <= header_size);

class Ring {
  public:
    // `path`: the file that holds the ring, made anew; empty: memory. Null with `error` an errno.
    static std::shared_ptr<Ring> open(const std::string& path, std::uint32_t capacity,
                                      const std::string& source, int& error);
    ~Ring();
    Ring(const Ring&) = delete;
    Ring& operator=(const Ring&) = delete;

    // --- for calls --------------------------------------------------------------------------
    enum class Space : std::uint8_t {
        reserved,
        full,     // try again: waited without success
        refused,  // a sink that fails closed cannot take a record
        closed,   // no record is wanted any more
    };
    // Sets room for a record aside, waiting for it at most `wait` nanoseconds.
    Space reserve(std::int64_t wait) noexcept;
    void unreserve() noexcept;
    // Leaves a record in the room set aside, and gives it its number.
    void commit(Entry& entry) noexcept;

    // Counts a record that was not left, because its caller could not wait.
    void lose() noexcept { header_->lost.fetch_add(1, std::memory_order_relaxed); }

    // --- for sinks --------------------------------------------------------------------------
    // The number of a new sink, which gets the records from now on; -1 where there are too many.
    int add_sink(WhenFull when_full) noexcept;
    void remove_sink(int sink) noexcept;
    // Copies the sink's next records, waiting at most `wait` nanoseconds for one, and then a moment
    // for more; how many. `before`: how many records were left before the first one.
    std::size_t take(int sink, std::span<Entry> out, std::int64_t wait,
                     std::uint64_t& before) noexcept;
    // The sink has delivered the first `before` records that were left (but for those dropped).
    void delivered(int sink, std::uint64_t before) noexcept;
    // Whether the sink cannot deliver at present: one that fails closed then refuses at once.
    void set_failing(int sink, bool failing) noexcept;
    // Waits at most `wait` nanoseconds until the sink has delivered all that was left by now.
    bool flush(int sink, std::int64_t wait) noexcept;
    // Takes no more records. What is there can still be taken.
    void close() noexcept;
    // Ends every wait now and later: for the end of the process.
    void interrupt() noexcept;

    const RingHeader& header() const noexcept { return *header_; }

    // Around fork(2): so that no other thread holds the mutex in the child.
    void lock() noexcept { mutex_.lock(); }
    void unlock() noexcept { mutex_.unlock(); }

  private:
    Ring() = default;

    bool room() const noexcept;
    std::uint64_t oldest_needed() const noexcept;
    bool make_room() noexcept;
    // As many records as a sink need not wait for more of.
    std::uint64_t enough() const noexcept {
        return std::clamp<std::uint64_t>(capacity_ / 8, 1, 128);
    }
    Entry& slot(std::uint64_t place) const noexcept { return entries_[place % capacity_]; }

    std::mutex mutex_;
    std::condition_variable arrived_;
    std::condition_variable gathered_;
    std::condition_variable space_;
    RingHeader* header_ = nullptr;
    Entry* entries_ = nullptr;
    std::uint64_t capacity_ = 0;
    std::uint64_t reserved_ = 0;
    int flushing_ = 0;  // callers of flush()
    std::size_t mapped_ = 0;
    std::uint64_t prepared_ = 0;  // entries from the first on that have their memory, or will soon
    bool closed_ = false;
    bool interrupted_ = false;
};

}  // namespace tracesock::audit
