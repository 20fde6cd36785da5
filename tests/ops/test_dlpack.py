"""Arrays of other libraries at the border: who owns what, who waits for whom, and what is refused.

DLPack works the same for the CPU and for devices, so all but the streams is tried on the CPU: with
JAX where it is installed, and with a library of our own that counts what happens to its memory.
"""

import ctypes
import dataclasses

import numpy as np
import pytest
import torch
from random_models import normals, random_spec, random_weights

from worldmodels_fast import ops
from worldmodels_fast.ops import arguments as ops_arguments

CPU, CUDA, ROCM = 1, 2, 10
FLOAT, UINT, COMPLEX = 2, 1, 5


class Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("id", ctypes.c_int32))


class Dtype(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", Device),
        ("ndim", ctypes.c_int32),
        ("dtype", Dtype),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Managed(ctypes.Structure):
    _fields_ = (("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", Deleter))


class Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", Deleter),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    )


NAMES = {Managed: b"dltensor", Versioned: b"dltensor_versioned"}
Destructor = ctypes.CFUNCTYPE(None, ctypes.py_object)
new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype = ctypes.py_object
new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
pointer_of.restype = ctypes.c_void_p
pointer_of.argtypes = (ctypes.py_object, ctypes.c_char_p)
is_valid = ctypes.pythonapi.PyCapsule_IsValid
is_valid.restype = ctypes.c_int
is_valid.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
get_pointer = ctypes.PyDLL(None).PyCapsule_GetPointer
get_pointer.restype = ctypes.c_void_p
get_pointer.argtypes = (ctypes.c_void_p, ctypes.c_char_p)


class Counted:
    """An array of a library that counts how often its deleters are called."""

    def __init__(self, array, kind=Versioned, **about):
        self.array, self.kind, self.about = array, kind, about
        self.exported = self.deleted = 0
        self.asked = []
        self._alive = []

    shape = property(lambda self: self.array.shape)
    dtype = property(lambda self: self.array.dtype)

    def __array_namespace__(self):
        return np

    def __dlpack_device__(self):
        return self.about.get("device", (CPU, 0))

    def __dlpack__(self, **arguments):
        if self.kind is Managed and "max_version" in arguments:
            raise TypeError("__dlpack__() got an unexpected keyword argument 'max_version'")
        self.asked.append(arguments)
        array = self.array
        code = {"f": FLOAT, "u": UINT, "c": COMPLEX}[array.dtype.kind]
        lengths = (ctypes.c_int64 * array.ndim)(*array.shape)
        strides = (ctypes.c_int64 * array.ndim)(*(s // array.itemsize for s in array.strides))
        offset = self.about.get("byte_offset", 0)
        tensor = Tensor(
            array.ctypes.data - offset,
            Device(*self.__dlpack_device__()),
            array.ndim,
            Dtype(code, 8 * array.itemsize, 1),
            lengths,
            None if self.about.get("no_strides") else strides,
            offset,
        )

        def delete(_):
            self.deleted += 1

        deleter = Deleter(delete)
        managed = self.kind()
        managed.tensor, managed.deleter = tensor, deleter
        if self.kind is Versioned:
            managed.major, managed.flags = self.about.get("major", 1), self.about.get("flags", 0)
        name = NAMES[self.kind]

        @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        def destroy(capsule):  # as DLPack has it: nobody has taken it over
            if is_valid(capsule, name):
                self.kind.from_address(get_pointer(capsule, name)).deleter(None)

        self._alive.append((managed, lengths, strides, deleter, destroy))
        self.exported += 1
        return new_capsule(ctypes.addressof(managed), name, ctypes.cast(destroy, ctypes.c_void_p))


def mixture(n=6, z=5, k=3):
    return [normals(seed, n, z, k) for seed in range(3)]


# --- in -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Managed, Versioned])
@pytest.mark.parametrize("about", [{}, {"no_strides": True}, {"byte_offset": 64}], ids=str)
def test_capsules_are_read_and_let_go_once(kind, about):
    arrays = mixture()
    counted = [Counted(x, kind, **about) for x in arrays]
    z = ops.mixture_sample(*counted, 1.15, seed=3)
    np.testing.assert_array_equal(z, ops.mixture_sample(*arrays, 1.15, seed=3))
    for c in counted:
        assert c.exported == c.deleted == 1
        assert all("stream" not in arguments for arguments in c.asked)  # there is none on the CPU
        assert all(a.get("max_version") == (1, 0) for a in c.asked) == (kind is Versioned)


@pytest.mark.parametrize("kind", [Managed, Versioned])
def test_capsules_are_let_go_after_an_error(kind):
    counted = [Counted(x, kind) for x in mixture()]
    counted[2] = Counted(normals(2, 6, 5, 4), kind)
    with pytest.raises(ValueError, match=r"logstd: .*got shape \(6, 5, 4\)"):
        ops.mixture_sample(*counted, 1.0)
    assert [c.deleted for c in counted] == [1, 1, 1]


def test_outputs_are_written_in_place():
    arrays = mixture()
    out = Counted(np.full((6, 5), np.nan, np.float32))
    assert ops.mixture_sample(*arrays, 1.0, out=out) is out
    np.testing.assert_array_equal(out.array, ops.mixture_sample(*arrays, 1.0))
    assert out.deleted == 1
    with pytest.raises(ValueError, match=r"out: .*read-only"):
        ops.mixture_sample(*arrays, 1.0, out=Counted(out.array, flags=1))
    with pytest.raises(ValueError, match=r"out: .*z overlapping mu"):
        ops.mixture_sample(*arrays, 1.0, out=Counted(arrays[1].ravel()[:30].reshape(6, 5)))


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda x: Counted(x.astype(np.float64)), TypeError, r"mu: .*got dtype float64"),
        (lambda x: Counted(x.view(np.uint32)), TypeError, r"mu: .*got dtype uint32"),
        (lambda x: Counted(x.astype(np.complex64)), TypeError, r"mu: .*got dtype complex64"),
        (lambda x: Counted(x.T.copy().T), ValueError, r"mu: .*in C order"),
        (lambda x: Counted(x[:, :, :1]), ValueError, r"mu: .*got shape \(6, 5, 1\)"),
        (lambda x: Counted(x, major=2), TypeError, r"expected DLPack 0 or 1, got version 2"),
        (lambda x: Counted(x, device=(ROCM, 0)), ValueError, r"mu: .*on the CPU or a CUDA device"),
        (lambda x: x.tolist(), TypeError, r"mu: .*DLPack.*got list"),
    ],
)
def test_what_does_not_fit_is_refused(spoil, error, message):
    logmix, mu, logstd = mixture()
    with pytest.raises(error, match=message):
        ops.mixture_sample(logmix, spoil(mu), logstd, 1.0)


