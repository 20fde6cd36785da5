"""What only a CUDA device can show: other libraries' arrays there, streams, plans, and errors.

That the operations compute the right thing, in odd sizes, with K = 1 and tiny temperatures, is for
test_ops.py, test_dream_rollout.py and test_philox.py: "cuda" is one of the backends there. Between
this and those, an array of the host is copied; here arrays are on the device.
"""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from backends import LEVELS
from random_models import dream_inputs, normals, random_spec, random_weights
from scipy import stats
from small_worlds import small_world

from worldmodels_fast import ops, reference
from worldmodels_fast.dream.dream import Dream

WHY = ops.why_no_cuda()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(WHY), reason=f"no CUDA device: {WHY}"),
]

PRECISIONS = ("fp32", "fp16")
TOLERANCE = {"fp32": 1e-5, "fp16": 4e-4}  # as in test_ops.py
SETTINGS = {"rollouts": 16, "seed": 3, "temperature": 1.15, "max_steps": 60}
USABLE = [d["index"] for d in ops.cuda_status()["devices"] if not d["reason"]]
FIRST = f"cuda:{USABLE[0]}" if USABLE else "cuda"


# --- libraries ------------------------------------------------------------------------------------


class Torch:
    def __init__(self):
        self.torch = pytest.importorskip("torch")
        if not self.torch.cuda.is_available():
            pytest.skip("this torch has no CUDA")

    def put(self, x):
        return self.torch.from_numpy(np.ascontiguousarray(x)).cuda()

    def is_own(self, x):
        return isinstance(x, self.torch.Tensor) and x.is_cuda

    def get(self, x):
        return x.cpu().numpy()

    def pointer(self, x):
        return x.data_ptr()


class Cupy:
    def __init__(self):
        self.cupy = pytest.importorskip("cupy", reason="CuPy is not installed")

    def put(self, x):
        return self.cupy.asarray(x)

    def is_own(self, x):
        return isinstance(x, self.cupy.ndarray)

    def get(self, x):
        return self.cupy.asnumpy(x)

    def pointer(self, x):
        return x.data.ptr


class Jax:
    def __init__(self):
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        self.jax = pytest.importorskip("jax", reason="JAX is not installed")
        try:
            self.device = self.jax.devices("cuda")[0]
        except RuntimeError as error:
            pytest.skip(f"this JAX has no CUDA: {error}")

    def put(self, x):
        return self.jax.device_put(x, self.device)

    def is_own(self, x):
        return isinstance(x, self.jax.Array) and x.devices() == {self.device}

    def get(self, x):
        return np.asarray(x)

    def pointer(self, x):
        return x.unsafe_buffer_pointer()


class Numba:
    """Nothing but __cuda_array_interface__: results are our own arrays."""

    def __init__(self):
        cuda = pytest.importorskip("numba.cuda", reason="Numba is not installed")
        if not cuda.is_available():
            pytest.skip("this Numba has no CUDA")
        self.cuda = cuda

    def put(self, x):
        return self.cuda.to_device(np.ascontiguousarray(x))

    def is_own(self, x):
        return isinstance(x, ops.DeviceArray | type(self.put(np.zeros(1, np.float32))))

    def get(self, x):
        return x.numpy() if isinstance(x, ops.DeviceArray) else x.copy_to_host()

    def pointer(self, x):
        return x.__cuda_array_interface__["data"][0]


class Own:
    def put(self, x):
        return ops.to_device(np.ascontiguousarray(x), FIRST)

    def is_own(self, x):
        return isinstance(x, ops.DeviceArray) and x.device == FIRST

    def get(self, x):
        return x.numpy()

    def pointer(self, x):
        return x.__cuda_array_interface__["data"][0]


@pytest.fixture(params=[Own, Torch, Cupy, Jax, Numba], ids=lambda kind: kind.__name__.lower())
def library(request):
    return request.param()


@pytest.fixture
def torch_cuda():
    return Torch().torch


def step_inputs(weights, n, seed=1):
    sizes = (weights.latent_dim, weights.action_dim, weights.hidden_dim, weights.hidden_dim)
    z, action, h, c = (normals(seed + i, n, size) for i, size in enumerate(sizes))
    restart = (normals(seed + 4, n) > 0).astype(np.float32) if weights.predicts_done else None
    return z, action, np.tanh(h), c, restart


def put_all(library, arrays):
    return [None if x is None else library.put(x) for x in arrays]


