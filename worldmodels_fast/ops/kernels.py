"""The kernels: V's encoder, a step of M and the draws after it, the controller, whole dreams."""

from __future__ import annotations

from typing import Any, cast

from worldmodels_fast import _core
from worldmodels_fast._core import DeviceArray, PackedMDNRNN, PackedVAEEncoder
from worldmodels_fast.ops.arguments import (
    checked_done_rule,
    checked_temperature,
    noise_ids,
    output_kind,
)
from worldmodels_fast.ops.backends import cuda_device_of, default_threads
from worldmodels_fast.ops.packing import pack_mdn_rnn, pack_vae_encoder
from worldmodels_fast.ops.types import (
    ArrayT,
    ControllerSpec,
    Integers,
    MDNRNNStep,
    MDNRNNWeights,
    VAEEncoderWeights,
)
from worldmodels_fast.utils.arguments import checked_integer


def encode_frames(
    model: PackedVAEEncoder | VAEEncoderWeights, frames: Any, *, threads: int = 1
) -> tuple[Any, Any]:
    """Run V's encoder on N frames, on the CPU.

    Every frame's result is bitwise the same whatever N, its place, and `threads`.

    Args:
        model: packed weights, or plain weights, which are then packed for this call only.
        frames: (N, 64, 64, 3) uint8, RGB (NumPy, torch, ...).
        threads: over which the frames are spread.

    Returns:
        mu, logvar (N, Z) float32 of the latent's normal distribution, of the kind of `frames`.

    Raises:
        TypeError: frames that are not uint8.
        ValueError: a wrong shape, an array that is not C-contiguous, threads < 1.
    """
    if isinstance(model, VAEEncoderWeights):
        model = pack_vae_encoder(model)
    results = _core.encode_frames(model, frames, checked_integer("threads", threads, low=1))
    like: Any = output_kind(frames)
    mu, logvar = (like(x) for x in results)
    return mu, logvar


def mdn_rnn_step(
    model: PackedMDNRNN | MDNRNNWeights,
    z: ArrayT,
    action: ArrayT,
    h: ArrayT,
    c: ArrayT,
    restart: ArrayT | None = None,
    *,
    threads: int = 1,
    out: MDNRNNStep[ArrayT] | None = None,
) -> MDNRNNStep[ArrayT]:
    """Run one LSTM step and the mixture density head, for N independent rows.

    Every row's result is bitwise the same whatever N, its place, and `threads`.

    Args:
        model: packed weights, or plain weights, which are then packed for this call only.
        z: (N, Z) latent.
        action: (N, A).
        h: (N, H) hidden state before the step.
        c: (N, H) cell state before the step.
        restart: (N,), 1 on the first step of a rollout, else 0; None means all 0. Only if the model
            predicts the end of a rollout.
        threads: of the CPU, over which the rows are spread.
        out: where to write the results, an earlier result for the same N for instance; out.h and
            out.c may be h and c themselves. None makes new arrays.

    Returns:
        MDNRNNStep: logmix, mu, logstd (N, Z, K), done_logit (N,) or None, h, c (N, H), reward (N,)
        or None; `out` if that was given.

    Raises:
        TypeError: an array is not float32.
        ValueError: a wrong shape, an array that is not C-contiguous, threads < 1, an array of `out`
            that is read-only or overlaps another one, or that is for what the model does not
            predict.
    """
    results = _core.mdn_rnn_step(
        model if type(model) is PackedMDNRNN else _packed(model, z),
        z,
        action,
        h,
        c,
        restart,
        checked_integer("threads", threads, low=1),
        None if out is None else _step_arrays(out),
    )
    if out is not None:
        return out
    like: Any = output_kind(z, action, h, c, restart)
    return MDNRNNStep(*(None if x is None else like(x) for x in results))


