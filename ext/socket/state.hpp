// The state of one socket object, beside the empty shell that its base type is.
#pragma once

#include "socket/python.hpp"
// clang-format off: python.hpp first
#include <atomic>
#include <cstdint>

#include "audit/socket_state.hpp"
#include "core/deadline.hpp"
#include "core/handle.hpp"
#include "core/loop.hpp"
#include "families/family.hpp"
// clang-format on

namespace nanobind::detail {
struct nb_internals;
}

namespace tracesock {

namespace recorder {
struct Connection;
}

// A value that one thread may write, by calling __init__ again, while others read it.
template <class Value>
class Shared {
  public:
    Shared(Value value) noexcept : value_(value) {}
    Shared& operator=(Value value) noexcept {
        value_.store(value, std::memory_order_relaxed);
        return *this;
    }
    operator Value() const noexcept { return value_.load(std::memory_order_relaxed); }
    Value operator->() const noexcept { return *this; }

  private:
    std::atomic<Value> value_;
};

struct Socket {
    SharedHandle handle;
    std::atomic<std::int64_t> timeout{no_timeout};  // ns; < 0 blocking, 0 non-blocking
    Shared<int> family = 0;
    Shared<int> type = 0;
    Shared<int> protocol = 0;
    // Open streams of makefile(), which keep the descriptor.
    std::atomic<int> streams{0};
    // close() was called; with streams open the descriptor is still there.
    std::atomic<bool> closed{false};
    // Whether the base's own state holds the descriptor as well, for _ssl to read.
    std::atomic<bool> filled{false};
    // What the last receive that asked for a lot has brought: what the next one may expect.
    std::atomic<std::uint32_t> last_received{0};
    Shared<const Family*> row = &unknown_family;
    // What telemetry knows of it; none until telemetry is on.
    std::atomic<recorder::Connection*> connection{nullptr};
    audit::LazyState audit_state;
};
// What a program pays for each socket while nobody looks on: beside it, stock's has two slots.
static_assert(sizeof(Socket) <= 80);
// The interpreter reads and writes these as members of the object.
static_assert(sizeof(Shared<int>) == sizeof(int) && sizeof(std::atomic<int>) == sizeof(int) &&
              sizeof(std::atomic<bool>) == sizeof(char));

// What one interpreter has of its own.
struct Interpreter {
    PyTypeObject* native_type = nullptr;   // _native.Socket
    PyTypeObject* socket_class = nullptr;  // the Python class, once it was bound; borrowed
    initproc class_init = nullptr;         // what runs the class's own __init__
    std::atomic<std::int64_t> default_timeout{no_timeout};
    // What keeps a filled base in step; the base's own, borrowed.
    PyObject* base_settimeout = nullptr;
    PyObject* base_detach = nullptr;
    PyObject* accept_name = nullptr;  // "_accept"
    // Somebody calls the base's methods by themselves: instances of the class itself have a filled
    // base, too.
    std::atomic<bool> fills_all{false};
    // nanobind's state for it, once it has imported the extension.
    nanobind::detail::nb_internals* internals = nullptr;
};

// The current interpreter's, made when first asked for; null with an exception set.
Interpreter* interpreter() noexcept;

extern std::ptrdiff_t state_offset;

inline Socket& state_of(PyObject* self) noexcept {
    return *reinterpret_cast<Socket*>(reinterpret_cast<char*>(self) + state_offset);
}

// What the base type itself says of a socket, by an attribute or a method without arguments; false
// with an exception.
bool read_base(PyObject* self, const char* name, bool call, int& value) noexcept;

// The interpreter as the wait-and-retry loop sees it.
class Runtime {
  public:
    explicit Runtime(Socket& socket) noexcept : socket_(socket) {}

    template <class Body>
    auto unlocked(Body&& body) noexcept {
        Unlocked unlocked;
        return body();
    }
    bool signals() noexcept { return PyErr_CheckSignals() == 0; }
    bool waiting() const noexcept { return socket_.timeout.load(std::memory_order_relaxed) > 0; }
    bool holds(sys::Descriptor fd) const noexcept { return socket_.handle.get() == fd; }

  private:
    Socket& socket_;
};

// The Python exception of a status that is not `done`; always null.
PyObject* raise_status(Status status, int error) noexcept;

// Whether a call may be made with the lock held at all.
#ifdef Py_GIL_DISABLED
inline constexpr bool may_hold_lock = false;
#else
inline constexpr bool may_hold_lock = true;
#endif

// Above this size a call is long enough for another thread to want the lock: measured, a 1 MiB
// sendall got slower when it was tried with the lock held.
inline constexpr Py_ssize_t brief_size = 32 * 1024;

// A receive may ask for as much as this and still be tried with the lock held, as long as the
// socket brings less than `brief_size`: event loops ask for the most there can be (asyncio: 256
// KiB).
inline constexpr Py_ssize_t hopeful_size = 1024 * 1024;

}  // namespace tracesock
