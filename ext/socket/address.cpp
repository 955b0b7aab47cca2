#include "socket/address.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <cstring>
#include <string_view>
#include <typeinfo>
#include <utility>

#include "recorder/lookups.hpp"
#include "resolver/resolver.hpp"
#include "socket/bindings.hpp"

namespace nb = nanobind;

namespace tracesock {
namespace {

PyObject* exception(Error kind) {
    switch (kind) {
        case Error::type:
            return PyExc_TypeError;
        case Error::value:
            return PyExc_ValueError;
        case Error::overflow:
            return PyExc_OverflowError;
        case Error::os:
            return PyExc_OSError;
        case Error::system:
            break;
    }
    return PyExc_SystemError;
}

// An encoded address as an object of its own: what `Address(family, address)` makes.
struct Prepared {
    Address address;
    // The socket's, which is not the kernel's where a family has another's addresses (AF_RDS).
    int family = 0;
    int protocol = 0;
    // The caller's form, made once for audit hooks; none in what a single call prepares for itself.
    nb::object form;

    std::string_view bytes() const {
        return {reinterpret_cast<const char*>(address.bytes), address.length};
    }
};

nb::object decoded(const Prepared& prepared) {
    if (prepared.form.is_valid()) return prepared.form;
    PythonContext context("Address", prepared.protocol);
    PyObject* object = decode_address(context, prepared.address);
    if (object == nullptr) throw nb::python_error();
    return nb::steal(object);
}

// Null for any other object; one that was allocated and never made is another as well.
const Prepared* as_prepared(PyObject* object) {
    // The class is final, and nanobind finds the C++ type of a class sooner than the reverse.
    const nb::handle type(reinterpret_cast<PyObject*>(Py_TYPE(object)));
    return nb::type_check(type) && nb::type_info(type) == typeid(Prepared) && nb::inst_ready(object)
               ? nb::inst_ptr<Prepared>(object)
               : nullptr;
}

bool wrong_family(const Prepared& prepared, int family, const char* caller, const char* whose) {
    if (prepared.family == family) return false;
    PyErr_Format(PyExc_TypeError, "%s(): Address of family %d on a %s of family %d", caller,
                 prepared.family, whose, family);
    return true;
}

Prepared prepare(int family, nb::handle object, int protocol, const char* caller) {
    Prepared result;
    result.family = family;
    result.protocol = protocol;
    if (const Prepared* prepared = as_prepared(object.ptr())) {
        if (wrong_family(*prepared, family, caller, "new Address")) throw nb::python_error();
        result.address = prepared->address;
        return result;
    }
    PythonContext context(caller, protocol);
    if (!find_family(family, protocol)->encode(context, object.ptr(), result.address))
        throw nb::python_error();
    return result;
}

// The address that the kernel's bytes are: what bytes(Address) gave, of another process too.
Prepared from_bytes(int family, nb::bytes data, int protocol) {
    const Family* row = find_family(family, protocol);
    Prepared result;
    result.family = family;
    result.protocol = protocol;
    if (row->largest == 0) throw nb::value_error("Address.from_bytes(): bad family");
    if (data.size() < std::max<std::size_t>(row->smallest, offsetof(sockaddr, sa_data)) ||
        data.size() > std::min<std::size_t>(row->largest, sizeof result.address.bytes))
        throw nb::value_error("Address.from_bytes(): not the length of an address of this family");
    std::memcpy(result.address.bytes, data.data(), data.size());
    result.address.length = static_cast<socklen_t>(data.size());
    // A family may have another's addresses (AF_RDS).
    if (find_family(result.address.header.sa_family, protocol)->decode != row->decode)
        throw nb::value_error("Address.from_bytes(): an address of another family");
    result.form = decoded(result);
    return result;
}

}  // namespace

bool PythonContext::unpack(Object* tuple, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const int parsed = PyArg_VaParse(tuple, format, arguments);
    va_end(arguments);
    return parsed != 0;
}

bool PythonContext::parse(Object* object, const char* format, ...) {
    // PyArg_Parse has no va_list form: as the only item of a tuple the object is read the same way.
    Ref tuple(PyTuple_Pack(1, object));
    if (!tuple) return false;
    va_list arguments;
    va_start(arguments, format);
    const int parsed = PyArg_VaParse(tuple.get(), format, arguments);
    va_end(arguments);
    return parsed != 0;
}

void PythonContext::keep(Text& text, Ref owner, const char* data, Py_ssize_t size) noexcept {
    kept_ = std::move(owner);
    text.data = data;
    text.size = static_cast<std::size_t>(size);
}

int PythonContext::convert_host(Object* object, void* slot) noexcept {
    if (object == nullptr) return 1;
    auto& text = *static_cast<Text*>(slot);
    auto& context = *static_cast<PythonContext*>(text.context);
    if (PyBytes_Check(object)) {
        context.keep(text, Ref::borrow(object), PyBytes_AS_STRING(object),
                     PyBytes_GET_SIZE(object));
    } else if (PyByteArray_Check(object)) {
        // Copied: a look-up gives up the lock, and the caller's array may change meanwhile. Through
        // its buffer, because without a lock it may be resized while it is copied.
        Ref copy(PyBytes_FromObject(object));
        if (!copy) return 0;
        PyObject* bytes = copy.get();
        context.keep(text, std::move(copy), PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes));
    } else if (PyUnicode_Check(object)) {
        if (PyUnicode_IS_COMPACT_ASCII(object)) {
            context.keep(text, Ref::borrow(object),
                         static_cast<const char*>(PyUnicode_DATA(object)),
                         PyUnicode_GET_LENGTH(object));
        } else {
            Ref encoded(PyUnicode_GET_LENGTH(object) <= resolver::longest_host
                            ? PyUnicode_AsEncodedString(object, "idna", nullptr)
                            : nullptr);
            if (!encoded) {
                PyErr_SetString(PyExc_TypeError, "encoding of hostname failed");
                return 0;
            }
            PyObject* bytes = encoded.get();
            context.keep(text, std::move(encoded), PyBytes_AS_STRING(bytes),
                         PyBytes_GET_SIZE(bytes));
        }
    } else {
        PyErr_Format(PyExc_TypeError, "str, bytes or bytearray expected, not %s",
                     Py_TYPE(object)->tp_name);
        return 0;
    }
    if (std::strlen(text.data) != text.size) {
        PyErr_SetString(PyExc_TypeError, "host name must not contain null character");
        return 0;
    }
    return 1;
}

