"""What the matrix products of a program alone would take: their shapes, and the time of each, measured here and now."""

import collections
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import elapsed

Shape = tuple[int, int, int, int]
"""A product's batch, rows, columns and inner size."""
Products = Mapping[Shape, float]
"""How often each shape is computed; half a time, too, where a condition decides."""

PRODUCTS_A_CALL = 8


def matrix_products(jaxpr: Any, times: float = 1) -> Products:
    """Those of a traced program. A condition takes each of its branches equally often.

    Loops are of known length, but for ReBRAC's of one round or none, by turns, which counts half.
    """
    found: dict[Shape, float] = collections.defaultdict(float)
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contract, _), (batch, _) = equation.params["dimension_numbers"]
            left, right = (variable.aval.shape for variable in equation.invars)
            inner = int(np.prod([left[i] for i in contract]))
            together = int(np.prod([left[i] for i in batch]))
            rows = int(np.prod(left)) // inner // together
            found[together, rows, int(np.prod(right)) // inner // together, inner] += times
        inner_times = times
        if equation.primitive.name == "scan":
            inner_times = times * equation.params["length"]
        if equation.primitive.name == "while":
            inner_times = times / 2
        if equation.primitive.name == "cond":
            inner_times = times / len(equation.params["branches"])
        for value in equation.params.values():
            for part in value if isinstance(value, tuple) else (value,):
                inner_jaxpr = getattr(part, "jaxpr", part)
                if hasattr(inner_jaxpr, "eqns"):
                    for shape, count in matrix_products(inner_jaxpr, inner_times).items():
                        found[shape] += count
    return found


def gflop(products: Products) -> float:
    """Their floating-point operations, in thousand millions."""
    return float(sum(2e-9 * count * np.prod(shape) for shape, count in products.items()))


def floor_seconds(products: Products) -> float:
    """The sum of what each product takes alone."""
    return sum(count * time_product(shape) for shape, count in products.items())


_TIMERS: dict[Shape, Any] = {}


def time_product(shape: Shape) -> float:
    """Seconds that one product of this shape takes, as one of several in a call; the best of five calls."""
    together, rows, columns, inner = shape
    if shape not in _TIMERS:
        left = jnp.asarray(np.ones((together, rows, inner), np.float32))
        rights = [jnp.asarray(np.full((together, inner, columns), i, np.float32)) for i in range(PRODUCTS_A_CALL)]
        compiled = jax.jit(lambda left, rights: [left @ right for right in rights]).lower(left, rights).compile()
        _TIMERS[shape] = lambda: jax.block_until_ready(compiled(left, rights))
        _TIMERS[shape]()
    return min(elapsed(_TIMERS[shape]) for _ in range(5)) / PRODUCTS_A_CALL
