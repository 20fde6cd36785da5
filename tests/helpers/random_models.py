"""Random weights, inputs and populations for the tests of the kernels."""

import numpy as np

from worldmodels_fast import ops


def random_weights(z, a, h, k, done, seed=0, done_bias=0.0, reward=False):
    """M as torch would initialise it; larger head rows so that samples are not all alike."""
    rng = np.random.default_rng(seed)

    def uniform(*shape):
        return (rng.uniform(-1, 1, shape) / np.sqrt(h)).astype(np.float32)

    x, o = z + a + done, 3 * k * z + done + reward
    head_weight, head_bias = 4 * uniform(o, h), 4 * uniform(o)
    if done:
        head_weight[0] *= 8.0  # the logit moves about with h: rollouts end at very different times
        head_bias[0] = done_bias
    return ops.MDNRNNWeights(
        uniform(4 * h, x),
        uniform(4 * h, h),
        uniform(4 * h),
        head_weight,
        head_bias,
        z,
        a,
        h,
        k,
        bool(done),
        bool(reward),
    )


def normals(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def random_spec(weights, features=("z", "c", "h"), **settings):
    settings.setdefault("bias", True)
    return ops.ControllerSpec(
        features, weights.latent_dim, weights.hidden_dim, weights.action_dim, **settings
    )


def dream_inputs(members, weights, **spec):
    """Return a controller's form, parameters (members, n_params), and first latents' mu, logvar."""
    spec = random_spec(weights, **spec)
    params = 0.3 * normals(5, members, spec.n_params)
    initial_mu = normals(6, 7, weights.latent_dim)
    return spec, params, initial_mu, np.full_like(initial_mu, -1.0)
