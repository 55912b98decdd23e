# cython: language_level=3, binding=True, annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False, auto_pickle=False
"""The core of the client, compiled: what pure.py does, and the way of a plain call from a name of torch's to the queue.

A plain call takes tensors, integers and numbers without names, and returns a tensor, its first argument or nothing.
What is not as plain as that goes the way of pure Python, and so does whatever is rare. Takes no locks and never lets go
of the GIL. An allocation may collect garbage, and that may run any code: nothing of what is shared is read before the
last allocation and written after it.
"""

from array import array as _array
from collections import deque as _deque

from cpython.array cimport array, clone
from cpython.float cimport PyFloat_AS_DOUBLE
from cpython.list cimport PyList_Append, PyList_CheckExact, PyList_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject, PyTypeObject
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_SIZE
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

cdef extern from "Python.h":
    ctypedef struct PyFrameObject:
        pass
    PyFrameObject* PyEval_GetFrame()
    PyObject* tc_code "(PyObject *)PyFrame_GetCode"(PyFrameObject*)
    PyFrameObject* PyFrame_GetBack(PyFrameObject*)
    int PyFrame_GetLasti(PyFrameObject*)
    PyObject* PyTuple_GET_ITEM_ "PyTuple_GET_ITEM"(PyObject*, Py_ssize_t)
    long long PyLong_AsLongLongAndOverflow(object, int*) except? -1
    void tc_decref "Py_XDECREF"(void*)
    bint PyObject_TypeCheck(object, PyTypeObject*)
    void tc_incref "Py_INCREF"(void*)

cdef extern from *:
    """
    #include "frameobject.h"
    #ifndef TC_SOURCE
    #define TC_SOURCE 0
    #endif
    """
    # The checksum of this file, told when it is built.
    unsigned long TC_SOURCE

COMPILED = True
SOURCE = TC_SOURCE

# See tensorcompute.wire.packed.
cdef enum:
    CALL = 1
    FREE = 2
    KIND_BITS = 8
    COUNT_SHIFT = 8
    OPERATION_SHIFT = 16
    CONTEXT_SHIFT = 40
    TAG_SHIFT = 48
# Rules of shapes; see tclient._shapes.
cdef enum:
    SAME = 1
    UNARY = 2
    ARITHMETIC = 3
cdef enum:
    RING = 1024  # a power of two
    FEW_DROPS = 8  # see call_queue.py
    MOST_ARGS = 16

cdef dict _RULES = {"same": SAME, "unary": UNARY, "arithmetic": ARITHMETIC}
cdef object _template = _array("Q")
cdef object _no_bytes = b""
cdef object _no_path = ()
# In the place of a result: the call is not plain.
cdef object _NOT_PLAIN = object()

# What `set_up` tells.
cdef type _Tensor = None
cdef type _TensorBase = None
cdef type _Call = None
cdef type _RemoteRef = None
cdef object _modes = None
cdef object _by_key = None
cdef str _here = None


def set_up(*, tensor, base, call, ref, modes, by_key, here):
    """The classes of results and of tensors, of calls and references, and what the modules know that are not compiled."""
    global _Tensor, _TensorBase, _Call, _RemoteRef, _modes, _by_key, _here
    _Tensor, _TensorBase, _Call, _RemoteRef = tensor, base, call, ref
    _modes, _by_key, _here = modes, by_key, here


cdef class Drops:
    """What was dropped, in order: ids in a ring, and behind them in a deque what is no id, or too much."""

    cdef uint64_t ring[RING]
    cdef int first, count
    cdef object more
    cdef bint closed

    def __init__(self, *, maxlen=None):
        self.more = _deque()
        self.closed = maxlen == 0

    cdef inline int put(self, uint64_t number) except -1:
        if self.closed:
            return 0
        if self.count < RING and not len(self.more):
            self.ring[(self.first + self.count) & (RING - 1)] = number
            self.count += 1
        else:
            self.more.append(number)
        return 0

    cdef inline uint64_t take(self) noexcept:
        cdef uint64_t number = self.ring[self.first]
        self.first = (self.first + 1) & (RING - 1)
        self.count -= 1
        return number

    def append(self, name):
        """Put one behind the others."""
        if self.closed:
            return
        if type(name) is int:
            self.put(name)
        else:
            self.more.append(name)

    def popleft(self):
        """The first of them. Raises: IndexError if there is none."""
        if self.count:
            return self.take()
        return self.more.popleft()

    def extend(self, names):
        """Put several behind the others."""
        for name in names:
            self.append(name)

    def extendleft(self, names):
        """Put several before the others, the last of them first."""
        if self.closed:
            return
        while self.count:
            self.count -= 1
            self.more.appendleft(self.ring[(self.first + self.count) & (RING - 1)])
        self.more.extendleft(names)

    def __len__(self):
        return self.count + len(self.more)

    def __iter__(self):
        cdef int place
        numbers = [self.ring[(self.first + place) & (RING - 1)] for place in range(self.count)]
        return iter([*numbers, *self.more])


