"""The kernels in plain NumPy float64: the same functions, written for reading, not for speed.

Every function has the name and the arguments of its fast counterpart in `worldmodels_fast.ops`, and
the tests hold the two together. This file imports nothing else of the package: `weights` and `spec`
may be any objects with the attributes of `ops.MDNRNNWeights` and `ops.ControllerSpec`.

Axes: N rows (rollouts), P members of a population, R rollouts per member, Z latent, A action, H
hidden, K mixture components, I stored first latents.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Uint32 = npt.NDArray[np.uint32]

# The purpose of a random number: the last word of the Philox counter.
INITIAL_INDEX, INITIAL_LATENT, MIXTURE, DONE = 0, 1, 2, 3

# exp(logstd) may not overflow: log standard deviations are cut off here.
MAX_LOGSTD = 10.0


class MDNRNNStep(NamedTuple):
    """The result of one step of M, float64 arrays; see `mdn_rnn_step`."""

    logmix: Float64  # (N, Z, K), unnormalised
    mu: Float64  # (N, Z, K)
    logstd: Float64  # (N, Z, K)
    done_logit: Float64 | None  # (N,)
    h: Float64  # (N, H)
    c: Float64  # (N, H)
    reward: Float64 | None = None  # (N,)


# ------------------------------------------------------------------------------------------------
# Noise
# ------------------------------------------------------------------------------------------------


def philox(counter: npt.ArrayLike, seed: int | npt.ArrayLike) -> Uint32:
    """Philox4x32-10: four random 32-bit words from four counter words and a 64-bit seed.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

    Args:
        counter: (..., 4) unsigned 32-bit words (rollout, step, dimension, purpose).
        seed: the key, 0 <= seed < 2**64, or keys (...).

    Returns:
        (..., 4) uint32.
    """
    # uint64 holds the product of two 32-bit words without loss.
    c0, c1, c2, c3 = np.moveaxis(np.asarray(counter, dtype=np.uint64), -1, 0)
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    keys = np.asarray(seed, dtype=np.uint64)
    key0, key1 = keys & mask, keys >> half
    for _ in range(10):
        product0 = c0 * np.uint64(0xD2511F53)
        product1 = c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            (product1 >> half) ^ c1 ^ key0,
            product1 & mask,
            (product0 >> half) ^ c3 ^ key1,
            product0 & mask,
        )
        key0 = (key0 + np.uint64(0x9E3779B9)) & mask
        key1 = (key1 + np.uint64(0xBB67AE85)) & mask
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def noise(
    seed: int | npt.ArrayLike,
    rollout: npt.ArrayLike,
    step: npt.ArrayLike,
    n_dims: int,
    purpose: int,
) -> tuple[Float64, Float64]:
    """One uniform in [0, 1) and one standard normal for every (row, dimension).

    Args:
        seed: 0 <= seed < 2**64, scalar or (N,).
        rollout: (N,) rollout ids.
        step: scalar or (N,), the step of each row.
        n_dims: how many dimensions, D.
        purpose: INITIAL_INDEX, INITIAL_LATENT, MIXTURE or DONE.

    Returns:
        uniform (N, D), normal (N, D).
    """
    ids = np.asarray(rollout, dtype=np.uint64)
    counter = np.zeros((ids.shape[0], n_dims, 4), dtype=np.uint64)
    counter[:, :, 0] = ids[:, None]
    counter[:, :, 1] = np.broadcast_to(np.asarray(step, dtype=np.uint64), ids.shape)[:, None]
    counter[:, :, 2] = np.arange(n_dims, dtype=np.uint64)
    counter[:, :, 3] = purpose
    keys = np.asarray(seed, dtype=np.uint64)
    words = philox(counter, keys if keys.ndim == 0 else keys[:, None])
    # The upper 24 bits are exactly what a float32 can hold. u1 is in (0, 1], so that its logarithm
    # is finite.
    uniform = np.multiply(words[..., 0] >> 8, 2.0**-24, dtype=np.float64)
    u1 = ((words[..., 1] >> 8) + 1.0) * 2.0**-24
    u2 = (words[..., 2] >> 8) * 2.0**-24
    normal: Float64 = np.sqrt(-2.0 * np.log(u1)) * np.cos(2.0 * np.pi * u2)  # Box-Muller
    return uniform, normal


# ------------------------------------------------------------------------------------------------
# V
# ------------------------------------------------------------------------------------------------


def encode_frames(
    model: Any, frames: npt.ArrayLike, *, threads: int = 1, precision: str = "fp32"
) -> tuple[Float64, Float64]:
    """Four convolutions with ReLU, then mu and logvar (paper, appendix A.1).

    Args:
        model: the weights (`ops.VAEEncoderWeights`).
        frames: (N, 64, 64, 3), 0 to 255.
        threads: ignored; here so that the signature is that of the fast function.
        precision: "fp32" rounds nothing; "bf16" rounds the weights and the inputs of the
            convolutions, and nothing else.

    Returns:
        mu, logvar (N, Z).
    """
    del threads
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision: expected 'fp32' or 'bf16', got {precision!r}")
    rounded = _f64 if precision == "fp32" else _bf16
    x = np.moveaxis(_f64(frames), -1, 1)  # (N, channels, rows, columns)
    for i, (weight, bias) in enumerate(zip(model.conv_weights, model.conv_biases, strict=True)):
        w = _f64(weight) / 255 if i == 0 else weight  # the frame is its bytes
        x = np.maximum(_convolution(rounded(x), rounded(w), _f64(bias)), 0.0)
    features = x.reshape(len(x), -1)
    out = features @ _f64(model.head_weight).reshape(-1, features.shape[1]).T
    mu, logvar = np.split(out + _f64(model.head_bias), 2, axis=1)
    return mu, logvar


def _convolution(x: Float64, weight: Float64, bias: Float64) -> Float64:
    """(N, C, R, R) by windows (O, C, 4, 4), two pixels apart -> (N, O, R', R')."""
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))
    out: Float64 = np.einsum("ncyxij,ocij->noyx", windows[:, :, ::2, ::2], weight, optimize=True)
    return out + bias[:, None, None]


# ------------------------------------------------------------------------------------------------
# M
# ------------------------------------------------------------------------------------------------


def sigmoid(x: Float64) -> Float64:
    """1 / (1 + exp(-x)), elementwise; written with tanh, which cannot overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def mdn_rnn_step(
    model: Any,
    z: npt.ArrayLike,
    action: npt.ArrayLike,
    h: npt.ArrayLike,
    c: npt.ArrayLike,
    restart: npt.ArrayLike | None = None,
    *,
    threads: int = 1,
    precision: str = "fp32",
) -> MDNRNNStep:
    """One LSTM step and the mixture density head, for N independent rows.

    Args:
        model: the weights (`ops.MDNRNNWeights`).
        z: (N, Z) latent.
        action: (N, A).
        h: (N, H) hidden state before the step.
        c: (N, H) cell state before the step.
        restart: (N,), 1 on the first step of a rollout, else 0; None means all 0. Only if the model
            predicts the end of a rollout.
        threads: ignored; here so that the signature is that of the fast function.
        precision: "fp32" rounds nothing; "fp16", "bf16" and "int8" round the operands of the
            matrix products as `ops.pack_mdn_rnn` says, and nothing else.

    Returns:
        MDNRNNStep.
    """
    del threads
    w = model
    inputs = [_f64(z), _f64(action)]
    if w.predicts_done:
        n = inputs[0].shape[0]
        inputs.append(np.zeros((n, 1)) if restart is None else _f64(restart)[:, None])
    x = np.concatenate(inputs, axis=1)  # (N, X)

    gates = _product(w.weight_hh, h, w.weight_ih, x, precision) + _f64(w.bias)  # (N, 4H)
    i, f, g, o = np.split(gates, 4, axis=1)
    c_next = sigmoid(f) * _f64(c) + sigmoid(i) * np.tanh(g)
    h_next = sigmoid(o) * np.tanh(c_next)

    none, nothing = np.zeros((len(w.head_weight), 0)), np.zeros((len(x), 0))
    out = _product(w.head_weight, h_next, none, nothing, precision) + _f64(w.head_bias)  # (N, O)
    # The done logit and the reward are never rounded.
    first = int(w.predicts_done) + int(w.predicts_reward)
    scalars = h_next @ _f64(w.head_weight)[:first].T + _f64(w.head_bias)[:first]
    done_logit = scalars[:, 0] if w.predicts_done else None
    reward = scalars[:, first - 1] if w.predicts_reward else None
    mixture = out[:, first:].reshape(-1, w.latent_dim, 3, w.n_mixtures)
    logmix, mu, logstd = mixture[:, :, 0], mixture[:, :, 1], mixture[:, :, 2]
    return MDNRNNStep(logmix, mu, logstd, done_logit, h_next, c_next, reward)


