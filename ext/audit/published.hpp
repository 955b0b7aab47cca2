// An object that readers use without a lock while a writer replaces it.
//
// A reader announces in its thread's slot which object it uses, and looks again whether that is
// still the current one (a hazard pointer: Maged Michael, "Hazard Pointers", IEEE TPDS 15(6),
// 2004). A writer frees a replaced object only when no slot names it. Readers wait for nobody.
#pragma once

#include <algorithm>
#include <atomic>
#include <iterator>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace tracesock::audit {

// A thread's slot; reused when its thread has ended, never freed.
struct Slot {
    std::atomic<const void*> held{nullptr};
    std::atomic<bool> taken{true};
    Slot* next = nullptr;
};

// Every slot, and the calling thread's own.
class Slots {
  public:
    static Slot& mine() noexcept {
        if (mine_ == nullptr) [[unlikely]]
            mine_ = claim();
        return *mine_;
    }
    static bool any_holds(const void* object) noexcept;

  private:
    static Slot* claim() noexcept;

    static thread_local Slot* mine_;
};

template <class T>
class Published {
  public:
    // The current object, or none, safe to use until the end of the scope. One at a time in a
    // thread.
    class Reading {
      public:
        explicit Reading(const Published& published) noexcept : slot_(Slots::mine()) {
            do {
                object_ = published.current_.load(std::memory_order_acquire);
                slot_.held.store(object_, std::memory_order_seq_cst);
            } while (published.current_.load(std::memory_order_seq_cst) != object_);
        }
        Reading(const Reading&) = delete;
        Reading& operator=(const Reading&) = delete;
        ~Reading() { slot_.held.store(nullptr, std::memory_order_release); }

        T* get() const noexcept { return object_; }
        T* operator->() const noexcept { return object_; }

      private:
        Slot& slot_;
        T* object_;
    };

    // Writers only, one at a time. What was current is given up when the last reader has left it,
    // at the latest by the next call: the caller frees it, where it may.
    std::vector<std::unique_ptr<T>> publish(std::unique_ptr<T> object) {
        retired_.reserve(retired_.size() + 1);
        std::vector<std::unique_ptr<T>> unread;
        unread.reserve(retired_.size() + 1);
        std::unique_ptr<T> old(current_.exchange(object.release(), std::memory_order_seq_cst));
        if (old != nullptr) retired_.push_back(std::move(old));
        const auto held = std::stable_partition(
            retired_.begin(), retired_.end(),
            [](const std::unique_ptr<T>& each) { return Slots::any_holds(each.get()); });
        std::move(held, retired_.end(), std::back_inserter(unread));
        retired_.erase(held, retired_.end());
        return unread;
    }
    // Writers only.
    T* current() const noexcept { return current_.load(std::memory_order_acquire); }

  private:
    std::atomic<T*> current_{nullptr};
    std::vector<std::unique_ptr<T>> retired_;
};

}  // namespace tracesock::audit