def mixture_sample(
    logmix: ArrayT,
    mu: ArrayT,
    logstd: ArrayT,
    temperature: float,
    *,
    seed: int | Integers = 0,
    rollout: int | Integers = 0,
    step: int | Integers = 0,
    backend: str | None = None,
    out: ArrayT | None = None,
) -> ArrayT:
    """Draw the next latent from one mixture of normals per dimension, at a temperature.

    pi = softmax(logmix / tau);  k ~ pi;  z' = mu_k + exp(min(logstd_k, 10)) * sqrt(tau) * normal

    The noise depends on (seed, rollout, step, dimension) only, so the result is bitwise the same on
    every backend and for every way of cutting the rows into calls. A NaN in a dimension's logmix,
    or in the mu or logstd of the component drawn, makes its z' NaN; so do logmix without a softmax,
    with +infinity among them or -infinity alone.

    Args:
        logmix: (N, Z, K), unnormalised.
        mu: (N, Z, K).
        logstd: (N, Z, K).
        temperature: tau > 0.
        seed: 0 <= seed < 2**64; one for all rows, or integers (N,).
        rollout: the rollout of row 0; row n has rollout + n; or integers (N,). All below 2**32.
        step: 0 <= step < 2**32; one for all rows, or integers (N,).
        backend: one of `available_backends()`; None computes where the arrays are, on the CPU with
            `default_backend()`.
        out: (N, Z), where to write the result; None makes a new array.

    Returns:
        z (N, Z); `out` if that was given.

    Raises:
        TypeError: an array is not float32.
        ValueError: a wrong shape, an array that is not C-contiguous, a number out of its range, an
            `out` that is read-only or overlaps an input, arrays of `seed`, `rollout` or `step`
            where logmix is on a device.
    """
    z = _core.mixture_sample(
        logmix,
        mu,
        logstd,
        checked_temperature(temperature),
        noise_ids(_rows(logmix), seed=seed, rollout=rollout, step=step),
        backend or "",
        out,
    )
    if out is not None:
        return out
    return cast("ArrayT", output_kind(logmix, mu, logstd)(z))


def done_sample(
    done_logit: Any,
    done_threshold: float = 0.0,
    done_temperature: float = 0.0,
    *,
    seed: int | Integers = 0,
    rollout: int | Integers = 0,
    step: int | Integers = 0,
    backend: str | None = None,
) -> Any:
    """Say which of N rollouts end in a step, by the rule and the noise of `dream_rollout`.

    A rollout ends when done_logit > done_threshold, or, with done_temperature > 0, with probability
    sigmoid((done_logit - done_threshold) / done_temperature). A logit that is NaN ends nothing.

    The draw depends on (seed, rollout, step) only and is bitwise the same on every backend.

    Args:
        done_logit: (N,) of the host, as `mdn_rnn_step` returns it.
        done_threshold: see above.
        done_temperature: see above.
        seed: 0 <= seed < 2**64; one for all rows, or integers (N,).
        rollout: the rollout of row 0; row n has rollout + n; or integers (N,). All below 2**32.
        step: 0 <= step < 2**32; one for all rows, or integers (N,).
        backend: a level of the CPU, see `available_backends()`; None for the fastest one, or for
            WMF_BACKEND where that is one.

    Returns:
        done (N,) bool, of the kind of done_logit; int32 for a `DeviceArray`.

    Raises:
        TypeError: done_logit is not float32.
        ValueError: a wrong shape, an array that is on a device or not C-contiguous, a number out of
            its range.
    """
    threshold, above = checked_done_rule(done_threshold, done_temperature)
    ids = noise_ids(_rows(done_logit), seed=seed, rollout=rollout, step=step)
    done = output_kind(done_logit)(
        _core.done_sample(done_logit, threshold, above, ids, backend or "")
    )
    return done if isinstance(done, DeviceArray) else done != 0


