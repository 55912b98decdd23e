# cython: language_level=3, annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False, auto_pickle=False
"""The loop over packed calls, compiled: the calls of it that are plain, as Executor runs them.

What is not plain is left to Executor: what names anything but tensors and numbers, operations that need more than their
function, failures. Never lets go of the GIL by itself; the functions do.
"""

from time import perf_counter as _clock

import torch

from cpython.array cimport array
from cpython.dict cimport PyDict_Contains, PyDict_DelItem, PyDict_GetItem, PyDict_SetItem, PyDict_Size
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_GET_SIZE, PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

cdef extern from "Python.h":
    bint PyObject_TypeCheck(object, PyTypeObject*)
    object PyObject_Call(object, object, PyObject*)

cdef extern from *:
    """
    #ifndef TC_SOURCE
    #define TC_SOURCE 0
    #endif
    """
    # The checksum of this file, told when it is built.
    unsigned long TC_SOURCE

SOURCE = TC_SOURCE

# See tensorcompute.wire.packed.
cdef enum:
    CALL = 1
    FREE = 2
    KIND_BITS = 8
    KIND_MASK = 0xFF
    COUNT_SHIFT = 8
    MAX_COUNT = 0xFF
    OPERATION_SHIFT = 16
    MAX_OPERATION = 0xFFFFFF
    CONTEXT_SHIFT = 40
    TAG_SHIFT = 48

cdef object _Tensor = torch.Tensor


cdef class RunFields:
    """What every call touches of the batch that is run."""

    cdef public Py_ssize_t at
    cdef public long index, number


cdef inline bint is_tensor(PyObject* value):
    return type(<object>value) is _Tensor or PyObject_TypeCheck(<object>value, <PyTypeObject*>_Tensor)


cdef tuple arguments(dict objects, const uint64_t* words, Py_ssize_t count):
    """What the words stand for; None where that is not as plain as tensors and numbers."""
    cdef Py_ssize_t at = 0, size = 0
    cdef uint64_t tag
    cdef int64_t integer
    cdef double number
    cdef PyObject* found
    cdef tuple made
    while at < count:
        tag = words[at] >> TAG_SHIFT
        if tag >= 2:
            if words[at] != <uint64_t>2 << TAG_SHIFT or at + 1 >= count:
                return None
            at += 1
        size += 1
        at += 1
    made = PyTuple_New(size)
    at = size = 0
    while at < count:
        tag = words[at] >> TAG_SHIFT
        if not tag:
            found = PyDict_GetItem(objects, words[at])
            if found == NULL or not is_tensor(found):
                return None
            value = <object>found
        elif tag == 1:
            integer = <int64_t>(words[at] << (64 - TAG_SHIFT)) >> (64 - TAG_SHIFT)
            value = integer
        else:
            at += 1
            memcpy(&number, &words[at], sizeof(double))
            value = number
        Py_INCREF(value)
        PyTuple_SET_ITEM(made, size, value)
        size += 1
        at += 1
    return made


def run_plain(executor, store, RunFields run, list operations, array given, Py_ssize_t at, double deadline):
    """Run plain calls from a word on, and what is let go between them; the word of what is none, or the end.

    -1 where time was up before the end: `run.at` says where to go on.
    """
    cdef const uint64_t* words = <const uint64_t*>given.data.as_voidptr
    cdef Py_ssize_t end = len(given), behind, place
    cdef dict objects = store.objects, made = run.made
    cdef uint64_t word, number, context, call_id
    cdef int64_t last = -1
    cdef bint is_direct = False
    cdef object operation = None, function = None, key, result
    cdef tuple args
    while at < end:
        word = words[at]
        if word & KIND_MASK == FREE:
            key = word >> KIND_BITS
            if PyDict_Contains(objects, key):
                PyDict_DelItem(objects, key)
            at += 1
            continue
        if word & KIND_MASK != CALL:
            return at
        behind = at + 2 + (word >> COUNT_SHIFT & MAX_COUNT)
        number = word >> OPERATION_SHIFT & MAX_OPERATION
        context = word >> CONTEXT_SHIFT
        if behind > end:
            return at
        if <int64_t>number != last:
            if number >= <uint64_t>len(operations):
                return at
            operation = operations[number]
            is_direct = operation.is_direct
            function = operation.function
            last = number
        call_id = words[at + 1]
        key = call_id
        if not is_direct or store.watched or call_id >> TAG_SHIFT or (call_id and PyDict_Contains(objects, key)):
            return at
        if context or executor._mode is not None:
            # A context that is not defined is told of there.
            if not executor.enter(store, context):
                return at
        args = arguments(objects, words + at + 2, behind - at - 2)
        if args is None:
            return at
        run.number = number
        try:
            result = PyObject_Call(function, args, NULL)
        except Exception as error:
            executor.failed(store, run, call_id, operation, list(args), error)
            result = None
        else:
            if PyObject_TypeCheck(result, <PyTypeObject*>_Tensor):
                if call_id:
                    PyDict_SetItem(objects, key, result)
                    PyDict_SetItem(made, key, run.index)
                    for place in range(PyTuple_GET_SIZE(args)):
                        if args[place] is result:
                            run.is_same(call_id, given[at + 2 : behind], place)
                            break
                    if PyDict_Size(objects) > store.peak_results:
                        store.peak_results = PyDict_Size(objects)
            elif result is NotImplemented:
                executor.refused(store, run, call_id, operation, list(args))
            elif result is not None or call_id:
                executor._tell_value(store, run, call_id, operation, result)
        args = result = None
        run.index += 1
        at = behind
        if _clock() > deadline and at < end:
            run.at = at
            return -1
    return at