# --- arrays on the device -------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("reward", [False, True])
def test_every_librarys_arrays_go_in_and_come_out(library, reward, done, precision):
    weights = random_weights(17, 2, 33, 3, done, reward=reward)
    packed = ops.pack_mdn_rnn(weights, device="cuda", precision=precision)
    assert (packed.backend, packed.device, packed.precision) == ("cuda", FIRST, precision)
    inputs = step_inputs(weights, 13)
    expected = reference.mdn_rnn_step(weights, *inputs, precision=precision)
    step = ops.mdn_rnn_step(packed, *put_all(library, inputs))
    for name, got, e in zip(step._fields, step, expected, strict=True):
        assert (got is None) == (e is None)
        if got is not None:
            assert library.is_own(got)
            head = name in ("logmix", "mu", "logstd")
            assert np.abs(library.get(got) - e).max() <= TOLERANCE[precision if head else "fp32"]

    z = ops.mixture_sample(step.logmix, step.mu, step.logstd, 0.7, seed=5, step=2)
    assert library.is_own(z)
    mixture = [library.get(x) for x in (step.logmix, step.mu, step.logstd)]
    same = ops.mixture_sample(*mixture, 0.7, seed=5, step=2, backend="generic")
    assert (library.get(z) == same).all()  # bitwise: noise and sampling are the CPU's

    spec = random_spec(weights, hidden_units=5)
    params = 0.3 * normals(9, 13, spec.n_params)
    action = ops.controller_forward(spec, library.put(params), z, step.h, step.c)
    assert library.is_own(action)
    state = [library.get(x) for x in (z, step.h, step.c)]
    error = library.get(action) - reference.controller_forward(spec, params, *state)
    assert np.abs(error).max() <= 1e-5


def test_a_dream_of_a_population_on_the_device(library, rewarding):
    spec, params, *initial = dream_inputs(24, rewarding)
    model = ops.pack_mdn_rnn(rewarding, device="cuda")
    on_host = ops.dream_rollout(model, spec, params, *initial, **SETTINGS)
    assert all(isinstance(x, np.ndarray) for x in on_host)
    on_device = ops.dream_rollout(model, spec, *put_all(library, [params, *initial]), **SETTINGS)
    for host, device in zip(on_host, on_device, strict=True):
        assert library.is_own(device)
        assert library.get(device).dtype == host.dtype
        assert (library.get(device) == host).all()


def test_outputs_are_written_where_they_are(library, rewarding):
    if isinstance(library, Jax):
        pytest.skip("JAX's arrays are not to be written to")
    packed = ops.pack_mdn_rnn(rewarding, device="cuda")
    inputs = put_all(library, step_inputs(rewarding, 50))
    fresh = ops.mdn_rnn_step(packed, *inputs)
    blank = [np.full_like(library.get(x), np.nan) for x in fresh]
    out = ops.MDNRNNStep(*put_all(library, blank))
    pointers = [library.pointer(x) for x in out]
    assert ops.mdn_rnn_step(packed, *inputs, out=out) is out
    assert [library.pointer(x) for x in out] == pointers
    for a, b in zip(out, fresh, strict=True):
        assert (library.get(a) == library.get(b)).all()
    z, action, h, c, restart = inputs
    ops.mdn_rnn_step(packed, z, action, h, c, restart, out=out._replace(h=h, c=c))  # in place
    assert (library.get(h) == library.get(fresh.h)).all()
    with pytest.raises(ValueError, match=r"out: .*mu overlapping logmix"):
        ops.mdn_rnn_step(packed, z, action, h, c, restart, out=out._replace(mu=out.logmix))


def test_our_own_array_is_seen_by_others_without_a_copy(library):
    own = ops.to_device(np.arange(12, dtype=np.float32).reshape(3, 4), "cuda")
    address = own.__cuda_array_interface__["data"][0]
    if isinstance(library, Own):
        return
    if isinstance(library, Numba):
        seen = library.cuda.as_cuda_array(own)
    elif isinstance(library, Jax):
        seen = library.jax.numpy.from_dlpack(own)
    elif isinstance(library, Cupy):
        seen = library.cupy.from_dlpack(own)
    else:
        seen = library.torch.from_dlpack(own)
    assert library.pointer(seen) == address
    del own
    assert (library.get(seen) == np.arange(12).reshape(3, 4)).all()


