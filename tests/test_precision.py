"""``precision="mixed"``: bfloat16 operands and float32 sums wherever networks multiply, and nothing else changed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bridge import SPEC, fresh, random_batch

from guidedflow.agents import AGENTS
from guidedflow.data.dataset import Dataset
from guidedflow.nn.products import computed_in, convolve, dense
from guidedflow.training.fit import fit, make_agent
from guidedflow.types import Spec

PICTURES = Spec((16, 16, 3), np.dtype("uint8"), 3)


def rounded(x):
    """As bfloat16 holds it."""
    return np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)


def gradients(function, precision, *inputs):
    """A product, and what flows back through it from a fixed gradient."""
    with computed_in(precision):
        out, back = jax.vjp(function, *map(jnp.asarray, inputs))
        return out, *back(jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape))


@pytest.mark.parametrize("shape", [(40, 7), (3, 40, 7)])
def test_a_dense_product_rounds_its_operands_both_ways_and_nothing_else(shape):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=shape).astype(np.float32), rng.normal(size=(7, 5)).astype(np.float32)
    found = gradients(dense, "mixed", x, w)
    assert [array.dtype for array in found] == ["float32"] * 3
    g = rounded(np.cos(np.arange(found[0].size, dtype=np.float32)).reshape(found[0].shape))
    rows = rounded(x).reshape(-1, 7), g.reshape(-1, 5)
    for ours, wanted in zip(found, (rounded(x) @ rounded(w), g @ rounded(w).T, rows[0].T @ rows[1]), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-5)
    assert np.abs(found[0] - np.asarray(x @ w)).max() > 1e-4


def direct_convolution(x, kernel):
    """Of pictures (B, height, width, in), written as its definition says."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    shifted = (padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))
    return sum(shifted)


@pytest.mark.parametrize("precision", ["default", "mixed"])
def test_a_convolution_and_its_gradients_are_the_definitions(precision):
    rng = np.random.default_rng(0)
    x, k = rng.normal(size=(4, 6, 5, 3)).astype(np.float32), rng.normal(size=(3, 3, 3, 2)).astype(np.float32)
    out, of_x, of_k = gradients(convolve, precision, x, k)
    as_used = rounded if precision == "mixed" else np.float64
    x, k = as_used(x), as_used(k)
    g = as_used(np.cos(np.arange(out.size, dtype=np.float32)).reshape(out.shape))
    np.testing.assert_allclose(out, direct_convolution(x, k), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(of_x, direct_convolution(g, k[::-1, ::-1].transpose(0, 1, 3, 2)), rtol=1e-4, atol=1e-4)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for i in range(3):
        for j in range(3):
            wanted = np.einsum("bhwi,bhwo->io", padded[:, i : i + 6, j : j + 5], g)
            np.testing.assert_allclose(of_k[i, j], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("function", [dense, convolve])
def test_products_vmap(function):
    rng = np.random.default_rng(0)
    shapes = ((6, 7), (7, 5)) if function is dense else ((2, 6, 5, 3), (3, 3, 3, 2))
    pairs = [jnp.asarray(rng.normal(size=(2, *shape)), jnp.float32) for shape in shapes]

    def loss(x, y):
        return jnp.square(function(x, y)).sum()

    with computed_in("mixed"):
        together = jax.jit(jax.vmap(jax.grad(loss, (0, 1))))(*pairs)
        for i in range(2):
            alone = jax.grad(loss, (0, 1))(*(array[i] for array in pairs))
            for a, b in zip(together, alone, strict=True):
                np.testing.assert_allclose(a[i], b, rtol=2e-2, atol=1e-3)


def metrics_of_a_step(name, spec, precision):
    """Every metric of one update, of the same agent on the same batch with the same noise."""
    algorithm = AGENTS[name]
    settings = {"hidden": (64, 64), "flow_steps": 4}
    config = algorithm.config_class(**{k: v for k, v in settings.items() if hasattr(algorithm.config_class, k)})
    batch = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), random_batch(0, size=64, spec=spec))
    if spec is PICTURES:
        pixels = np.random.default_rng(0).integers(0, 256, batch.observations.shape, np.uint8)
        batch = batch._replace(observations=pixels, next_observations=pixels[::-1])
    agent = fresh(algorithm, config, spec)
    with computed_in(precision):
        return jax.jit(algorithm.update)(agent, batch, jax.random.key(1))[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(AGENTS))
def test_each_loss_is_within_two_percent(name):
    """Of float32's, which agree with the oracles' in float64 to 1e-5 (test_gfp.py, test_losses.py)."""
    mixed, exact = (metrics_of_a_step(name, SPEC, precision) for precision in ("mixed", "float32"))
    losses = [metric for metric in mixed if metric.endswith("loss")]
    assert losses
    for loss in losses:
        np.testing.assert_allclose(mixed[loss], exact[loss], rtol=2e-2, err_msg=loss)
    assert any(mixed[loss] != exact[loss] for loss in losses)


@pytest.mark.slow
def test_pictures_too():
    mixed, exact = (metrics_of_a_step("gfp", PICTURES, precision) for precision in ("mixed", "float32"))
    for loss in ("critic_loss", "actor_loss", "vabc_loss"):
        np.testing.assert_allclose(mixed[loss], exact[loss], rtol=2e-2, err_msg=loss)
    assert mixed["critic_loss"] != exact["critic_loss"]


@pytest.mark.slow
def test_training_in_mixed_precision_leaves_everything_in_float32_and_differs():
    rng = np.random.default_rng(0)
    rows = 64
    dataset = Dataset.from_arrays(
        rng.normal(size=(rows, 4)), rng.uniform(-1, 1, (rows, 2)), rng.normal(size=rows), np.ones(rows, bool)
    )
    agent = make_agent("gfp", dataset.spec, hidden=(16, 16), flow_steps=2)
    train = functools.partial(fit, agent, dataset, steps=3, batch_size=8)
    trained = {precision: train(precision=precision)[0] for precision in ("default", "float32", "mixed")}
    leaves = {name: jax.tree.leaves(result.networks) for name, result in trained.items()}
    assert {leaf.dtype for leaf in jax.tree.leaves(trained["mixed"]) if leaf.dtype != "int32"} == {jnp.dtype("float32")}
    assert all((a == b).all() for a, b in zip(leaves["default"], leaves["float32"], strict=True))
    assert any((a != b).any() for a, b in zip(leaves["default"], leaves["mixed"], strict=True))
