"""The two products that networks are made of, and how exactly they are computed: in float32, or mixed.

The choice is JAX's own ``jax.default_matmul_precision``, by which compiled programs are told apart too.
"""

import contextlib
from collections.abc import Iterator
from typing import Literal

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float

Precision = Literal["default", "float32", "tensorfloat32", "mixed"]
"""``default``: float32, on an accelerator with JAX's own choice for products. ``mixed``: operands of products in
bfloat16, forward and backward, their sums and everything else in float32 (Micikevicius et al., 2018, arXiv
1710.03740)."""

MIXED = "BF16_BF16_F32"
"""JAX's name for it. XLA's CPU backend computes in float32 all the same, so operands are cast here."""
Layouts = tuple[str, str, str]
IMAGES: Layouts = ("NHWC", "HWIO", "NHWC")


@contextlib.contextmanager
def computed_in(precision: Precision) -> Iterator[None]:
    """What is traced meanwhile computes its products, and their gradients, in this precision."""
    names = {"default": None, "mixed": MIXED}
    with jax.default_matmul_precision(names.get(precision, precision)):
        yield


def acting_precision(precision: Precision) -> Precision:
    """What a policy acts in whose networks were trained in this precision: mixed is for updates."""
    return "default" if precision == "mixed" else precision


def dense(x: Float[Array, "*batch in"], weight: Float[Array, "in out"]) -> Float[Array, "*batch out"]:
    """``x @ weight``."""
    return _dense(x, weight) if _is_mixed() else x @ weight


def _is_mixed() -> bool:
    return jax.config.jax_default_matmul_precision == MIXED  # type: ignore[attr-defined]


def _operand(x: Array) -> Array:
    return x.astype(jnp.bfloat16) if _is_mixed() else x


def _laid_out(x: Array) -> Array:
    """In memory as its shape says: of operands that lie otherwise XLA's CPU backend makes slow work."""
    return with_layout_constraint(x, Layout(tuple(range(x.ndim)))) if jax.default_backend() == "cpu" else x


@jax.custom_vjp
def _dense(x: Array, weight: Array) -> Array:
    return _dense_forward(x, weight)[0]


def _dense_forward(x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    x, weight = _operand(x), _operand(weight)
    return _dot(x, weight, 0), (x, weight)


def _dense_backward(operands: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, weight = operands
    gradient = _operand(gradient)
    columns = _laid_out(x.reshape(-1, x.shape[-1]).T)
    return _dot(gradient, weight, 1), _dot(columns, gradient.reshape(-1, gradient.shape[-1]), 0)


def _dot(x: Array, y: Array, axis: int) -> Array:
    dimensions = ((x.ndim - 1,), (axis,)), ((), ())
    return jax.lax.dot_general(x, y, dimensions, jax.lax.Precision.DEFAULT, preferred_element_type=jnp.float32)


_dense.defvjp(_dense_forward, _dense_backward)


@jax.custom_vjp
def convolve(
    x: Float[Array, "B height width in"], kernel: Float[Array, "h w in out"]
) -> Float[Array, "B height width out"]:
    """Pictures convolved with a kernel of odd height and width: stride 1, zeros beyond the edges."""
    return _convolve_forward(x, kernel)[0]


def _convolve_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    x, kernel = _operand(x), _operand(kernel)
    return _sums(x, kernel, "SAME"), (x, kernel)


def _convolve_backward(operands: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = operands
    gradient = _operand(gradient)
    of_x = _sums(gradient, kernel[::-1, ::-1].swapaxes(2, 3), "SAME")
    # The kernel's gradient is a convolution too: the pictures' channels are its batch, the batch its channels.
    edges = [(size // 2, size // 2) for size in kernel.shape[:2]]
    if jax.default_backend() == "cpu":
        x, gradient = _laid_out(x.transpose(3, 1, 2, 0)), _laid_out(gradient.transpose(1, 2, 0, 3))
        return of_x, _sums(x, gradient, edges).transpose(1, 2, 0, 3)
    return of_x, _sums(x, gradient, edges, ("CHWN", "IHWO", "HWNC"))


def _sums(x: Array, kernel: Array, padding: str | list[tuple[int, int]], layout: Layouts = IMAGES) -> Array:
    rounded = {"precision": jax.lax.Precision.DEFAULT, "preferred_element_type": jnp.float32} if _is_mixed() else {}
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=layout, **rounded)


convolve.defvjp(_convolve_forward, _convolve_backward)
