/* For the device's own interpreter: syscall(2) (ADR 0070), what linux/libc.py does by ctypes elsewhere, and objects that
 * live for ever, so that processes share them (ADR 0072). */

#include <Python.h>

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define MOST_ARGUMENTS 6

/* IMMORTAL comes with our change of Include/object.h (image/native.py). */

/* One argument of a system call: an integer as it is, bytes as a pointer to them, None as NULL. */
static int
convert(PyObject *given, unsigned long *value)
{
    if (given == Py_None) {
        *value = 0;
        return 0;
    }
    if (PyBytes_Check(given)) {
        *value = (unsigned long)PyBytes_AS_STRING(given); /* the caller's reference outlives the call */
        return 0;
    }
    *value = PyLong_AsUnsignedLongMask(given);
    return *value == (unsigned long)-1 && PyErr_Occurred() ? -1 : 0;
}

static PyObject *
brickless_syscall(PyObject *module, PyObject *const *given, Py_ssize_t count)
{
    unsigned long number, values[MOST_ARGUMENTS] = {0};
    long result;

    if (count < 1 || count > MOST_ARGUMENTS + 1) {
        PyErr_SetString(PyExc_TypeError, "syscall takes a number and at most 6 arguments");
        return NULL;
    }
    if (convert(given[0], &number) < 0)
        return NULL;
    for (Py_ssize_t i = 1; i < count; i++)
        if (convert(given[i], &values[i - 1]) < 0)
            return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = syscall((long)number, values[0], values[1], values[2], values[3], values[4], values[5]);
    Py_END_ALLOW_THREADS
    if (result == -1)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLong(result);
}

/* A growing stack of objects that are still to be looked at. */
struct waiting {
    PyObject **objects;
    size_t count, room;
};

static int
mark(PyObject *object, void *argument)
{
    struct waiting *waiting = argument;

    if (object == NULL || object->ob_refcnt >= IMMORTAL)
        return 0;
    if (waiting->count == waiting->room) {
        size_t room = waiting->room ? waiting->room * 2 : 4096;
        PyObject **larger = realloc(waiting->objects, room * sizeof *larger);

        if (larger == NULL)
            return -1;
        waiting->objects = larger;
        waiting->room = room;
    }
    object->ob_refcnt = IMMORTAL + 99999999;
    waiting->objects[waiting->count++] = object;
    return 0;
}

/* What an object refers to and its traversal for the collector leaves out, for that cannot be part of a cycle. */
static int
mark_leaves(PyObject *object, struct waiting *waiting)
{
    int failed = mark((PyObject *)Py_TYPE(object), waiting);

    if (PyDict_Check(object)) {
        PyObject *key, *value;
        Py_ssize_t position = 0;

        while (!failed && PyDict_Next(object, &position, &key, &value))
            failed = mark(key, waiting);
    } else if (PyCode_Check(object)) {
        PyCodeObject *code = (PyCodeObject *)object;
        PyObject *parts[] = {code->co_consts, code->co_names, code->co_localsplusnames, code->co_localspluskinds,
                             code->co_exceptiontable, code->co_filename, code->co_name, code->co_qualname,
                             code->co_linetable};

        for (size_t i = 0; !failed && i < sizeof parts / sizeof *parts; i++)
            failed = mark(parts[i], waiting);
    } else if (PyType_Check(object)) {
        PyTypeObject *type = (PyTypeObject *)object;
        PyObject *parts[] = {type->tp_dict, type->tp_bases, type->tp_mro, (PyObject *)type->tp_base};

        for (size_t i = 0; !failed && i < sizeof parts / sizeof *parts; i++)
            failed = mark(parts[i], waiting);
        if (!failed && type->tp_flags & Py_TPFLAGS_HEAPTYPE) {
            PyHeapTypeObject *heap = (PyHeapTypeObject *)type;

            failed = mark(heap->ht_name, waiting) || mark(heap->ht_qualname, waiting) || mark(heap->ht_slots, waiting);
        }
    } else if (PyTuple_Check(object)) { /* the collector may have let go of it, but its items are there */
        for (Py_ssize_t i = 0; !failed && i < PyTuple_GET_SIZE(object); i++)
            failed = mark(PyTuple_GET_ITEM(object, i), waiting);
    }
    return failed;
}

/* Of our change of Objects/obmalloc.c. */
void _PyObject_Seal(void);

/* Make the objects in a list, and all that they lead to, live for ever; returns how many they are. What is made later
 * lies in other pages than theirs. */
static PyObject *
brickless_keep(PyObject *module, PyObject *list)
{
    struct waiting waiting = {NULL, 0, 0};
    unsigned long total = 0;
    int failed = 0;

    if (!PyList_CheckExact(list)) {
        PyErr_SetString(PyExc_TypeError, "keep takes a list");
        return NULL;
    }
    for (Py_ssize_t i = 0; !failed && i < PyList_GET_SIZE(list); i++)
        failed = mark(PyList_GET_ITEM(list, i), &waiting);
    while (!failed && waiting.count) {
        PyObject *object = waiting.objects[--waiting.count];

        total++;
        failed = mark_leaves(object, &waiting);
        if (!failed && PyObject_IS_GC(object) && Py_TYPE(object)->tp_traverse != NULL)
            failed = Py_TYPE(object)->tp_traverse(object, mark, &waiting);
    }
    free(waiting.objects);
    if (failed)
        return PyErr_NoMemory();
    _PyObject_Seal();
    return PyLong_FromUnsignedLong(total);
}

static PyMethodDef methods[] = {
    {"keep", brickless_keep, METH_O, NULL},
    {"syscall", (PyCFunction)(void (*)(void))brickless_syscall, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_brickless",
    .m_size = 0,
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit__brickless(void)
{
    return PyModule_Create(&definition);
}