def test_arrays_of_two_libraries_in_one_call(torch_cuda, doom_like):
    cupy = Cupy()
    packed = ops.pack_mdn_rnn(doom_like, device="cuda")
    z, *others = step_inputs(doom_like, 9)
    step = ops.mdn_rnn_step(packed, torch_cuda.from_numpy(z).cuda(), *put_all(cupy, others))
    assert isinstance(step.h, torch_cuda.Tensor)
    expected = ops.mdn_rnn_step(packed, z, *others)
    assert (step.h.cpu().numpy() == expected.h).all()
    step = ops.mdn_rnn_step(packed, cupy.put(z), *(torch_cuda.from_numpy(x).cuda() for x in others))
    assert cupy.is_own(step.h)
    assert (cupy.get(step.h) == expected.h).all()


def test_a_tensor_that_wants_a_gradient(torch_cuda):
    spec = ops.ControllerSpec(("z",), 3, 5, 2, bias=True)
    params = torch_cuda.nn.Parameter(torch_cuda.zeros(1, spec.n_params, device="cuda"))
    action = ops.controller_forward(spec, params, torch_cuda.zeros(4, 3, device="cuda"))
    assert action.is_cuda
    assert not action.requires_grad


# --- rows, slots and plans ------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dims", [(19, 2, 45, 3, True), (32, 3, 256, 5, False)], ids=str)
def test_a_row_does_not_depend_on_the_others(dims, precision):
    weights = random_weights(*dims, reward=True)
    packed = ops.pack_mdn_rnn(weights, device="cuda", precision=precision)
    inputs = step_inputs(weights, 300)
    whole = ops.mdn_rnn_step(packed, *inputs)
    for begin, n in ((0, 1), (299, 1), (7, 3), (16, 16), (5, 17), (100, 129), (63, 64)):
        part = [None if x is None else np.ascontiguousarray(x[begin : begin + n]) for x in inputs]
        for w, p in zip(whole, ops.mdn_rnn_step(packed, *part), strict=True):
            assert w is None or (w[begin : begin + n] == p).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_plans_splits_and_orders_change_no_bit(rewarding, precision):
    model = ops.pack_mdn_rnn(rewarding, device="cuda", precision=precision)
    spec, params, *initial = dream_inputs(40, rewarding)
    returns, lengths = ops.dream_rollout(model, spec, params, *initial, **SETTINGS)
    assert len(np.unique(lengths)) > 8
    order = np.random.default_rng(0).permutation(len(params))
    shuffled, _ = ops.dream_rollout(model, spec, params[order], *initial, **SETTINGS)
    assert (shuffled == returns[order]).all()
    for size in (1, 7, 39):
        for first in range(0, 40, size):
            part = np.ascontiguousarray(params[first : first + size])
            again, _ = ops.dream_rollout(model, spec, part, *initial, **SETTINGS)
            assert (again == returns[first : first + size]).all()
    tried = []
    for group in (1, 2, 4, 8, 16):
        for slots in (8, 16, 32, 64, 128):
            try:
                ops.plan_dream(model, spec, 40, 16, (group, slots))
            except ValueError:
                continue  # not on this device, or not for this model
            again, _ = ops.dream_rollout(
                model, spec, params, *initial, **SETTINGS, plan=(group, slots)
            )
            assert (again == returns).all(), (group, slots)
            tried.append((group, slots))
    assert len(tried) >= 2
    group, slots = ops.plan_dream(model, spec, 40, 16)
    assert group >= 1
    assert slots >= 8


@pytest.mark.parametrize("precision", PRECISIONS)
def test_far_more_rollouts_than_slots(doom_like, precision):
    model = ops.pack_mdn_rnn(doom_like, device="cuda", precision=precision)
    spec, params, *initial = dream_inputs(500, doom_like)
    settings = {**SETTINGS, "rollouts": 200, "max_steps": 300}
    _, lengths = ops.dream_rollout(model, spec, params, *initial, **settings)
    assert lengths.min() >= 1
    assert lengths.max() > 100
    for member in (0, 17, 499):
        one = np.ascontiguousarray(params[member : member + 1])
        _, alone = ops.dream_rollout(model, spec, one, *initial, **settings)
        assert (alone[0] == lengths[member]).all()


