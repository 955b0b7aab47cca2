// A built-in function over a function of Python. It is no method where it is an attribute of a
// class, as the standard library's look-ups are none.
#include <deque>
#include <mutex>
#include <string>

#include "resolver/functions.hpp"

namespace tracesock::resolver {
namespace {

// What the interpreter keeps a pointer to.
struct Definition {
    std::string name;
    std::string doc;
    PyMethodDef method;
};

constexpr const char* implementation_key = "implementation";

PyObject* call_implementation(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                              PyObject* names) noexcept {
    PyObject* function = PyDict_GetItemString(PyModule_GetDict(self), implementation_key);
    if (function == nullptr) return PyErr_Format(PyExc_SystemError, "no %s", implementation_key);
    return PyObject_Vectorcall(function, arguments, static_cast<std::size_t>(count), names);
}

// Kept for good: the function may be the last of its module that an ending interpreter frees. Once
// for all interpreters.
PyMethodDef* definition_of(const char* name, const char* doc) {
    static std::mutex mutex;
    static auto& all = *new std::deque<Definition>();
    const std::lock_guard guard(mutex);
    for (Definition& each : all)
        if (each.name == name && each.doc == doc) return &each.method;
    Definition& made = all.emplace_back(Definition{name, doc, {}});
    made.method = method(made.name.c_str(), call_implementation, made.doc.c_str());
    return &made.method;
}

PyObject* make_builtin(PyObject*, PyObject* implementation) noexcept {
    return guarded<PyObject*>(nullptr, [=]() -> PyObject* {
        const Ref name(PyObject_GetAttrString(implementation, "__name__"));
        const Ref doc(name ? PyObject_GetAttrString(implementation, "__doc__") : nullptr);
        const Ref module(doc ? PyObject_GetAttrString(implementation, "__module__") : nullptr);
        const char* name_text = module ? PyUnicode_AsUTF8(name.get()) : nullptr;
        const char* doc_text = name_text != nullptr ? PyUnicode_AsUTF8(doc.get()) : nullptr;
        if (doc_text == nullptr) return nullptr;
        PyMethodDef* definition = definition_of(name_text, doc_text);
        // A module, so that the function is pickled by its name, as the interpreter's own are.
        const Ref self(PyModule_NewObject(module.get()));
        if (!self || PyModule_AddObjectRef(self.get(), implementation_key, implementation) < 0)
            return nullptr;
        return PyCFunction_NewEx(definition, self.get(), module.get());
    });
}

}  // namespace

bool add_builtin(PyObject* module) {
    static PyMethodDef methods[] = {
        {"builtin", make_builtin, METH_O,
         "builtin($module, implementation, /)\n--\n\n"
         "A built-in function that calls `implementation`, with its name, docstring and module."},
        {nullptr, nullptr, 0, nullptr},
    };
    return PyModule_AddFunctions(module, methods) == 0;
}

}  // namespace tracesock::resolver
