// A descriptor that several threads use at once. A call takes a lease; close evicts the
// descriptor, so that no new call can start, and the last lease to end closes it. A thread inside
// recv(2) can therefore never find the number reused under it.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

#include "core/syscalls.hpp"

namespace tracesock {

// Sole owner of a descriptor: closes it unless released.
class UniqueDescriptor {
  public:
    explicit UniqueDescriptor(sys::Descriptor fd = sys::invalid) noexcept : fd_(fd) {}
    UniqueDescriptor(UniqueDescriptor&& other) noexcept : fd_(other.release()) {}
    UniqueDescriptor& operator=(UniqueDescriptor&& other) noexcept {
        reset(other.release());
        return *this;
    }
    ~UniqueDescriptor() { reset(); }

    sys::Descriptor get() const noexcept { return fd_; }
    sys::Descriptor release() noexcept { return std::exchange(fd_, sys::invalid); }
    void reset(sys::Descriptor fd = sys::invalid) noexcept {
        if (fd_ != sys::invalid) sys::close(fd_);
        fd_ = fd;
    }

  private:
    sys::Descriptor fd_;
};

class SharedHandle {
  public:
    class Lease {
      public:
        explicit Lease(SharedHandle& handle) noexcept : handle_(handle), fd_(handle.acquire()) {}
        Lease(const Lease&) = delete;
        Lease& operator=(const Lease&) = delete;
        ~Lease() {
            if (fd_ != sys::invalid) handle_.release();
        }
        // The descriptor, or sys::invalid where the handle was closed before.
        sys::Descriptor get() const noexcept { return fd_; }

      private:
        SharedHandle& handle_;
        sys::Descriptor fd_;
    };

    sys::Descriptor get() const noexcept {
        return descriptor(word_.load(std::memory_order_acquire));
    }
    bool in_use() const noexcept { return leases(word_.load(std::memory_order_acquire)) != 0; }

    // Only on a handle that holds no descriptor and has no lease.
    bool assign(sys::Descriptor fd) noexcept {
        std::uint64_t expected = pack(sys::invalid, 0);
        return word_.compare_exchange_strong(expected, pack(fd, 0), std::memory_order_acq_rel);
    }

    // Gives the descriptor up without closing it.
    sys::Descriptor detach() noexcept {
        std::uint64_t word = word_.load(std::memory_order_acquire);
        while (descriptor(word) != sys::invalid &&
               !word_.compare_exchange_weak(word, pack(sys::invalid, leases(word)),
                                            std::memory_order_acq_rel)) {
        }
        return descriptor(word);
    }

    // Takes the descriptor away, so that no new call can start. What is returned is the caller's to
    // close; sys::invalid where the last lease will, or there was none.
    sys::Descriptor evict() noexcept {
        std::uint64_t word = word_.load(std::memory_order_acquire);
        do {
            if (descriptor(word) == sys::invalid) return sys::invalid;
            if (leases(word) != 0) evicted_.store(descriptor(word), std::memory_order_release);
        } while (!word_.compare_exchange_weak(word, pack(sys::invalid, leases(word)),
                                              std::memory_order_acq_rel));
        if (leases(word) != 0) return sys::invalid;
        // A lease that was seen and ended before the exchange has left nothing for others to close.
        evicted_.store(sys::invalid, std::memory_order_release);
        return descriptor(word);
    }

    // Closes now, or leaves it to the last lease: the result of close(2), 0 where it is not due
    // yet.
    int close() noexcept {
        const sys::Descriptor fd = evict();
        return fd != sys::invalid ? sys::close(fd) : 0;
    }

  private:
    static constexpr std::uint64_t pack(sys::Descriptor fd, std::uint32_t count) noexcept {
        return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(fd)) << 32) | count;
    }
    static constexpr sys::Descriptor descriptor(std::uint64_t word) noexcept {
        return static_cast<sys::Descriptor>(static_cast<std::uint32_t>(word >> 32));
    }
    static constexpr std::uint32_t leases(std::uint64_t word) noexcept {
        return static_cast<std::uint32_t>(word);
    }

    sys::Descriptor acquire() noexcept {
        std::uint64_t word = word_.load(std::memory_order_acquire);
        while (descriptor(word) != sys::invalid &&
               !word_.compare_exchange_weak(word, word + 1, std::memory_order_acq_rel)) {
        }
        return descriptor(word);
    }

    void release() noexcept {
        const std::uint64_t before = word_.fetch_sub(1, std::memory_order_acq_rel);
        if (leases(before) != 1 || descriptor(before) != sys::invalid) return;
        const sys::Descriptor fd = evicted_.exchange(sys::invalid, std::memory_order_acq_rel);
        if (fd != sys::invalid) sys::close(fd);
    }

    std::atomic<std::uint64_t> word_{pack(sys::invalid, 0)};
    std::atomic<sys::Descriptor> evicted_{sys::invalid};
};

}  // namespace tracesock
