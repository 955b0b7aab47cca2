#include "audit/published.hpp"

#include <new>

namespace tracesock::audit {
namespace {

std::atomic<Slot*> first{nullptr};

// Gives the thread's slot back when the thread ends.
struct Owner {
    Slot* slot = nullptr;
    ~Owner() {
        if (slot != nullptr) slot->taken.store(false, std::memory_order_release);
    }
};

}  // namespace

thread_local Slot* Slots::mine_ = nullptr;

Slot* Slots::claim() noexcept {
    thread_local Owner owner;
    for (Slot* slot = first.load(std::memory_order_acquire); slot != nullptr; slot = slot->next) {
        bool expected = false;
        if (slot->taken.compare_exchange_strong(expected, true, std::memory_order_acq_rel)) {
            owner.slot = slot;
            return slot;
        }
    }
    auto made = std::make_unique<Slot>();
    made->next = first.load(std::memory_order_relaxed);
    while (!first.compare_exchange_weak(made->next, made.get(), std::memory_order_acq_rel)) {
    }
    owner.slot = made.get();
    return made.release();
}

bool Slots::any_holds(const void* object) noexcept {
    for (Slot* slot = first.load(std::memory_order_acquire); slot != nullptr; slot = slot->next)
        if (slot->held.load(std::memory_order_seq_cst) == object) return true;
    return false;
}

}  // namespace tracesock::audit