cdef class QueueFields:
    """What every call touches of the queue of its session."""

    cdef public object pending
    cdef public Drops drops
    cdef public bint attention, dozing
    cdef public Py_ssize_t relief
    cdef public int64_t epoch, meta_epoch
    cdef uint64_t number

    def __init__(self, uint64_t first_id):
        self.number = first_id

    def next_id(self):
        """An id that was not used."""
        cdef uint64_t number = self.number
        self.number = number + 1
        return number


cdef class OperationFields:
    """What an entry of the table of operations holds."""

    cdef public object entry, heads, name, number, prefix
    cdef public bint has_plain_key, meta_change, sets_gradients, takes_data, writes, writes_if
    cdef public Py_ssize_t plain_count
    cdef public long tensors
    cdef object _shape_rule, _returns
    cdef int rule
    cdef bint makes_tensor, gives_first
    # The number, once it is known.
    cdef int64_t index

    def __cinit__(self):
        self.index = -1

    @property
    def returns(self):
        """See tclient._codec.overloads."""
        return self._returns

    @returns.setter
    def returns(self, returns):
        self._returns = returns
        self.makes_tensor, self.gives_first = returns == "tensor", returns == "self"

    @property
    def shape_rule(self):
        """See tclient._shapes."""
        return self._shape_rule

    @shape_rule.setter
    def shape_rule(self, rule):
        self._shape_rule = rule
        self.rule = _RULES.get(rule, 0)


cdef class KindFields:
    """What a kind of results holds."""

    cdef public object meta, items, parts
    cdef public bint floats, is_leaf


cdef class KindsFields:
    """What the kinds of a session are held in."""

    cdef public dict found


cdef class ModeFields:
    """What every call of a thread needs to know of its modes."""

    cdef public object stamp, recorder
    cdef public int64_t context
    cdef public bint autocasts


cdef class CallFields:
    """What a call holds. Its words lie in memory of their own until it is sent."""

    cdef public object data, operation, code, result, failure
    cdef public bint done
    cdef public int lasti
    cdef public int64_t epoch
    cdef uint64_t* taken
    cdef Py_ssize_t count

    def __dealloc__(self):
        PyMem_Free(self.taken)

    cdef int take(self, Py_ssize_t count) except -1:
        """Memory for so many words, in the place of those that it had."""
        cdef uint64_t* taken = NULL
        if count:
            taken = <uint64_t*>PyMem_Malloc(count * sizeof(uint64_t))
            if taken == NULL:
                raise MemoryError
        PyMem_Free(self.taken)
        self.taken, self.count = taken, count
        return 0

    @property
    def words(self):
        """The words of the call, with what is let go before it."""
        cdef Py_ssize_t place
        return [self.taken[place] for place in range(self.count)]

    @words.setter
    def words(self, words):
        cdef Py_ssize_t place = 0
        cdef list given = list(words)
        cdef array copied = _array("Q", given)
        self.take(len(given))
        memcpy(self.taken, copied.data.as_voidptr, self.count * sizeof(uint64_t))


cdef class RefFields:
    """What a reference holds, and its end."""

    cdef public object call, meta, kind
    cdef public tuple path
    cdef object _session
    cdef public uint64_t id
    cdef public int64_t epoch, since
    # The queue of the session, once it was needed.
    cdef QueueFields queue

    @property
    def session(self):
        """The session that holds it."""
        return self._session

    @session.setter
    def session(self, session):
        self._session, self.queue = session, None

    def __del__(self):
        # Runs at any moment, within any lock: appending to what is dropped is all it may do.
        cdef QueueFields queue = self.queue
        if queue is None:
            queue = self._session.queue
        if self.path:
            queue.drops.append((self.id, self.path))
        else:
            queue.drops.put(self.id)
        if queue.dozing:
            queue.rouse()


cdef class HandleFields:
    """What any object has that stands for something on the server."""

    cdef public RefFields _ref
    cdef object __weakref__


def bare(cls):
    """An object of a class of handles, without its reference, and without a call of what makes one."""
    if not isinstance(cls, type):
        raise TypeError(f"{cls!r} is no class")
    return HandleFields.__new__(<type>cls)


# ---- the caller's line -----------------------------------------------------------------------------------------------

# The code that called last: the next call is mostly from there, too.
cdef PyObject* _last_code = NULL