int PythonContext::convert_path(Object* object, void* slot) noexcept {
    if (object == nullptr) return 1;
    auto& text = *static_cast<Text*>(slot);
    auto& context = *static_cast<PythonContext*>(text.context);
    PyObject* encoded = nullptr;
    if (PyUnicode_FSConverter(object, &encoded) == 0) return 0;
    context.keep(text, Ref(encoded), PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded));
    return 1;
}

Context::Converter PythonContext::host_converter() {
    return convert_host;
}
Context::Converter PythonContext::path_converter() {
    return convert_path;
}

bool PythonContext::path_or_buffer(Object* object, Text& out) {
    if (PyUnicode_Check(object)) {
        Ref encoded(PyUnicode_EncodeFSDefault(object));
        if (!encoded) return false;
        PyObject* bytes = encoded.get();
        keep(out, std::move(encoded), PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes));
        return true;
    }
    if (!PyArg_Parse(object, "y*", buffer_.slot())) return false;
    out.data = buffer_.data();
    out.size = static_cast<std::size_t>(buffer_.size());
    return true;
}

bool PythonContext::host_and_port(Object* tuple, const char* usage, Text& host, int& port) {
    if (PyTuple_GET_SIZE(tuple) == 2) {
        PyObject* first = PyTuple_GET_ITEM(tuple, 0);
        PyObject* second = PyTuple_GET_ITEM(tuple, 1);
        if (PyUnicode_CheckExact(first) && PyLong_CheckExact(second)) {
            int overflow = 0;
            const long value = PyLong_AsLongAndOverflow(second, &overflow);
            // Whatever is out of range goes the long way, for its error.
            if (overflow == 0 && value >= 0 && value <= 0xffff) {
                port = static_cast<int>(value);
                return convert_host(first, &host) != 0;
            }
        }
    }
    const std::string format = std::string("O&i;") + usage;
    return unpack(tuple, format.c_str(), convert_host, &host, &port);
}

bool PythonContext::fail(Error kind, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    PyErr_FormatV(exception(kind), format, arguments);
    va_end(arguments);
    return false;
}

bool PythonContext::fail_errno() {
    set_os_error();
    return false;
}

bool PythonContext::error_is(Error kind) {
    return PyErr_ExceptionMatches(exception(kind)) != 0;
}

bool PythonContext::resolve(const char* host, int family, Address& out) {
    // What is an address already may be one that was found by name: nothing is learned of it here.
    if (recorder::active() == 0 || resolver::is_literal(host, out))
        return resolver::resolve(host, family, out);
    recorder::LookupProbe probe("getaddrinfo", recorder::Asks::for_addresses, false, host);
    const bool found = resolver::resolve(host, family, out);
    if (found) probe.found(out);
    probe.end();
    return found;
}

unsigned PythonContext::ifindex(const char* name) {
    return ::if_nametoindex(name);
}

const char* PythonContext::ifname(unsigned index, char* name) {
    return ::if_indextoname(index, name) != nullptr ? name : "";
}

Object* PythonContext::build(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    PyObject* result = Py_VaBuildValue(format, arguments);
    va_end(arguments);
    return result;
}

Object* PythonContext::path(const char* data, std::size_t size) {
    return PyUnicode_DecodeFSDefaultAndSize(data, static_cast<Py_ssize_t>(size));
}

const Address* encoded(Socket& socket, PyObject* object, const char* caller, Address& space) {
    if (const Prepared* prepared = as_prepared(object))
        return wrong_family(*prepared, socket.family, caller, "socket") ? nullptr
                                                                        : &prepared->address;
    PythonContext context(caller, socket.protocol);
    return socket.row->encode(context, object, space) ? &space : nullptr;
}