def test_an_axis_of_one_may_have_any_stride():
    arrays = [np.repeat(x, 2, axis=0)[::2] for x in mixture(1)]
    assert not all(x.strides[0] == 60 for x in arrays)
    np.testing.assert_array_equal(
        ops.mixture_sample(*map(Counted, arrays), 1.0),
        ops.mixture_sample(*(x.copy() for x in arrays), 1.0),
    )


# --- arrays that say they are on a device ---------------------------------------------------------


def on_device(array, index=0):
    return Counted(array, device=(CUDA, index))


def test_a_model_on_the_cpu_refuses_arrays_elsewhere():
    weights = random_weights(4, 2, 6, 3, True)
    packed = ops.pack_mdn_rnn(weights)
    z, action, h, c = (normals(0, 5, n) for n in (4, 2, 6, 6))
    with pytest.raises(ValueError, match=r"z: .*on the CPU, where the model is, .*on cuda:1"):
        ops.mdn_rnn_step(packed, on_device(z, 1), action, h, c)
    with pytest.raises(
        ValueError, match=r"h: .*on the CPU, where z is, got one on cuda:0; all arrays of a call"
    ):
        ops.mdn_rnn_step(packed, z, action, on_device(h), c)
    with pytest.raises(ValueError, match=r"logmix: .*on the CPU, where this backend computes"):
        ops.mixture_sample(*map(on_device, mixture()), 1.0, backend="generic")


def test_arrays_on_a_device_are_asked_for_in_the_stream_of_the_call():
    logmix, mu, logstd = mixture()
    first = on_device(logmix)
    with pytest.raises(ValueError, match=r"mu: .*on cuda:0, where logmix is, got one on the CPU"):
        ops.mixture_sample(first, mu, logstd, 1.0)
    assert first.asked == [{"stream": 1, "max_version": (1, 0)}]  # 1 is the default stream
    assert first.deleted == 1
    with pytest.raises(ValueError, match=r"mu: .*on cuda:0, where logmix is, got one on cuda:1"):
        ops.mixture_sample(on_device(logmix), on_device(mu, 1), logstd, 1.0)


# --- out ------------------------------------------------------------------------------------------


def exported(array, **arguments):
    """What a capsule shows, as long as the capsule lives, and the capsule."""
    capsule = array.__dlpack__(**arguments)
    kind = Versioned if "versioned" in str(capsule) else Managed
    return kind.from_address(pointer_of(capsule, NAMES[kind])), capsule


