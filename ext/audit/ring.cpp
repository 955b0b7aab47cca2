#include "audit/ring.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <new>

#include "core/handle.hpp"
#include "core/syscalls.hpp"

#if TRACESOCK_WINDOWS
#include <cstdlib>
#else
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace tracesock::audit {
namespace {

using std::chrono::nanoseconds;

// How long a sink waits for more once there is a record.
constexpr std::chrono::milliseconds gathering{2};

// Room for the ring: zeros, in a file or in memory. Null with `error` an errno.
void* map(const std::string& path, std::size_t size, int& error) noexcept {
#if TRACESOCK_WINDOWS
    if (!path.empty()) {
        error = ENOTSUP;
        return nullptr;
    }
    void* memory = std::calloc(1, size);
    error = memory == nullptr ? ENOMEM : 0;
    return memory;
#else
    UniqueDescriptor file;
    if (!path.empty()) {
        file.reset(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
        if (file.get() < 0) {
            error = errno;
            return nullptr;
        }
        // The blocks now: to write where the disk is full would be a fatal signal.
        error = ::posix_fallocate(file.get(), 0, static_cast<off_t>(size));
        if (error != 0) {
            ::unlink(path.c_str());
            return nullptr;
        }
    }
    void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                          path.empty() ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, file.get(), 0);
    error = memory == MAP_FAILED ? errno : 0;
    return memory == MAP_FAILED ? nullptr : memory;
#endif
}

}  // namespace

std::shared_ptr<Ring> Ring::open(const std::string& path, std::uint32_t capacity,
                                 const std::string& source, int& error) {
    std::shared_ptr<Ring> ring(new Ring());
    ring->mapped_ = header_size + std::size_t{capacity} * sizeof(Entry);
    void* memory = map(path, ring->mapped_, error);
    if (memory == nullptr) return nullptr;
    ring->header_ = new (memory) RingHeader{};
    ring->entries_ = reinterpret_cast<Entry*>(static_cast<char*>(memory) + header_size);
    ring->capacity_ = capacity;
    RingHeader& header = *ring->header_;
    header.entry_size = sizeof(Entry);
    header.capacity = capacity;
#if !TRACESOCK_WINDOWS
    header.pid = ::getpid();
#endif
    std::memcpy(header.source, source.data(), std::min(source.size(), source_size));
    // The last: a spool without it was never in use.
    std::memcpy(header.magic, ring_magic, sizeof ring_magic);
    return ring;
}

Ring::~Ring() {
    if (header_ == nullptr) return;
#if TRACESOCK_WINDOWS
    std::free(header_);
#else
    ::munmap(header_, mapped_);
#endif
}

namespace {

// What is in use of an entry, which is a fifth of it as a rule.
void copy(Entry& to, const Entry& from) noexcept {
    std::memcpy(static_cast<void*>(&to), &from, offsetof(Entry, peer));
    if (from.event == Event::note) {
        std::memcpy(to.text, from.text, std::min<std::size_t>(from.text_size, sizeof from.text));
        return;
    }
    const auto part = [](auto& there, const auto& here, std::size_t size) {
        std::memcpy(there, here, std::min(size, sizeof here));
    };
    part(to.peer, from.peer, from.peer_size);
    part(to.local, from.local, from.local_size);
    part(to.rule, from.rule, from.rule_size);
    part(to.host, from.host, from.host_size);
}

}  // namespace

// --- room ---------------------------------------------------------------------------------------

// The number of records that no sink needs any more. One that drops needs none that it was handed.
std::uint64_t Ring::oldest_needed() const noexcept {
    std::uint64_t oldest = header_->emitted.load(std::memory_order_relaxed);
    for (const auto& sink : header_->sinks) {
        if (sink.in_use.load(std::memory_order_relaxed) == 0) continue;
        const auto& place = sink.when_full == WhenFull::drop ? sink.taken : sink.delivered;
        oldest = std::min(oldest, place.load(std::memory_order_relaxed));
    }
    return oldest;
}

bool Ring::room() const noexcept {
    return header_->emitted.load(std::memory_order_relaxed) + reserved_ - oldest_needed() <
           capacity_;
}

// Drops the oldest records of the sinks that are behind and may drop.
bool Ring::make_room() noexcept {
    const std::uint64_t oldest = oldest_needed();
    const std::uint64_t end = header_->emitted.load(std::memory_order_relaxed);
    // A part of the ring at a time, so that a sink that is behind has one gap, not thousands.
    const std::uint64_t step = std::max<std::uint64_t>(1, capacity_ / 8);
    for (auto& sink : header_->sinks) {
        if (sink.in_use.load(std::memory_order_relaxed) == 0 || sink.when_full != WhenFull::drop)
            continue;
        const std::uint64_t taken = sink.taken.load(std::memory_order_relaxed);
        if (taken != oldest) continue;
        const std::uint64_t count = std::min(step, end - taken);
        sink.taken.store(taken + count, std::memory_order_relaxed);
        sink.dropped.fetch_add(count, std::memory_order_relaxed);
    }
    return room();
}

Ring::Space Ring::reserve(std::int64_t wait) noexcept {
    std::unique_lock guard(mutex_);
    const auto until = std::chrono::steady_clock::now() + nanoseconds(wait);
    for (;;) {
        if (closed_) return Space::closed;
        const bool enough = room() || make_room();
        for (const auto& sink : header_->sinks) {
            if (sink.in_use.load(std::memory_order_relaxed) == 0 ||
                sink.when_full != WhenFull::fail_closed)
                continue;
            const std::uint64_t behind = header_->emitted.load(std::memory_order_relaxed) +
                                         reserved_ - sink.delivered.load(std::memory_order_relaxed);
            if (sink.failing || behind >= capacity_) {
                header_->refused.fetch_add(1, std::memory_order_relaxed);
                return Space::refused;
            }
        }
        if (enough) {
            ++reserved_;
            return Space::reserved;
        }
        if (interrupted_ || wait <= 0) return Space::full;
        if (space_.wait_until(guard, until) == std::cv_status::timeout) wait = 0;
    }
}

void Ring::unreserve() noexcept {
    {
        std::lock_guard guard(mutex_);
        --reserved_;
    }
    space_.notify_one();
}

void Ring::commit(Entry& entry) noexcept {
    bool many = false;
    {
        std::lock_guard guard(mutex_);
        const std::uint64_t place = header_->emitted.load(std::memory_order_relaxed);
        entry.number = place + 1;
        copy(slot(place), entry);
        // After the record itself, also for who reads the spool of a killed process.
        header_->emitted.store(place + 1, std::memory_order_release);
        --reserved_;
        many = (place + 1) % enough() == 0;
    }
    arrived_.notify_all();
    if (many) gathered_.notify_all();
}

// --- sinks --------------------------------------------------------------------------------------

int Ring::add_sink(WhenFull when_full) noexcept {
    std::lock_guard guard(mutex_);
    for (std::size_t i = 0; i < most_sinks; ++i) {
        auto& sink = header_->sinks[i];
        if (sink.in_use.load(std::memory_order_relaxed) != 0) continue;
        const std::uint64_t now = header_->emitted.load(std::memory_order_relaxed);
        sink.taken.store(now, std::memory_order_relaxed);
        sink.delivered.store(now, std::memory_order_relaxed);
        sink.dropped.store(0, std::memory_order_relaxed);
        sink.when_full = when_full;
        sink.failing = false;
        sink.in_use.store(1, std::memory_order_release);
        return static_cast<int>(i);
    }
    return -1;
}

void Ring::remove_sink(int sink) noexcept {
    {
        std::lock_guard guard(mutex_);
        header_->sinks[sink].in_use.store(0, std::memory_order_release);
    }
    space_.notify_all();
}

std::size_t Ring::take(int sink, std::span<Entry> out, std::int64_t wait,
                       std::uint64_t& before) noexcept {
    auto& own = header_->sinks[sink];
    std::unique_lock guard(mutex_);
    const auto waiting = [&] {
        return header_->emitted.load(std::memory_order_relaxed) -
               own.taken.load(std::memory_order_relaxed);
    };
    if (waiting() == 0 && wait > 0)
        arrived_.wait_for(guard, nanoseconds(wait),
                          [&] { return waiting() != 0 || closed_ || interrupted_; });
    // A round costs a sink as much as many records. In each that is made at once, the sink's thread
    // would take turns with the program for the interpreter's lock.
    if (waiting() != 0 && wait > 0)
        gathered_.wait_for(guard, gathering, [&] {
            return waiting() >= enough() || flushing_ != 0 || closed_ || interrupted_;
        });
    before = own.taken.load(std::memory_order_relaxed);
    const std::size_t count = std::min<std::uint64_t>(waiting(), out.size());
    for (std::size_t i = 0; i < count; ++i) out[i] = slot(before + i);
    own.taken.store(before + count, std::memory_order_relaxed);
    // In the first lap: calls would wait for each page of what they are about to come to.
    const std::uint64_t step = capacity_ / 8;
    const std::uint64_t next = prepared_ + step;
    if (next < capacity_ && header_->emitted.load(std::memory_order_relaxed) + step / 2 >= next) {
        prepared_ = next;
        guard.unlock();
        sys::populate(&slot(next), std::min(step, capacity_ - next) * sizeof(Entry));
    }
    return count;
}

void Ring::delivered(int sink, std::uint64_t before) noexcept {
    auto& own = header_->sinks[sink];
    {
        std::lock_guard guard(mutex_);
        if (before > own.delivered.load(std::memory_order_relaxed))
            own.delivered.store(before, std::memory_order_release);
    }
    space_.notify_all();
}

void Ring::set_failing(int sink, bool failing) noexcept {
    std::lock_guard guard(mutex_);
    header_->sinks[sink].failing = failing;
}

bool Ring::flush(int sink, std::int64_t wait) noexcept {
    auto& own = header_->sinks[sink];
    std::unique_lock guard(mutex_);
    const std::uint64_t all = header_->emitted.load(std::memory_order_relaxed);
    const auto done = [&] { return own.delivered.load(std::memory_order_relaxed) >= all; };
    ++flushing_;
    arrived_.notify_all();
    gathered_.notify_all();
    space_.wait_for(guard, nanoseconds(wait), [&] { return done() || interrupted_; });
    --flushing_;
    return done();
}

void Ring::close() noexcept {
    {
        std::lock_guard guard(mutex_);
        closed_ = true;
    }
    arrived_.notify_all();
    gathered_.notify_all();
    space_.notify_all();
}

void Ring::interrupt() noexcept {
    {
        std::lock_guard guard(mutex_);
        interrupted_ = true;
    }
    arrived_.notify_all();
    gathered_.notify_all();
    space_.notify_all();
}

}  // namespace tracesock::audit
