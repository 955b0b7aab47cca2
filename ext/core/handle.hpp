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

    // sys::invalid where the handle holds none, or what it holds waits for its last lease to close
    // it.
    sys::Descriptor get() const noexcept { return usable(word_.load(std::memory_order_acquire)); }

    // Only on a handle that holds no descriptor and has no lease.
    bool assign(sys::Descriptor fd) noexcept {
        std::uint64_t expected = pack(sys::invalid, 0);
        return word_.compare_exchange_strong(expected, pack(fd, 0), std::memory_order_acq_rel);
    }

    // Gives the descriptor up without closing it.
    sys::Descriptor detach() noexcept {
        std::uint64_t word = word_.load(std::memory_order_acquire);
        while (usable(word) != sys::invalid &&
               !word_.compare_exchange_weak(word, pack(sys::invalid, leases(word)),
                                            std::memory_order_acq_rel)) {
        }
        return usable(word);
    }

    // Takes the descriptor away, so that no new call can start. What is returned is the caller's to
    // close; sys::invalid where the last lease will, or there was none.
    sys::Descriptor evict() noexcept {
        std::uint64_t word = word_.load(std::memory_order_acquire);
        while (usable(word) != sys::invalid &&
               !word_.compare_exchange_weak(
                   word, leases(word) != 0 ? word | closing : pack(sys::invalid, 0),
                   std::memory_order_acq_rel)) {
        }
        return leases(word) != 0 ? sys::invalid : usable(word);
    }

    // Closes now, or leaves it to the last lease: the result of close(2), 0 where it is not due
    // yet.
    int close() noexcept {
        const sys::Descriptor fd = evict();
        return fd != sys::invalid ? sys::close(fd) : 0;
    }

  private:
    // One word, so that who closes is decided once: the descriptor above, the number of leases
    // below, and between them whether the last of these closes it.
    static constexpr std::uint64_t closing = std::uint64_t{1} << 31;

    static constexpr std::uint64_t pack(sys::Descriptor fd, std::uint32_t count) noexcept {
        return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(fd)) << 32) | count;
    }
    static constexpr sys::Descriptor descriptor(std::uint64_t word) noexcept {
        return static_cast<sys::Descriptor>(static_cast<std::uint32_t>(word >> 32));
    }
    static constexpr sys::Descriptor usable(std::uint64_t word) noexcept {
        return (word & closing) != 0 ? sys::invalid : descriptor(word);
    }
    static constexpr std::uint32_t leases(std::uint64_t word) noexcept {
        return static_cast<std::uint32_t>(word & (closing - 1));
    }

    sys::Descriptor acquire() noexcept {
        std::uint64_t word = word_.load(std::memory_order_acquire);
        while (usable(word) != sys::invalid &&
               !word_.compare_exchange_weak(word, word + 1, std::memory_order_acq_rel)) {
        }
        return usable(word);
    }

    void release() noexcept {
        std::uint64_t word = word_.load(std::memory_order_acquire);
        bool last = false;
        do {
            last = leases(word) == 1 && (word & closing) != 0;
        } while (!word_.compare_exchange_weak(word, last ? pack(sys::invalid, 0) : word - 1,
                                              std::memory_order_acq_rel));
        if (last) sys::close(descriptor(word));
    }

    std::atomic<std::uint64_t> word_{pack(sys::invalid, 0)};
};

}  // namespace tracesock
