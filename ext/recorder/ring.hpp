// A ring with one writer and one reader. The writer never waits: when the ring is full the record
// is dropped and counted.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "core/syscalls.hpp"
#include "recorder/record.hpp"

namespace tracesock::recorder {

class Ring {
  public:
    // `capacity` is a power of two.
    explicit Ring(std::size_t capacity)
        : records_(static_cast<Record*>(std::aligned_alloc(page, capacity * sizeof(Record)))),
          mask_(capacity - 1) {
        if (records_ == nullptr) throw std::bad_alloc();
    }

    // The writer's: where to write the next record, null when the ring is full.
    Record* reserve() noexcept {
        if (head_.load(std::memory_order_relaxed) - tail_seen_ > mask_) {
            tail_seen_ = tail_.load(std::memory_order_acquire);
            if (head_.load(std::memory_order_relaxed) - tail_seen_ > mask_) {
                dropped_.store(dropped_.load(std::memory_order_relaxed) + 1,
                               std::memory_order_relaxed);
                return nullptr;
            }
        }
        return &records_[head_.load(std::memory_order_relaxed) & mask_];
    }
    // The writer's: makes the reserved record visible. Returns how many were written in all.
    std::uint64_t commit() noexcept {
        const std::uint64_t head = head_.load(std::memory_order_relaxed) + 1;
        head_.store(head, std::memory_order_release);
        return head;
    }

    // The reader's: calls take(record) for what was written before `head`, oldest first, until
    // `limit` is used up. Whether that is all.
    template <class Take>
    bool drain(std::uint64_t head, std::size_t& limit, Take&& take) {
        std::uint64_t tail = tail_.load(std::memory_order_relaxed);
        for (; tail < head && limit != 0; ++tail, --limit) take(records_[tail & mask_]);
        tail_.store(tail, std::memory_order_release);
        return tail >= head;
    }
    // The reader's: in the first lap, has the system give memory to the `count` records that the
    // writer is about to come to, who would wait microseconds for each page of it. Nothing for the
    // first of all: most threads do not come further.
    void prepare(std::size_t count) noexcept {
        const std::size_t next = prepared_ + count;
        if (next > mask_ || written() + count / 2 < next) return;
        prepared_ = next;
        sys::populate(&records_[next], std::min(count, mask_ + 1 - next) * sizeof(Record));
    }

    std::uint64_t written() const noexcept { return head_.load(std::memory_order_acquire); }
    std::uint64_t read() const noexcept { return tail_.load(std::memory_order_acquire); }
    std::uint64_t dropped() const noexcept { return dropped_.load(std::memory_order_relaxed); }
    bool empty() const noexcept { return written() == read(); }

    // In a forked child, where no other thread exists: forgets what the parent will tell.
    void clear_after_fork() noexcept {
        tail_.store(head_.load(std::memory_order_relaxed), std::memory_order_relaxed);
        dropped_.store(0, std::memory_order_relaxed);
    }

  private:
    static constexpr std::size_t page = 4096;  // bytes
    struct Free {
        void operator()(Record* records) const noexcept { std::free(records); }
    };

    std::unique_ptr<Record[], Free> records_;
    const std::uint64_t mask_;
    alignas(64) std::atomic<std::uint64_t> head_{0};
    std::uint64_t tail_seen_ = 0;  // the writer's last look at tail_
    std::atomic<std::uint64_t> dropped_{0};
    alignas(64) std::atomic<std::uint64_t> tail_{0};
    std::size_t prepared_ = 0;
};

}  // namespace tracesock::recorder