bool encode(Socket& socket, PyObject* object, const char* caller, Address& out) {
    const Address* address = encoded(socket, object, caller, out);
    if (address != nullptr && address != &out) out = *address;
    return address != nullptr;
}

Ref caller_form(PyObject* object) {
    const Prepared* prepared = as_prepared(object);
    if (prepared == nullptr) return Ref::borrow(object);
    return prepared->form.is_valid() ? Ref::borrow(prepared->form.ptr())
                                     : Ref(decoded(*prepared).release().ptr());
}

PyObject* decode(const Socket& socket, const Address& address) {
    PythonContext context("decode", socket.protocol);
    return decode_address(context, address);
}

bool readable(const Socket& socket) {
    if (socket.row->largest != 0) return true;
    PyErr_SetString(PyExc_OSError, socket.row->unreadable);
    return false;
}

PyObject* make_address(const Address& address, int family, int protocol) {
    return guarded<PyObject*>(
        nullptr, [&] { return nb::cast(Prepared{address, family, protocol, {}}).release().ptr(); });
}

namespace {

newfunc inherited_new = nullptr;

// A tp_new of the class's own, without which object.__new__ would make an instance that nanobind
// does not know, and whose end aborts the process.
PyObject* address_new(PyTypeObject* type, PyObject* arguments, PyObject* names) noexcept {
    return inherited_new(type, arguments, names);
}

}  // namespace

void bind_address(nb::module_& module) {
    nb::class_<Prepared> type(
        module, "Address", nb::is_final(),
        "Address(family, address, proto=0)\n\nAn address, encoded once: accepted wherever an "
        "address tuple of the family is, and not\nread again by any call. A host name in it is "
        "looked up here. Immutable, hashable, and\nequal to another of the same bytes and "
        "protocol. "
        "Raises what the socket's own methods raise\nfor a wrong address.");
    type
        // Not __init__, which could be called again.
        .def(nb::new_([](int family, nb::object address, int protocol) {
                 Prepared made = prepare(family, address, protocol, "Address");
                 made.form = decoded(made);
                 return made;
             }),
             nb::arg("family"), nb::arg("address").none(), nb::arg("proto") = 0)
        .def_static("from_bytes", &from_bytes, nb::arg("family"), nb::arg("data"),
                    nb::arg("proto") = 0,
                    "The Address of the kernel's bytes, as bytes(address) gives them. Raises "
                    "ValueError for bytes\nthat are no address of the family.")
        .def_prop_ro(
            "family", [](const Prepared& self) { return self.family; },
            "The address family, an int.")
        .def_prop_ro(
            "proto", [](const Prepared& self) { return self.protocol; },
            "The protocol that selects the form, where a family has several.")
        .def_prop_ro("address", &decoded, "What a call that returns addresses would return.")
        .def("__reduce__",
             [](const Prepared& self) {
                 nb::object call = nb::module_::import_("operator").attr("methodcaller");
                 return nb::make_tuple(
                     call("from_bytes", self.family,
                          nb::bytes(self.bytes().data(), self.bytes().size()), self.protocol),
                     nb::make_tuple(nb::type<Prepared>()));
             })
        .def("__bytes__",
             [](const Prepared& self) {
                 return nb::bytes(self.bytes().data(), self.bytes().size());
             })
        .def(
            "__eq__",
            [](const Prepared& self, nb::handle other) {
                const Prepared* prepared = as_prepared(other.ptr());
                return prepared != nullptr && prepared->bytes() == self.bytes() &&
                       prepared->family == self.family && prepared->protocol == self.protocol;
            },
            nb::arg("other").none())
        .def("__hash__",
             [](const Prepared& self) {
                 return static_cast<Py_ssize_t>(std::hash<std::string_view>{}(self.bytes()) >> 1);
             })
        .def("__repr__", [](const Prepared& self) {
            return nb::str("Address(family={}, address={!r})").format(self.family, decoded(self));
        });
    newfunc& its_new = reinterpret_cast<PyTypeObject*>(type.ptr())->tp_new;
    if (its_new != address_new) inherited_new = std::exchange(its_new, address_new);

    module.def(
        "encode_address",
        [](int family, int protocol, nb::object address, const char* caller) {
            const Prepared prepared = prepare(family, address, protocol, caller);
            return nb::bytes(prepared.bytes().data(), prepared.bytes().size());
        },
        nb::arg("family"), nb::arg("protocol"), nb::arg("address").none(),
        nb::arg("caller") = "bind", "The kernel's form of an address of one family, as bytes.");
    module.def(
        "decode_address",
        [](int protocol, nb::bytes data) {
            Prepared prepared;
            if (data.size() > sizeof prepared.address.bytes)
                throw nb::value_error("decode_address(): longer than any address");
            std::memcpy(prepared.address.bytes, data.data(), data.size());
            prepared.address.length = static_cast<socklen_t>(data.size());
            prepared.protocol = protocol;
            return decoded(prepared);
        },
        nb::arg("protocol"), nb::arg("data"),
        "The caller's form of an address that the kernel gave as bytes.");
}

}  // namespace tracesock