cdef bint find_site(CallFields call) except -1:
    """Notes the nearest frame outside this package; False where there is no frame at all."""
    global _last_code
    cdef PyFrameObject* frame = PyEval_GetFrame()
    cdef PyFrameObject* outer
    cdef PyObject* code
    if frame == NULL:
        return False
    tc_incref(frame)
    while True:
        code = tc_code(frame)
        if code == _last_code:
            break
        if not (<str>(<object>code).co_filename).startswith(_here):
            tc_decref(_last_code)
            tc_incref(code)
            _last_code = code
            break
        outer = PyFrame_GetBack(frame)
        if outer == NULL:
            break
        tc_decref(code)
        tc_decref(frame)
        frame = outer
    call.code = <object>code
    call.lasti = PyFrame_GetLasti(frame)
    tc_decref(code)
    tc_decref(frame)
    return True


# ---- what is known of a result before it is answered; see tclient._shapes ---------------------------------------------


cdef inline object kind_of_ref(object session, RefFields ref, int64_t epoch):
    """See Kinds.of_ref."""
    if ref.kind is not None and ref.since >= epoch:
        return ref.kind
    if ref.meta is None or ref.epoch < epoch:
        return None
    return session.kinds.of_ref(ref, epoch)


cdef object kind_of(
    OperationFields operation, object session, QueueFields queue, ModeFields state, PyObject** args, Py_ssize_t count
):
    """See tclient._shapes.kind_of."""
    cdef object kind
    cdef PyObject* other
    cdef int64_t epoch = queue.meta_epoch
    if operation.rule:
        kind = kind_of_ref(session, (<HandleFields>args[0])._ref, epoch)
        if kind is None:
            return None
        if operation.rule == ARITHMETIC:
            if count == 2 and (<KindFields?>kind).floats and not state.autocasts:
                other = args[1]
                if not is_tensor(other) or kind_of_ref(session, (<HandleFields>other)._ref, epoch) is kind:
                    return kind
        elif count == 1 and (operation.rule == SAME or ((<KindFields?>kind).floats and not state.autocasts)):
            return kind
    if not operation.has_plain_key:
        return _by_key(session, operation, tuple([<object>args[place] for place in range(count)]), None)
    return kind_by_key(operation, session, state, epoch, args, count)


cdef object kind_by_key(
    OperationFields operation, object session, ModeFields state, int64_t epoch, PyObject** args, Py_ssize_t count
):
    """What calls with such arguments return: the same keys as those of tclient._shapes."""
    cdef Py_ssize_t size = 2, place
    cdef long places = operation.tensors
    cdef object value
    cdef list key = [operation, state.stamp]
    cdef KindsFields kinds
    for place in range(count):
        value = <object>args[place]
        if type(value) is int:
            key.append(int)
            key.append(value)
        elif type(value) is float:
            key.append(float)
        else:
            if not places & 1:
                return None
            value = kind_of_ref(session, (<HandleFields>value)._ref, epoch)
            if value is None:
                return None
            key.append(value)
        places >>= 1
    kinds = session.kinds
    whole = tuple(key)
    found = kinds.found.get(whole)
    if found is None or ((<KindFields?>found).meta is not None and not (<KindFields>found).is_leaf):
        return kinds.of_call(whole)
    return found


# ---- plain calls -----------------------------------------------------------------------------------------------------


cdef inline bint is_tensor(PyObject* value):
    return type(<object>value) is _Tensor or PyObject_TypeCheck(<object>value, <PyTypeObject*>_TensorBase)