def initial_latents(
    initial_mu: Any,
    initial_logvar: Any,
    n: int,
    *,
    seed: int | Integers = 0,
    rollout: int | Integers = 0,
    backend: str | None = None,
) -> Any:
    """Draw the first latents of N rollouts, those with which `dream_rollout` begins.

    z_0 = mu[i] + exp(logvar[i] / 2) * normal, with i and the normals from the noise, which depends
    on (seed, rollout) only. Bitwise the same on every backend.

    Args:
        initial_mu: (I, Z) means of the stored first latents, of the host.
        initial_logvar: (I, Z) log variances of the stored first latents.
        n: N.
        seed: 0 <= seed < 2**64; one for all rows, or integers (N,).
        rollout: the rollout of row 0; row n has rollout + n; or integers (N,). All below 2**32.
        backend: a level of the CPU, see `available_backends()`; None for the fastest one, or for
            WMF_BACKEND where that is one.

    Returns:
        z (N, Z) float32, of the kind of initial_mu.

    Raises:
        TypeError: an array is not float32.
        ValueError: a wrong shape, an array that is on a device or not C-contiguous, a value that is
            not finite, a number out of its range.
    """
    n = checked_integer("n", n, low=1, high=2**32)
    z = _core.initial_latents(
        initial_mu,
        initial_logvar,
        n,
        noise_ids(n, seed=seed, rollout=rollout, step=0),
        backend or "",
    )
    return output_kind(initial_mu, initial_logvar)(z)


def controller_forward(
    spec: ControllerSpec,
    params: ArrayT,
    z: ArrayT | None,
    h: ArrayT | None = None,
    c: ArrayT | None = None,
    *,
    backend: str | None = None,
    out: ArrayT | None = None,
) -> ArrayT:
    """Compute the actions of P controllers, each on its own N / P rows.

    Args:
        spec: how a flat parameter vector is read.
        params: (P, n_params); row n uses params[n // (N // P)].
        z: (N, Z), if it is among spec.features; None otherwise will do.
        h: (N, H), likewise.
        c: (N, H), likewise.
        backend: one of `available_backends()`; None computes where the arrays are, on the CPU with
            `default_backend()`.
        out: (N, A), where to write the result; None makes a new array.

    Returns:
        action (N, A); `out` if that was given.

    Raises:
        TypeError: an array is not float32.
        ValueError: a feature is missing, a wrong shape, an array that is not C-contiguous, N not a
            multiple of P, an `out` that is read-only or overlaps an input.
    """
    features = spec.features
    action = _core.controller_forward(
        spec._native,
        params,
        _feature("z", z) if "z" in features else None,
        _feature("h", h) if "h" in features else None,
        _feature("c", c) if "c" in features else None,
        backend or "",
        out,
    )
    if out is not None:
        return out
    return cast("ArrayT", output_kind(params, z, h, c)(action))