def _product(
    weight_h: npt.ArrayLike, h: npt.ArrayLike, weight_x: npt.ArrayLike, x: Float64, precision: str
) -> Float64:
    """Multiply h (N, H) and x (N, X) by (O, H) and (O, X), with operands of some precision."""
    if precision == "fp16":
        operands = [_fp16(v) for v in (weight_h, h, weight_x, x)]
    elif precision == "bf16":
        operands = [_bf16(v) for v in (weight_h, h, weight_x, x)]
    elif precision == "int8":
        operands = _int8(weight_h, h, weight_x, x)
    elif precision == "fp32":
        operands = [_f64(v) for v in (weight_h, h, weight_x, x)]
    else:
        raise ValueError(f"precision: expected 'fp32', 'fp16', 'bf16' or 'int8', got {precision!r}")
    w_h, h_rounded, w_x, x_rounded = operands
    return h_rounded @ w_h.T + x_rounded @ w_x.T


def _fp16(x: npt.ArrayLike) -> Float64:
    """To half precision: to nearest, ties to even, cut off at its largest number."""
    return _f64(np.clip(np.asarray(x, dtype=np.float32), -65504, 65504).astype(np.float16))


def _bf16(x: npt.ArrayLike) -> Float64:
    """To bfloat16, the upper half of a float32: to nearest, ties to even."""
    bits = np.asarray(x, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return _f64(rounded.astype(np.uint32).view(np.float32))


def _int8(
    weight_h: npt.ArrayLike, h: npt.ArrayLike, weight_x: npt.ArrayLike, x: npt.ArrayLike
) -> list[Float64]:
    """Round h and its weights to 8 bits; x to 1 / 64 up to +-64 and its weights to 16 bits.

    A sum of products of integers times one scale per output is what the kernel computes; the scale
    is the smallest with which h's weights fit into +-127, x's into +-32767, and any sum into int32.
    """
    w_h, w_x, h32, x32 = (np.asarray(v, dtype=np.float32) for v in (weight_h, weight_x, h, x))
    needed_h = np.abs(w_h).max(axis=1, initial=0) / np.float32(127 * 127)
    needed_x = np.abs(w_x).max(axis=1, initial=0) / np.float32(32767 * 64)
    room = 2**31 - 1 - 255 * 127 * 2**15 - 64 * 64 / 2 * 2**16  # H <= 2**15, X <= 2**16
    needed_sum = (_f64(np.abs(w_x)).sum(axis=1) * 64 / room).astype(np.float32)
    scales = np.maximum.reduce([needed_h, needed_x, needed_sum])
    scale = np.maximum(scales, np.float32(1e-30))[:, None]
    unit_h, unit_x = scale * np.float32(127), scale * np.float32(64)
    return [
        _f64(np.floor(w_h / unit_h + np.float32(0.5))) * unit_h,
        _f64(np.rint(h32 * np.float32(127))) / 127,
        _f64(np.floor(w_x / unit_x + np.float32(0.5))) * unit_x,
        _f64(np.rint(np.clip(x32, -64, 64) * np.float32(64))) / 64,
    ]


def mixture_sample(
    logmix: npt.ArrayLike,
    mu: npt.ArrayLike,
    logstd: npt.ArrayLike,
    temperature: float,
    *,
    seed: int | npt.ArrayLike = 0,
    rollout: int | npt.ArrayLike = 0,
    step: int | npt.ArrayLike = 0,
    backend: str | None = None,
) -> Float64:
    """Draw the next latent from one mixture of normals per dimension, at a temperature.

    pi = softmax(logmix / tau);  k ~ pi;  z' = mu_k + exp(min(logstd_k, 10)) * sqrt(tau) * normal

    Args:
        logmix: (N, Z, K), unnormalised.
        mu: (N, Z, K).
        logstd: (N, Z, K).
        temperature: tau > 0.
        seed: 0 <= seed < 2**64, one for all rows or (N,).
        rollout: id of row 0 (row n has id rollout + n), or (N,) ids.
        step: one step for all rows, or (N,).
        backend: ignored; here so that the signature is that of the fast function.

    Returns:
        z (N, Z); NaN where the logmix have no softmax, since one is NaN or +infinity or all are
        -infinity, and where the mu or logstd drawn is NaN.
    """
    del backend
    logmix, mu, logstd = _f64(logmix), _f64(mu), _f64(logstd)
    n, z_dim, n_mixtures = logmix.shape
    uniform, normal = noise(seed, _ids(rollout, n), step, z_dim, MIXTURE)

    with np.errstate(invalid="ignore"):  # infinity - infinity
        weight = np.exp((logmix - logmix.max(axis=-1, keepdims=True)) / temperature)
    cumulative = np.cumsum(weight, axis=-1)
    # Inverse of the cumulative distribution: the first component whose cumulative weight exceeds
    # the target.
    target = uniform * cumulative[..., -1]
    k = (cumulative[..., : n_mixtures - 1] <= target[..., None]).sum(axis=-1)[..., None]
    mu_k = np.take_along_axis(mu, k, axis=-1)[..., 0]
    logstd_k = np.take_along_axis(logstd, k, axis=-1)[..., 0]
    std_k = np.exp(np.minimum(logstd_k, MAX_LOGSTD))
    z: Float64 = mu_k + std_k * np.sqrt(temperature) * normal
    z[np.isnan(target)] = np.nan
    return z


def done_sample(
    done_logit: npt.ArrayLike,
    done_threshold: float = 0.0,
    done_temperature: float = 0.0,
    *,
    seed: int | npt.ArrayLike = 0,
    rollout: int | npt.ArrayLike = 0,
    step: int | npt.ArrayLike = 0,
    backend: str | None = None,
) -> npt.NDArray[np.bool_]:
    """Say which of N rollouts end in a step.

    Args:
        done_logit: (N,).
        done_threshold: a rollout ends when the logit is above it.
        done_temperature: 0, or a rollout ends with probability sigmoid((logit - done_threshold) /
            done_temperature).
        seed: 0 <= seed < 2**64, one for all rows or (N,).
        rollout: id of row 0 (row n has id rollout + n), or (N,) ids.
        step: one step for all rows, or (N,).
        backend: ignored; here so that the signature is that of the fast function.

    Returns:
        done (N,) bool.
    """
    del backend
    above = _f64(done_logit) - done_threshold
    ends: npt.NDArray[np.bool_] = above > 0
    if done_temperature > 0:
        uniform, _ = noise(seed, _ids(rollout, len(above)), step, 1, DONE)
        ends = uniform[:, 0] < sigmoid(above / done_temperature)
    return ends


def initial_latents(
    initial_mu: npt.ArrayLike,
    initial_logvar: npt.ArrayLike,
    n: int,
    *,
    seed: int | npt.ArrayLike = 0,
    rollout: int | npt.ArrayLike = 0,
    backend: str | None = None,
) -> Float64:
    """Draw the first latents of N rollouts, from the stored ones to which the noise points.

    Args:
        initial_mu: (I, Z) means of the stored first latents.
        initial_logvar: (I, Z) log variances of the stored first latents.
        n: N.
        seed: 0 <= seed < 2**64, one for all rows or (N,).
        rollout: id of row 0 (row n has id rollout + n), or (N,) ids.
        backend: ignored; here so that the signature is that of the fast function.

    Returns:
        z (N, Z).
    """
    del backend
    mu, logvar, ids = _f64(initial_mu), _f64(initial_logvar), _ids(rollout, n)
    # index = floor(w0 / 2**32 * I)
    counter = np.zeros((n, 4), dtype=np.uint64)
    counter[:, 0], counter[:, 3] = ids, INITIAL_INDEX
    w0 = philox(counter, seed)[:, 0].astype(np.uint64)
    index = (w0 * np.uint64(mu.shape[0])) >> np.uint64(32)
    _, normal = noise(seed, ids, 0, mu.shape[1], INITIAL_LATENT)
    z: Float64 = mu[index] + np.exp(logvar[index] / 2.0) * normal
    return z


def _ids(rollout: int | npt.ArrayLike, n: int) -> npt.NDArray[np.uint64]:
    """Return the rollout ids (N,): given, or counted from that of row 0."""
    ids: npt.NDArray[np.uint64] = np.asarray(rollout, dtype=np.uint64)
    if ids.ndim == 0:
        ids = np.arange(n, dtype=np.uint64) + ids
    return ids


# ------------------------------------------------------------------------------------------------
# C
# ------------------------------------------------------------------------------------------------


def controller_forward(
    spec: Any,
    params: npt.ArrayLike,
    z: npt.ArrayLike,
    h: npt.ArrayLike | None = None,
    c: npt.ArrayLike | None = None,
    *,
    backend: str | None = None,
) -> Float64:
    """Actions of P controllers, each on its own N / P rows.

    Args:
        spec: how a flat parameter vector is read (`ops.ControllerSpec`).
        params: (P, n_params); row n uses params[n // (N // P)].
        z: (N, Z).
        h: (N, H), if it is among spec.features.
        c: (N, H), if it is among spec.features.
        backend: ignored; here so that the signature is that of the fast function.

    Returns:
        action (N, A) = clip(scale * tanh(y) + shift, low, high).
    """
    del backend
    params = _f64(params)
    given = {"z": z, "h": h, "c": c}
    x = np.concatenate([_f64(given[name]) for name in spec.features], axis=1)  # (N, inputs)
    x = x.reshape(params.shape[0], -1, x.shape[1])  # (P, N / P, inputs)

    n_actions, n_units = spec.action_dim, spec.hidden_units
    if n_units > 0:
        x, params = _layer(x, params, n_units, spec.bias)
        x = np.tanh(x)
    y, params = _layer(x, params, n_actions, spec.bias)
    assert params.shape[1] == 0
    squashed = np.asarray(spec.scale) * np.tanh(y) + np.asarray(spec.shift)
    action: Float64 = np.clip(squashed, spec.low, spec.high).reshape(-1, n_actions)
    return action


def _layer(x: Float64, params: Float64, n_outputs: int, bias: bool) -> tuple[Float64, Float64]:
    """Apply the layer at the front of `params`; return its outputs and the parameters after it."""
    n_members, n_inputs = params.shape[0], x.shape[2]
    y = np.zeros((n_members, 1, n_outputs))
    if bias:
        y, params = params[:, None, :n_outputs], params[:, n_outputs:]
    size = n_inputs * n_outputs
    weight, params = params[:, :size].reshape(n_members, n_inputs, n_outputs), params[:, size:]
    return x @ weight + y, params


# ------------------------------------------------------------------------------------------------
# The dream
# ------------------------------------------------------------------------------------------------


def dream_rollout(
    model: Any,
    spec: Any,
    params: npt.ArrayLike,
    initial_mu: npt.ArrayLike,
    initial_logvar: npt.ArrayLike,
    *,
    rollouts: int,
    seed: int,
    temperature: float,
    max_steps: int,
    done_threshold: float = 0.0,
    done_temperature: float = 0.0,
    common_noise: bool = True,
    threads: int | None = None,
    precision: str = "fp32",
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Run every member of a population in the dream, R rollouts each.

    Args:
        model: the weights (`ops.MDNRNNWeights`).
        spec: how a flat parameter vector is read (`ops.ControllerSpec`).
        params: (P, n_params).
        initial_mu: (I, Z) means of the stored first latents.
        initial_logvar: (I, Z) log variances of the stored first latents.
        rollouts: R, rollouts per member.
        seed: 0 <= seed < 2**64.
        temperature: tau > 0.
        max_steps: a rollout ends after so many steps at the latest.
        done_threshold: a rollout ends when the done logit is above it.
        done_temperature: 0, or a rollout ends with probability sigmoid((logit - done_threshold) /
            done_temperature).
        common_noise: rollout r of every member sees the same noise and first latent.
        threads: ignored; here so that the signature is that of the fast function.
        precision: see `mdn_rnn_step`.

    Returns:
        returns (P, R) float32, the sum of the rewards that M predicts, or else of 1 per step, the
        last included; lengths (P, R) int32.
    """
    del threads
    params = _f64(params)
    n_members = params.shape[0]
    n = n_members * rollouts
    ids = np.tile(np.arange(rollouts), n_members) if common_noise else np.arange(n)

    z = initial_latents(initial_mu, initial_logvar, n, seed=seed, rollout=ids)
    h = np.zeros((n, model.hidden_dim))
    c = np.zeros((n, model.hidden_dim))
    lengths = np.zeros(n, dtype=np.int32)
    returns = np.zeros(n)
    alive = np.arange(n)  # rows of the rollouts which have not ended
    for t in range(max_steps):
        # One row per controller: repeat each member's parameters for its rollouts that go on.
        action = controller_forward(spec, params[alive // rollouts], z, h, c)
        restart = np.full(alive.size, float(t == 0)) if model.predicts_done else None
        step = mdn_rnn_step(model, z, action, h, c, restart, precision=precision)
        z = mixture_sample(
            step.logmix, step.mu, step.logstd, temperature, seed=seed, rollout=ids[alive], step=t
        )
        h, c = step.h, step.c
        lengths[alive] = t + 1
        returns[alive] += 1.0 if step.reward is None else step.reward
        if step.done_logit is not None:
            stays = ~done_sample(
                step.done_logit,
                done_threshold,
                done_temperature,
                seed=seed,
                rollout=ids[alive],
                step=t,
            )
            alive, z, h, c = alive[stays], z[stays], h[stays], c[stays]
        if alive.size == 0:
            break
    shape = n_members, rollouts
    return returns.astype(np.float32).reshape(shape), lengths.reshape(shape)


def _f64(x: Any) -> Float64:
    return np.asarray(x, dtype=np.float64)