def test_one_rollout_of_one_step_and_nothing_at_all(doom_like):
    model = ops.pack_mdn_rnn(doom_like, device="cuda")
    spec, params, *initial = dream_inputs(1, doom_like)
    settings = {**SETTINGS, "rollouts": 1, "max_steps": 1}
    _, lengths = ops.dream_rollout(model, spec, params, *initial, **settings)
    assert lengths.tolist() == [[1]]
    with pytest.raises(ValueError, match=r"params: .*no axis of size 0"):
        ops.dream_rollout(model, spec, params[:0], *initial, **settings)
    inputs = step_inputs(doom_like, 4)
    with pytest.raises(ValueError, match=r"z: .*no axis of size 0"):
        ops.mdn_rnn_step(model, inputs[0][:0], *inputs[1:])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_lengths_are_distributed_as_the_cpus(doom_like, precision):
    spec, params, *initial = dream_inputs(4, doom_like)
    settings = {**SETTINGS, "rollouts": 2000, "max_steps": 200}
    on_cuda = ops.pack_mdn_rnn(doom_like, device="cuda", precision=precision)
    on_cpu = ops.pack_mdn_rnn(doom_like, backend=LEVELS[-1])
    _, ours = ops.dream_rollout(on_cuda, spec, params, *initial, **settings)
    _, theirs = ops.dream_rollout(on_cpu, spec, params, *initial, **{**settings, "seed": 99})
    for member in range(4):
        assert stats.ks_2samp(ours[member], theirs[member]).pvalue > 1e-4
    if precision == "fp32":  # the same noise: most of the rollouts are the very same
        _, same_seed = ops.dream_rollout(on_cpu, spec, params, *initial, **settings)
        short = same_seed < 12
        assert (ours[short] == same_seed[short]).mean() > 0.95


def test_the_trained_world_dreams_as_on_the_cpu():
    from worldmodels_fast import load_pretrained

    world = load_pretrained("take-cover")
    params = world.controller.flat.detach().numpy().copy()[None]
    settings = {"rollouts": 1000, "seed": 1}
    theirs = world.dream(precision="fp32").evaluate(params, **settings).returns[0]
    for precision in PRECISIONS:
        dream = world.dream(device="cuda", precision=precision)
        ours = dream.evaluate(params, rollouts=1000, seed=2).returns[0]
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-4


# --- streams --------------------------------------------------------------------------------------


def test_a_call_takes_its_place_in_the_callers_stream(torch_cuda, doom_like):
    torch = torch_cuda
    packed = ops.pack_mdn_rnn(doom_like, device="cuda")
    inputs = step_inputs(doom_like, 40)
    expected = ops.mdn_rnn_step(packed, *inputs)
    late = [torch.from_numpy(x).cuda() for x in inputs]
    early = [torch.full_like(x, 0.5) for x in late]
    ops.mdn_rnn_step(packed, *early)  # warm: allocations are made
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # a tenth of a second
        for x, y in zip(early, late, strict=True):
            x.copy_(y)
        step = ops.mdn_rnn_step(packed, *early)
        z = ops.mixture_sample(step.logmix, step.mu, step.logstd, 1.0)
        assert not stream.query()  # nobody has waited
        stream.synchronize()
    assert (step.h.cpu().numpy() == expected.h).all()
    same = ops.mixture_sample(expected.logmix, expected.mu, expected.logstd, 1.0, backend="cuda")
    assert (z.cpu().numpy() == same).all()


def test_a_dream_is_enqueued_and_not_waited_for(torch_cuda, doom_like):
    torch = torch_cuda
    spec, params, *initial = dream_inputs(24, doom_like)
    model = ops.pack_mdn_rnn(doom_like, device="cuda")
    _, expected = ops.dream_rollout(model, spec, params, *initial, **SETTINGS)
    tensors = [torch.from_numpy(x).cuda() for x in (params, *initial)]
    ops.dream_rollout(model, spec, *tensors, **SETTINGS)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        _, lengths = ops.dream_rollout(model, spec, *tensors, **SETTINGS)
        assert not stream.query()
        assert (lengths.cpu().numpy() == expected).all()


def test_cupys_stream_is_used(doom_like):
    cupy = Cupy().cupy
    packed = ops.pack_mdn_rnn(doom_like, device="cuda")
    inputs = step_inputs(doom_like, 40)
    expected = ops.mdn_rnn_step(packed, *inputs)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        arrays = [cupy.asarray(x) for x in inputs]
        step = ops.mdn_rnn_step(packed, *arrays)
        h = step.h * 1  # enqueued behind it
        stream.synchronize()
    assert (cupy.asnumpy(h) == expected.h).all()


def test_inputs_live_until_the_device_is_done_with_them(doom_like):
    """JAX may use memory again as soon as nobody holds it, whatever other streams still read."""
    jax = Jax()
    packed = ops.pack_mdn_rnn(doom_like, device="cuda")
    inputs = step_inputs(doom_like, 3000)
    expected = ops.mdn_rnn_step(packed, *inputs)
    for _ in range(20):
        step = ops.mdn_rnn_step(packed, *put_all(jax, inputs))  # nobody else holds these
        trash = [jax.put(np.full_like(x, np.nan)) for x in inputs]
        assert (jax.get(step.h) == expected.h).all()
        del trash


