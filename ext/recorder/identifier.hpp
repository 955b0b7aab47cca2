// Identifiers of traces and spans, which OpenTelemetry's API has as an int.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "socket/python.hpp"

namespace tracesock::recorder {

// Big-endian: false with TypeError for what is no int, OverflowError for one that does not fit.
template <std::size_t size>
    requires(size == 8 || size == 16)
bool read_identifier(PyObject* number, std::array<std::uint8_t, size>& id) noexcept {
    const auto put = [&](std::size_t at, std::uint64_t word) {
        for (std::size_t i = at + 8; i-- != at; word >>= 8) id[i] = static_cast<std::uint8_t>(word);
    };
    if (!PyLong_Check(number)) {
        PyErr_Format(PyExc_TypeError, "an int is required, not %.100s", Py_TYPE(number)->tp_name);
        return false;
    }
    Ref high(Py_NewRef(number));
    if constexpr (size == 16) {
        put(8, PyLong_AsUnsignedLongLongMask(number));
        const Ref bits(PyLong_FromLong(64));
        high = Ref(bits ? PyNumber_Rshift(number, bits.get()) : nullptr);
        if (!high) return false;
    }
    // Refuses what is negative as well.
    const unsigned long long word = PyLong_AsUnsignedLongLong(high.get());
    if (word == ~0ULL && PyErr_Occurred() != nullptr) return false;
    put(0, word);
    return true;
}

}  // namespace tracesock::recorder