cdef object plain(OperationFields operation, PyObject** args, Py_ssize_t count):
    """Issue a call, and return what it returns; _NOT_PLAIN, and nothing has happened, where it is not plain."""
    cdef uint64_t words[2 + 2 * MOST_ARGS]
    cdef Py_ssize_t size = 2, place, dropped
    cdef PyObject* value
    cdef RefFields ref, made = None
    cdef QueueFields queue
    cdef ModeFields state
    cdef CallFields call
    cdef Drops drops
    cdef object session, kind = None, result
    cdef double number
    cdef long long integer
    cdef int overflow
    cdef int64_t since
    if not 0 < count <= operation.plain_count or count > MOST_ARGS or _Tensor is None or not is_tensor(args[0]):
        return _NOT_PLAIN
    state = _modes.state
    if state.recorder is not None:
        return _NOT_PLAIN
    ref = (<HandleFields>args[0])._ref
    if type(ref) is not _RemoteRef:
        return _NOT_PLAIN
    session = ref._session
    queue = ref.queue
    if queue is None:
        queue = ref.queue = session.queue
    for place in range(count):
        value = args[place]
        if is_tensor(value):
            ref = (<HandleFields>value)._ref
            if type(ref) is not _RemoteRef or ref._session is not session or PyTuple_GET_SIZE(ref.path):
                return _NOT_PLAIN
            words[size] = ref.id
            size += 1
        elif type(<object>value) is float:
            number = PyFloat_AS_DOUBLE(<object>value)
            words[size] = <uint64_t>2 << TAG_SHIFT
            memcpy(&words[size + 1], &number, sizeof(double))
            size += 2
        elif type(<object>value) is int:
            integer = PyLong_AsLongLongAndOverflow(<object>value, &overflow)
            if overflow or not -(<long long>1 << 47) <= integer < (<long long>1 << 47):
                return _NOT_PLAIN
            words[size] = <uint64_t>1 << TAG_SHIFT | (<uint64_t>integer & ((<uint64_t>1 << TAG_SHIFT) - 1))
            size += 1
        else:
            return _NOT_PLAIN
    if operation.index < 0:
        operation.intern()
        operation.index = operation.number
    words[0] = (
        CALL | <uint64_t>(size - 2) << COUNT_SHIFT | <uint64_t>operation.index << OPERATION_SHIFT
        | <uint64_t>state.context << CONTEXT_SHIFT
    )
    # Before the call is put: what changes later is not missed.
    since = queue.epoch
    if operation.tensors:
        kind = kind_of(operation, session, queue, state, args, count)
    call = CallFields.__new__(_Call)
    if not find_site(call):
        return _NOT_PLAIN
    call.operation = operation
    call.data = _no_bytes
    if operation.makes_tensor:
        made = RefFields.__new__(_RemoteRef)
        made._session = session
        made.queue = queue
        made.path = _no_path
        made.call = call
        made.epoch = -1
        made.kind = kind
        made.since = since
        result = HandleFields.__new__(_Tensor)
        # An id that no call has made yet is let go if this fails, which does no harm.
        made.id = queue.number
        queue.number += 1
        words[1] = made.id
        (<HandleFields>result)._ref = made
    else:
        words[1] = 0
        result = <object>args[0] if operation.gives_first else None
    drops = queue.drops
    if (
        operation.writes or operation.sets_gradients or queue.attention or drops.count > FEW_DROPS or len(drops.more)
        or not PyList_CheckExact(queue.pending)
    ):
        call.take(size)
        memcpy(call.taken, words, size * sizeof(uint64_t))
        queue.put(call, 0 if not operation.writes else 2 if operation.meta_change else 1)
        return result
    # As CallQueue.put. From here on nothing runs but C, up to the end of it.
    dropped = drops.count
    call.take(dropped + size)
    for place in range(dropped):
        call.taken[place] = FREE | drops.take() << KIND_BITS
    memcpy(call.taken + dropped, words, size * sizeof(uint64_t))
    call.epoch = queue.epoch
    PyList_Append(queue.pending, call)
    if PyList_GET_SIZE(queue.pending) > queue.relief:
        queue.relieve()
    return result


def quick_operator(OperationFields operation, slow, bint takes_numbers):
    """One of Python's operators of two operands; `slow` takes what is not plain."""

    def operator(self, other):
        cdef PyObject* args[2]
        cdef object result
        args[0], args[1] = <PyObject*>self, <PyObject*>other
        if takes_numbers or is_tensor(args[1]):
            result = plain(operation, args, 2)
            if result is not _NOT_PLAIN:
                return result
        return slow(self, other)

    return operator


def quick_dispatch(slow):
    """What issues any call; `slow` takes what is not plain."""

    def dispatch(OperationFields operation, args, kwargs, may_be_odd=False):
        cdef object result
        if not kwargs and PyTuple_CheckExact(args):
            result = plain_tuple(operation, args)
            if result is not _NOT_PLAIN:
                return result
        return slow(operation, args, kwargs, may_be_odd)

    return dispatch


cdef object plain_tuple(OperationFields operation, object args):
    cdef PyObject* given[MOST_ARGS]
    cdef Py_ssize_t place, count = PyTuple_GET_SIZE(args)
    if not 0 < count <= MOST_ARGS:
        return _NOT_PLAIN
    for place in range(count):
        given[place] = PyTuple_GET_ITEM_(<PyObject*>args, place)
    return plain(operation, given, count)


# ---- the calls of a batch --------------------------------------------------------------------------------------------


def contents(calls):
    """The encoded fields of the calls that are not packed, and the words of all."""
    cdef list data = []
    cdef list all_calls = list(calls)
    cdef Py_ssize_t size = 0, at = 0
    cdef CallFields call
    for call in all_calls:
        size += call.count
    cdef array words = clone(_template, size, False)
    cdef uint64_t* out = <uint64_t*>words.data.as_voidptr
    for call in all_calls:
        memcpy(out + at, call.taken, call.count * sizeof(uint64_t))
        at += call.count
        if call.data:
            data.append(call.data)
    return data, words


def empty(calls):
    """Let go of what was sent of these calls."""
    cdef CallFields call
    for call in calls:
        call.data = _no_bytes
        call.take(0)


def settle(list calls, results):
    """The calls of a batch are answered, some of them with encoded Values."""
    cdef CallFields call
    for index, value in results:
        call = calls[index]
        call.result = value
    for call in calls:
        call.done = True