# --- Dream ----------------------------------------------------------------------------------------


def test_dream_on_the_device_with_a_population_of_the_host():
    world = small_world()
    dream = world.dream(device="cuda", max_steps=80)
    members = normals(0, 7, dream.n_params)
    result = dream.evaluate(members, rollouts=6, seed=3)
    assert isinstance(result.returns, np.ndarray)
    assert (result.returns == result.lengths).all()
    on_cpu = world.dream(max_steps=80).evaluate(members, rollouts=6, seed=3)
    assert (result.lengths == on_cpu.lengths).mean() > 0.8  # small models, the same noise
    halves = [dream.evaluate(part, 6, 3).lengths for part in (members[:3], members[3:])]
    assert (np.concatenate(halves) == result.lengths).all()


def test_dream_on_the_device_with_a_population_there(library):
    dream = small_world().dream(device=FIRST, max_steps=80)
    members = normals(0, 7, dream.n_params)
    host = dream.evaluate(members, rollouts=6, seed=3)
    for _ in range(2):  # first latents are copied once
        result = dream.evaluate(library.put(members), rollouts=6, seed=3)
        assert library.is_own(result.lengths)
        assert (library.get(result.lengths) == host.lengths).all()


def test_dream_and_its_one_step_and_fixed_policies():
    world = small_world()
    on_cuda, on_cpu = world.dream(device="cuda", max_steps=300), world.dream(max_steps=300)
    ours, theirs = (dream.survival_of("left", 600, seed=5) for dream in (on_cuda, on_cpu))
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-4


def test_the_backend_may_be_forced(monkeypatch):
    monkeypatch.setenv("WMF_BACKEND", "cuda")
    assert ops.default_backend() == "cuda"
    assert ops.pack_mdn_rnn(random_weights(3, 1, 5, 2, True), precision="auto").precision == "fp16"
    assert small_world().dream().model.device == FIRST
    zeros = np.zeros((2, 3, 1), np.float32)
    forced = ops.mixture_sample(zeros, zeros, zeros, 1.0)
    assert (forced == ops.mixture_sample(zeros, zeros, zeros, 1.0, backend="generic")).all()


def test_weights_on_the_device_are_packed_there(torch_cuda, doom_like):
    import dataclasses

    names = ("weight_ih", "weight_hh", "bias", "head_weight", "head_bias")
    tensors = {name: torch_cuda.from_numpy(getattr(doom_like, name)).cuda() for name in names}
    weights = dataclasses.replace(doom_like, **tensors)
    inputs = step_inputs(doom_like, 5)
    packed = ops.pack_mdn_rnn(weights, device="cuda")
    expected = ops.mdn_rnn_step(ops.pack_mdn_rnn(doom_like, device="cuda"), *inputs)
    assert (ops.mdn_rnn_step(packed, *inputs).h == expected.h).all()
    on_device = [torch_cuda.from_numpy(x).cuda() for x in inputs]
    assert (ops.mdn_rnn_step(weights, *on_device).h.cpu().numpy() == expected.h).all()  # unpacked
    tensors["bias"][3] = float("nan")
    with pytest.raises(ValueError, match="bias: expected finite numbers"):
        ops.pack_mdn_rnn(weights, device="cuda")
    with pytest.raises(ValueError, match=r"weight_ih: .*on the CPU, where the model will be"):
        ops.pack_mdn_rnn(weights, backend="generic")


# --- errors ---------------------------------------------------------------------------------------


def test_arrays_here_and_there(doom_like):
    own = Own()
    on_cuda, on_cpu = (
        ops.pack_mdn_rnn(doom_like, backend=backend) for backend in ("cuda", LEVELS[-1])
    )
    z, *others = step_inputs(doom_like, 5)
    with pytest.raises(ValueError, match=rf"action: .*on {FIRST}, where z is, got one on the CPU"):
        ops.mdn_rnn_step(on_cuda, own.put(z), *others)
    with pytest.raises(ValueError, match=rf"z: .*on the CPU, where the model is, .* {FIRST}"):
        ops.mdn_rnn_step(on_cpu, own.put(z), *others)
    with pytest.raises(ValueError, match="device: expected one of backend 'generic', got 'cuda'"):
        ops.pack_mdn_rnn(doom_like, backend="generic", device="cuda")
    with pytest.raises(ValueError, match=r"device: expected one of the \d+ CUDA devices"):
        ops.pack_mdn_rnn(doom_like, device="cuda:99")
    with pytest.raises(ValueError, match=r"precision: expected 'fp32' or 'fp16' .* got 'int8'"):
        ops.pack_mdn_rnn(doom_like, device="cuda", precision="int8")


