// What the audit keeps of a socket, once there is something to keep.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <new>

#include "families/family.hpp"

namespace tracesock::audit {

struct SocketState {
    SocketState() = default;
    SocketState(const SocketState&) = delete;
    SocketState& operator=(const SocketState&) = delete;

    std::atomic<std::uint32_t> judged{0};  // generation of the policy that allowed its peer
    std::atomic<std::int64_t> opened{0};   // ns of the monotonic clock; 0: not known
    std::atomic<std::int64_t> pending{0};  // when a connect began that is not finished; 0: none
    std::atomic<bool> established{false};  // a connect has succeeded
    std::atomic<bool> closing{false};      // a thread tells of its end, or has
    std::atomic<std::uint64_t> sent{0};    // bytes, while records are kept
    std::atomic<std::uint64_t> received{0};
    // The first peer that was known of: a stream whose both directions have ended has none any
    // more. Set once, so that it can be read without a lock.
    std::atomic<const Address*> peer{nullptr};

    void remember(std::unique_ptr<const Address> address) noexcept {
        const Address* none = nullptr;
        if (peer.compare_exchange_strong(none, address.get(), std::memory_order_acq_rel))
            address.release();
    }
    ~SocketState() { const std::unique_ptr<const Address> owned(peer.load()); }
};

// Most sockets live without an audit, and are as small as that allows.
class LazyState {
  public:
    LazyState() = default;
    LazyState(const LazyState&) = delete;
    LazyState& operator=(const LazyState&) = delete;
    ~LazyState() { const std::unique_ptr<SocketState> owned(get()); }

    // Null where nothing was kept yet.
    SocketState* get() const noexcept { return state_.load(std::memory_order_acquire); }
    // Null where memory is short.
    SocketState* make() noexcept {
        if (SocketState* state = get()) return state;
        auto made = std::unique_ptr<SocketState>(new (std::nothrow) SocketState());
        SocketState* state = nullptr;
        if (state_.compare_exchange_strong(state, made.get(), std::memory_order_acq_rel))
            state = made.release();
        return state;
    }

  private:
    std::atomic<SocketState*> state_{nullptr};
};

}  // namespace tracesock::audit
