// How the extension speaks to the interpreter outside nanobind: owned references, the lock, a
// guard for functions that the interpreter calls, and OSError.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <chrono>
#include <exception>
#include <new>
#include <thread>
#include <utility>

#if !defined(_MSC_VER)
#include <unwind.h>
#endif

namespace tracesock {

// An owned reference, or none.
class Ref {
  public:
    Ref() noexcept = default;
    explicit Ref(PyObject* owned) noexcept : object_(owned) {}
    Ref(Ref&& other) noexcept : object_(other.release()) {}
    Ref& operator=(Ref&& other) noexcept {
        Ref old(std::exchange(object_, other.release()));
        return *this;
    }
    ~Ref() { Py_XDECREF(object_); }

    static Ref borrow(PyObject* object) noexcept { return Ref(Py_XNewRef(object)); }

    PyObject* get() const noexcept { return object_; }
    PyObject* release() noexcept { return std::exchange(object_, nullptr); }
    explicit operator bool() const noexcept { return object_ != nullptr; }

  private:
    PyObject* object_ = nullptr;
};

// An exported buffer, given back at the end of the scope.
class Buffer {
  public:
    // Not the whole view: what an export fills in is not worth clearing before it.
    Buffer() noexcept {
        view_.buf = nullptr;
        view_.obj = nullptr;
        view_.len = 0;
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { release(); }

    // False with an exception set.
    bool acquire(PyObject* object, int flags) noexcept {
        release();
        return PyObject_GetBuffer(object, &view_, flags) == 0;
    }
    void release() noexcept {
        if (view_.obj != nullptr) PyBuffer_Release(&view_);
    }
    // For PyArg_Parse's "y*" and "w*".
    Py_buffer* slot() noexcept { return &view_; }
    char* data() const noexcept { return static_cast<char*>(view_.buf); }
    Py_ssize_t size() const noexcept { return view_.len; }

  private:
    Py_buffer view_;
};

// Takes the interpreter's lock again. A thread that comes back while the interpreter ends is never
// let in: before 3.14 Python ends it by pthread_exit(3), whose unwinding must not meet a C++ frame
// that promises not to throw. Here it sleeps until the process has ended, as in 3.14.
inline void take_lock(PyThreadState* state) noexcept {
    try {
        PyEval_RestoreThread(state);
    } catch (...) {
        for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    }
}

// Before any thread may be ended like that: the unwinder that is linked in with the C++ library
// readies its tables at its first use, but the first use may be a landing in take_lock() out of the
// unwinder that the system has for pthread_exit(3), and the tables are then a reason to abort.
inline void ready_unwinder() noexcept {
#if !defined(_MSC_VER)
    _Unwind_Backtrace([](_Unwind_Context*, void*) { return _URC_END_OF_STACK; }, nullptr);
#endif
}

// Gives up the interpreter's lock for the scope.
class Unlocked {
  public:
    Unlocked() noexcept : state_(PyEval_SaveThread()) {}
    Unlocked(const Unlocked&) = delete;
    Unlocked& operator=(const Unlocked&) = delete;
    ~Unlocked() { take_lock(state_); }

  private:
    PyThreadState* state_;
};

// Has an object to itself for the scope, as the interpreter's lock lets it where there is one:
// until something inside waits, or gives the lock up.
class Exclusive {
  public:
#ifdef Py_GIL_DISABLED
    explicit Exclusive(PyObject* object) noexcept { PyCriticalSection_Begin(&section_, object); }
    ~Exclusive() { PyCriticalSection_End(&section_); }
#else
    explicit Exclusive(PyObject*) noexcept {}
    ~Exclusive() {}
#endif
    Exclusive(const Exclusive&) = delete;
    Exclusive& operator=(const Exclusive&) = delete;

#ifdef Py_GIL_DISABLED
  private:
    PyCriticalSection section_;
#endif
};

// Runs `body` and turns a C++ exception into a Python one: what stands between every C++ function
// and the interpreter that calls it. Returns `failure` then.
template <class Result, class Body>
Result guarded(Result failure, Body&& body) noexcept {
    try {
        return body();
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    } catch (...) {
        PyErr_SetString(PyExc_SystemError, "tracesock: unknown C++ exception");
    }
    return failure;
}

// OSError from errno, always null.
inline PyObject* set_os_error() noexcept {
    return PyErr_SetFromErrno(PyExc_OSError);
}
inline PyObject* set_os_error(int error) noexcept {
    errno = error;
    return set_os_error();
}

}  // namespace tracesock