def test_dtypes_shapes_and_layouts_on_the_device(torch_cuda, doom_like):
    packed = ops.pack_mdn_rnn(doom_like, device="cuda")
    z, *others = (torch_cuda.from_numpy(x).cuda() for x in step_inputs(doom_like, 5))
    for spoiled, error, message in [
        (z.double(), TypeError, r"z: .*got dtype torch.float64; use z.to"),
        (z.half(), TypeError, r"z: .*got dtype torch.float16"),
        (z[:, :3].contiguous(), ValueError, r"z: .*\(N, Z\) = \(any, 17\), got shape \(5, 3\)"),
        (z.T.contiguous().T, ValueError, r"z: .*C order"),
    ]:
        with pytest.raises(error, match=message):
            ops.mdn_rnn_step(packed, spoiled, *others)


def test_out_of_memory_is_a_memory_error_and_passes(torch_cuda):
    torch = torch_cuda
    free, _ = torch.cuda.mem_get_info()
    hog = torch.empty(max(0, free - 300_000_000), dtype=torch.uint8, device="cuda")
    with pytest.raises(MemoryError, match=r"memory"):
        ops.to_device(np.zeros(150_000_000, np.float32))
    del hog
    torch.cuda.empty_cache()
    assert ops.to_device(np.ones(1000, np.float32)).numpy().sum() == 1000


def test_ctrl_c_gives_up_a_dream():
    weights = random_weights(32, 3, 256, 5, False)
    model = ops.pack_mdn_rnn(weights, device="cuda")
    inputs = dream_inputs(64, weights)
    timer = threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT))
    settings = {**SETTINGS, "max_steps": 2**30}
    began = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        ops.dream_rollout(model, *inputs, **settings)
    assert time.monotonic() - began < 5
    returns, _ = ops.dream_rollout(model, *inputs, **SETTINGS)  # the device is free again
    assert (returns == 60).all()


def test_a_lost_device_is_an_error_and_the_interpreter_lives(tmp_path):
    script = tmp_path / "lost.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            sys.path[:0] = [{str(os.path.dirname(__file__))!r}]
            import numpy as np
            from test_dlpack import Counted
            from worldmodels_fast import ops

            class Wild(Counted):
                # Says that it is on the device, and points nowhere.
                def __dlpack_device__(self):
                    return (2, 0)

            mixture = [Wild(np.zeros((64, 64, 5), np.float32)) for _ in range(3)]
            out = ops.to_device(np.zeros((64, 64), np.float32))
            try:
                ops.mixture_sample(*mixture, 1.0, out=out)
                out.numpy()
                print("no fault: this device reads the host's memory")
            except RuntimeError as error:
                print("RuntimeError:", error)
            try:
                ops.to_device(np.zeros(3, np.float32))
            except RuntimeError as error:
                print("still", type(error).__name__)
            print("alive")
            """
        ),
        encoding="utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment,
    )
    assert done.stdout.strip().endswith("alive"), done.stdout + done.stderr
    assert "RuntimeError:" in done.stdout or "no fault" in done.stdout


def test_no_kernel_spills():
    kernels = ops.cuda_kernels()
    assert kernels
    assert [k for k in kernels if k["local_bytes"] > 0] == []


def test_limits_are_measured():
    assert ops.peak_rate("fp32", backend="cuda") > 1e12
    assert ops.peak_rate("fp16", backend="cuda") > ops.peak_rate("fp32", backend="cuda")
    assert ops.read_rate(1 << 20, backend="cuda") > 1e10
    assert ops.shared_rate() > 1e11


def test_a_packed_dream_of_the_second_device():
    if len(USABLE) < 2:
        pytest.skip("there is one CUDA device only")
    world = small_world()
    dreams = [
        Dream(world.mdn_rnn, world.controller, world.initial_latents, device=f"cuda:{index}")
        for index in USABLE[:2]
    ]
    members = normals(0, 7, dreams[0].n_params)
    first, second = (dream.evaluate(members, 6, 3).lengths for dream in dreams)
    assert (first == second).all()