def dream_rollout(
    model: PackedMDNRNN | MDNRNNWeights,
    spec: ControllerSpec,
    params: ArrayT,
    initial_mu: ArrayT,
    initial_logvar: ArrayT,
    *,
    rollouts: int,
    seed: int,
    temperature: float,
    max_steps: int,
    done_threshold: float = 0.0,
    done_temperature: float = 0.0,
    common_noise: bool = True,
    threads: int | None = None,
    plan: tuple[int, int] = (0, 0),
) -> tuple[Any, Any]:
    """Run every member of a population in the dream, R rollouts each, in one native call.

    Step t of a rollout: a_t = C(z_t, h_t, c_t), then (h, c) = LSTM([z_t, a_t, restart = (t == 0)]),
    the head, and z_{t+1} by `mixture_sample`; the reward is the head's, or 1 if the model predicts
    none. The rollout ends when done_logit > done_threshold (or by chance, see done_temperature) or
    after max_steps; its return is the sum of the rewards in float32, step by step, the last
    included. h_0 = c_0 = 0; z_0 = mu[i] + exp(logvar[i] / 2) * normal with i and the normals from
    the noise.

    The result is bitwise the same for every number of threads and, with common_noise, every way of
    cutting the population into calls. Ctrl-C is answered within a second.

    Args:
        model: packed weights, or plain weights, which are then packed for this call only.
        spec: how a flat parameter vector is read.
        params: (P, n_params), finite.
        initial_mu: (I, Z) means of the stored first latents.
        initial_logvar: (I, Z) log variances of the stored first latents.
        rollouts: R, rollouts per member.
        seed: 0 <= seed < 2**64.
        temperature: tau > 0.
        max_steps: a rollout ends after so many steps at the latest.
        done_threshold: a rollout ends when the done logit is above it; has no effect if the model
            does not predict the end of a rollout.
        done_temperature: 0, or else a rollout ends with probability sigmoid((done_logit -
            done_threshold) / done_temperature). At 1, with the threshold log(w) that undoes a
            weight w of the ends in M's training, ends are as frequent as M believes them to be.
        common_noise: rollout r of every member sees the same noise and first latent (common random
            numbers); otherwise every rollout of the call has its own.
        threads: None uses every core this process may run on.
        plan: only on CUDA, for benchmarks and tests: (thread blocks that step the same rollouts
            together, rollouts that they step at a time), 0 to let it choose. Results do not depend
            on it, bit for bit.

    Returns:
        returns (P, R) float32, in the environment's units, which are the lengths if the model
        predicts no reward; lengths (P, R) int32, steps.

    Raises:
        TypeError: an array is not float32.
        ValueError: a wrong shape, an array that is not C-contiguous, a value that is not finite, a
            number out of its range.
        KeyboardInterrupt: Ctrl-C; the dream is given up.
        MemoryError: the device's memory does not suffice.
        RuntimeError: the device was lost; only a new process can use it again.
    """
    threshold, above = checked_done_rule(done_threshold, done_temperature)
    group, slots = plan
    returns, lengths = _core.dream_rollout(
        _packed(model, params),
        spec._native,
        params,
        initial_mu,
        initial_logvar,
        rollouts=checked_integer("rollouts", rollouts, low=1),
        seed=checked_integer("seed", seed, low=0, high=2**64),
        temperature=checked_temperature(temperature),
        max_steps=checked_integer("max_steps", max_steps, low=1),
        done_threshold=threshold,
        done_temperature=above,
        common_noise=bool(common_noise),
        threads=default_threads()
        if threads is None
        else checked_integer("threads", threads, low=1),
        plan=(checked_integer("plan", group, low=0), checked_integer("plan", slots, low=0)),
    )
    like: Any = output_kind(params, initial_mu, initial_logvar)
    return like(returns), like(lengths)


def plan_dream(
    model: PackedMDNRNN,
    spec: ControllerSpec,
    members: int,
    rollouts: int,
    plan: tuple[int, int] = (0, 0),
) -> tuple[int, int]:
    """Return the (group, slots) that `dream_rollout` would choose on the model's CUDA device.

    Args:
        model: packed for "cuda".
        spec: how a flat parameter vector is read.
        members: P.
        rollouts: R, rollouts per member.
        plan: what is chosen already, 0 for what is not.

    Raises:
        ValueError: a model that is packed for the CPU, or a plan that the device cannot follow.
    """
    members, rollouts = (
        checked_integer(name, n, low=1)
        for name, n in (("members", members), ("rollouts", rollouts))
    )
    group, slots = plan
    return _core.plan_dream(model, spec._native, members, rollouts, (group, slots))


def _rows(x: Any) -> int:
    """Return N of an array (N, ...); 0 for what is no array, which the extension refuses."""
    shape: Any = getattr(x, "shape", ())
    return int(shape[0]) if len(shape) else 0


def _feature(name: str, x: Any) -> Any:
    if x is None:
        raise ValueError(f"{name}: expected an array because spec.features has {name!r}, got None")
    return x


def _step_arrays(out: MDNRNNStep[Any]) -> MDNRNNStep[Any]:
    if not isinstance(out, MDNRNNStep):
        raise TypeError(f"out: expected an MDNRNNStep, got {type(out).__name__}")
    return out


def _packed(model: PackedMDNRNN | MDNRNNWeights, like: Any) -> PackedMDNRNN:
    """Pack plain weights for the device on which `like` is."""
    if isinstance(model, PackedMDNRNN):
        return model
    if not isinstance(model, MDNRNNWeights):
        raise TypeError(
            f"model: expected MDNRNNWeights (of an MDNRNN: its .weights()) or what pack_mdn_rnn "
            f"makes of them, got {type(model).__name__}"
        )
    return pack_mdn_rnn(model, device=cuda_device_of(like))
