#include "resolver/lookup.hpp"

#include <new>

namespace tracesock::resolver {
namespace {

constexpr const char* type_key = "tracesock.Lookup";

struct LookupObject {
    PyObject_HEAD std::unique_ptr<const Lookup> lookup;
    PyObject* arguments;
};

LookupObject& cast(PyObject* self) noexcept {
    return *reinterpret_cast<LookupObject*>(self);
}

void dealloc(PyObject* self) noexcept {
    PyTypeObject* type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    cast(self).lookup.~unique_ptr();
    Py_XDECREF(cast(self).arguments);
    type->tp_free(self);
    Py_DECREF(type);
}

int traverse(PyObject* self, visitproc visit, void* arg) noexcept {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(cast(self).arguments);
    return 0;
}

PyObject* run(PyObject* self, PyObject*) noexcept {
    return guarded<PyObject*>(nullptr, [=] {
        const Lookup& lookup = *cast(self).lookup;
        recorder::LookupProbe probe(
            lookup.kind, lookup.host ? lookup.asks() : recorder::Asks::nobody, lookup.numeric(),
            lookup.host ? std::string_view(*lookup.host) : "");
        PyObject* const result = lookup.run(probe);
        probe.end();
        return result;
    });
}

PyObject* get_arguments(PyObject* self, void*) noexcept {
    return Py_NewRef(cast(self).arguments);
}

}  // namespace

PyObject* make_lookup(std::unique_ptr<const Lookup> lookup, Ref arguments) {
    if (!arguments) return nullptr;
    PyObject* kept = PyInterpreterState_GetDict(PyInterpreterState_Get());
    PyObject* type = kept != nullptr ? PyDict_GetItemString(kept, type_key) : nullptr;
    if (type == nullptr) {
        PyErr_SetString(PyExc_RuntimeError, "tracesock._native is not initialised here");
        return nullptr;
    }
    auto* allocated = reinterpret_cast<PyTypeObject*>(type);
    PyObject* self = allocated->tp_alloc(allocated, 0);
    if (self == nullptr) return nullptr;
    new (&cast(self).lookup) std::unique_ptr<const Lookup>(std::move(lookup));
    cast(self).arguments = arguments.release();
    return self;
}

bool add_lookup_type(PyObject* module) {
    static PyMethodDef methods[] = {
        {"run", run, METH_NOARGS,
         "run($self, /)\n--\n\nDo the look-up and return what the function of that name "
         "returns.\n\n"
         "Blocks without the interpreter's lock; may be called again, from any thread."},
        {nullptr, nullptr, 0, nullptr},
    };
    static PyGetSetDef getters[] = {
        {"arguments", get_arguments, nullptr, "The arguments of the audit event: tuple.", nullptr},
        {nullptr, nullptr, nullptr, nullptr, nullptr},
    };
    static PyType_Slot slots[] = {
        {Py_tp_dealloc, reinterpret_cast<void*>(dealloc)},
        {Py_tp_traverse, reinterpret_cast<void*>(traverse)},
        {Py_tp_methods, methods},
        {Py_tp_getset, getters},
        {Py_tp_doc, const_cast<char*>("A look-up whose arguments were read, ready to run.")},
        {0, nullptr},
    };
    static PyType_Spec spec = {
        .name = "tracesock._native.Lookup",
        .basicsize = sizeof(LookupObject),
        .itemsize = 0,
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
                 Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots,
    };
    const Ref type(PyType_FromModuleAndSpec(module, &spec, nullptr));
    if (!type) return false;
    PyObject* kept = PyInterpreterState_GetDict(PyInterpreterState_Get());
    if (kept == nullptr || PyDict_SetItemString(kept, type_key, type.get()) < 0) return false;
    return PyModule_AddObjectRef(module, "Lookup", type.get()) == 0;
}

}  // namespace tracesock::resolver
