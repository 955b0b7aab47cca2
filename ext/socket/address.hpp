// Addresses between Python and the families' codecs.
#pragma once

#include "socket/state.hpp"

namespace tracesock {

// The Context that speaks to the interpreter.
class PythonContext final : public Context {
  public:
    PythonContext(const char* caller, int protocol) noexcept : Context(caller, protocol) {}

    bool is_tuple(Object* object) override { return PyTuple_Check(object); }
    bool is_text(Object* object) override { return PyUnicode_Check(object); }
    bool is_bytes(Object* object) override { return PyBytes_Check(object); }
    bool is_int(Object* object) override { return PyIndex_Check(object); }
    const char* type_name(Object* object) override { return Py_TYPE(object)->tp_name; }
    bool unpack(Object* tuple, const char* format, ...) override;
    bool parse(Object* object, const char* format, ...) override;
    Converter host_converter() override;
    Converter path_converter() override;
    bool path_or_buffer(Object* object, Text& out) override;
    bool host_and_port(Object* tuple, const char* usage, Text& host, int& port) override;

    bool fail(Error kind, const char* format, ...) override;
    bool fail_errno() override;
    bool error_is(Error kind) override;
    void clear() override { PyErr_Clear(); }

    bool resolve(const char* host, int family, Address& out) override;
    unsigned ifindex(const char* name) override;
    const char* ifname(unsigned index, char* name) override;

    Object* build(const char* format, ...) override;
    Object* path(const char* data, std::size_t size) override;
    Object* none() override { return Py_NewRef(Py_None); }

  private:
    static int convert_host(Object* object, void* text) noexcept;
    static int convert_path(Object* object, void* text) noexcept;
    void keep(Text& text, Ref owner, const char* data, Py_ssize_t size) noexcept;

    Ref kept_;
    Buffer buffer_;
};

// Encodes the caller's address object, or takes a prepared tracesock.Address as it is. False with
// an exception set.
bool encode(Socket& socket, PyObject* object, const char* caller, Address& out);
// The same without a copy: a prepared one where it is, for as long as `object` lives, any other in
// `space`. Null with an exception set.
const Address* encoded(Socket& socket, PyObject* object, const char* caller, Address& space);

// The caller's address object, a prepared Address in the form of a tuple or path: what audit hooks
// are told, since every hook knows how to read it. None with an exception set.
Ref caller_form(PyObject* object);

// The Python form of an address that the kernel gave; None for an empty one.
PyObject* decode(const Socket& socket, const Address& address);

// OSError where addresses of the socket's family cannot be read.
bool readable(const Socket& socket);

// A new tracesock.Address.
PyObject* make_address(const Address& address, int family, int protocol);

}  // namespace tracesock