def test_an_array_of_our_own_is_any_librarys():
    values = normals(0, 3, 4)
    own = ops.to_device(values, "cpu")
    assert (own.shape, own.dtype, own.device) == ((3, 4), "float32", "cpu")
    assert own.__dlpack_device__() == (CPU, 0)
    np.testing.assert_array_equal(own.numpy(), values)
    for arguments in ({}, {"max_version": (0, 8)}, {"max_version": (1, 1), "copy": False}):
        managed, capsule = exported(own, **arguments)
        assert isinstance(managed, Versioned) == (arguments.get("max_version", (0,))[0] == 1)
        tensor = managed.tensor
        assert tensor.data % 64 == 0
        assert tensor.shape[:2] == [3, 4]
        assert tensor.strides[:2] == [4, 1]
        assert (tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes) == (FLOAT, 32, 1)
        del capsule  # lets go of it
    managed, capsule = exported(own)
    address = managed.tensor.data
    del capsule
    as_numpy, as_torch = np.from_dlpack(own), torch.from_dlpack(own)
    assert as_numpy.ctypes.data == as_torch.data_ptr() == address
    del own
    as_torch[0, 0] = 7.0
    assert as_numpy[0, 0] == 7.0
    assert (as_numpy.ravel()[1:] == values.ravel()[1:]).all()


def test_what_cannot_be_exported():
    own = ops.to_device(np.arange(6, dtype=np.int32), "cpu")
    assert own.dtype == "int32"
    for arguments, error in [
        ({"dl_device": (CUDA, 0)}, BufferError),
        ({"copy": True}, BufferError),
        ({"stream": 1}, ValueError),
    ]:
        with pytest.raises(error):
            own.__dlpack__(**arguments)
    with pytest.raises(AttributeError):
        _ = own.__cuda_array_interface__
    with pytest.raises(TypeError, match="array: expected a NumPy array, got list"):
        ops.to_device([1.0], "cpu")
    with pytest.raises(TypeError, match="array: expected float32 or int32, got dtype float64"):
        ops.to_device(np.zeros(3), "cpu")
    with pytest.raises(ValueError, match="array: expected one in C order"):
        ops.to_device(np.zeros((3, 4), np.float32).T, "cpu")
    with pytest.raises(ValueError, match="device: expected 'cpu', 'cuda' or 'cuda:N', got 'tpu'"):
        ops.to_device(np.zeros(3, np.float32), "tpu")


def test_our_own_arrays_go_through_every_op():
    weights = random_weights(5, 2, 9, 3, True, reward=True)
    spec = random_spec(weights)
    params, z, action, h, c = (normals(i, 4, n) for i, n in enumerate((spec.n_params, 5, 2, 9, 9)))

    def own(*arrays):
        return [ops.to_device(x, "cpu") for x in arrays]

    step = ops.mdn_rnn_step(weights, *own(z, action, h, c))
    expected = ops.mdn_rnn_step(weights, z, action, h, c)
    for got, e in zip(step, expected, strict=True):
        assert isinstance(got, ops.DeviceArray)
        np.testing.assert_array_equal(got.numpy(), e)
    sample = ops.mixture_sample(step.logmix, step.mu, step.logstd, 0.7)
    np.testing.assert_array_equal(sample.numpy(), ops.mixture_sample(*expected[:3], 0.7))
    chosen = ops.controller_forward(spec, *own(params), sample, step.h, step.c)
    assert chosen.shape == (4, 2)
    returns, lengths = ops.dream_rollout(
        weights, spec, *own(params, z, z), rollouts=3, seed=1, temperature=1.0, max_steps=5
    )
    assert (returns.dtype, lengths.dtype) == ("float32", "int32")
    on_host = ops.dream_rollout(
        weights, spec, params, z, z, rollouts=3, seed=1, temperature=1.0, max_steps=5
    )
    np.testing.assert_array_equal(returns.numpy(), on_host[0])
    np.testing.assert_array_equal(lengths.numpy(), on_host[1])


def test_jax_in_gives_jax_out_without_copies():
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    weights = random_weights(5, 2, 9, 3, True, reward=True)
    inputs = [normals(i, 4, n) for i, n in enumerate((5, 2, 9, 9))]
    packed = ops.pack_mdn_rnn(
        dataclasses.replace(weights, bias=jax.numpy.asarray(weights.bias)), backend="generic"
    )
    step = ops.mdn_rnn_step(packed, *map(jax.numpy.asarray, inputs))
    expected = ops.mdn_rnn_step(ops.pack_mdn_rnn(weights, backend="generic"), *inputs)
    for got, e in zip(step, expected, strict=True):
        assert isinstance(got, jax.Array)
        np.testing.assert_array_equal(np.asarray(got), e)
    own = ops.to_device(normals(0, 7, 3), "cpu")
    as_jax = ops_arguments._of_the_library_of(step.h, own)
    managed, capsule = exported(own)
    assert as_jax.unsafe_buffer_pointer() == managed.tensor.data
    del capsule


def test_where_an_array_is():
    assert ops.device_of(np.zeros(1)) == ops.device_of(torch.zeros(1)) == "cpu"
    assert ops.device_of([1.0]) == ops.device_of(Counted(np.zeros(1, np.float32))) == "cpu"
    assert ops.device_of(on_device(np.zeros(1, np.float32), 3)) == "cuda:3"
