"""An ONNX graph of a policy, from the program that JAX traces of it."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.export
import numpy as np
import onnx
from onnx import helper, numpy_helper

from guidedflow.agents import Agent
from guidedflow.errors import SettingsError
from guidedflow.graphs.session import NoiseLaw, Size
from guidedflow.graphs.tracing import draws_noise
from guidedflow.nn.products import computed_in
from guidedflow.types import VECTOR, Spec

OPSET = 20
IR_VERSION = 9
"""Of the first ONNX with that opset, so that older runtimes read the file."""
GELU = "gelu_tanh"
"""What ``nn.mlp``'s GELU is called in a traced program."""
BATCH = "batch"


class Value(NamedTuple):
    """What a variable of the traced program is in the graph."""

    of: Any
    """A tensor's name; an array, if it is constant; None for a random key."""
    shape: tuple[Size, ...]
    """As it is there: 1 along an axis that nothing has expanded yet."""


class PolicyGraph(NamedTuple):
    """A policy's graph, and what it takes and gives besides observations."""

    model: onnx.ModelProto
    action: str
    """Name of the actions, its first output."""
    noise: tuple[str, tuple[Size, ...]] | None
    """Name and shape of the standard normal noise that it takes; None if it takes none."""
    ranked: str | None
    """Name of the values (N, batch) by which it chooses one of N actions; None if it does not choose."""


class Graph:
    """Nodes and constants of a graph that is being built."""

    def __init__(self, source: str):
        self.source = source
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: dict[str, onnx.ValueInfoProto] = {}
        self.ranked: str | None = None
        """The values that an argmax chooses by, if there is one."""
        self.drawn: Callable[[tuple[Size, ...]], Value] | None = None
        """What stands for noise of a shape."""
        self._constants: dict[Any, onnx.TensorProto] = {}
        self._shapes: dict[tuple[Size, ...], str] = {}

    def node(self, operator: str, inputs: Sequence[Any], shape: tuple[Size, ...], **attributes: Any) -> Value:
        """One more node, whose only output has this shape; inputs are values, names and arrays."""
        name = self.free(f"t{len(self.nodes)}")
        names = [self.name(one.of if isinstance(one, Value) else one) for one in inputs]
        self.nodes.append(helper.make_node(operator, names, [name], **attributes))
        return Value(name, shape)

    def name(self, tensor: str | np.ndarray) -> str:
        """The name of a tensor, or of a constant, which is stored once."""
        if isinstance(tensor, str):
            return tensor
        key = (tensor.dtype.str, tensor.shape, tensor.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(tensor, self.free(f"c{len(self._constants)}"))
        return self._constants[key].name

    def free(self, name: str) -> str:
        """The name, or a longer one where an entry of the observation has it."""
        while name in self.inputs:
            name += "_"
        return name

    def whole(self, value: Value, shape: tuple[Size, ...]) -> Value:
        """The value with every axis expanded to its size."""
        if value.shape == shape:
            return value
        if not isinstance(value.of, str) and BATCH not in shape:
            return Value(np.broadcast_to(value.of, shape), shape)  # type: ignore[arg-type]
        if shape not in self._shapes:
            batch = self.node("Shape", [next(iter(self.inputs))], (1,), start=0, end=1)
            sizes = [batch if size == BATCH else np.array([size], np.int64) for size in shape]
            self._shapes[shape] = self.node("Concat", sizes, (len(shape),), axis=0).of
        return self.node("Expand", [value, self._shapes[shape]], shape)

    def refuse(self, found: str) -> SettingsError:
        """An error about what no graph can be made of."""
        return SettingsError(f"{self.source}: expected a program that ONNX can hold, found {found}")

    def model(self, outputs: dict[str, Any]) -> onnx.ModelProto:
        """The whole, with the named outputs of type and shape."""
        made = [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()]
        graph = helper.make_graph(self.nodes, "policy", [*self.inputs.values()], made, [*self._constants.values()])
        imports = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="guidedflow")


def policy_graph(agent: Agent, policy: str, spec: Spec, *, noise: NoiseLaw = "normal") -> PolicyGraph:
    """A policy's graph: observations and noise in, the environment's actions out.

    Args:
        agent: whose policy.
        policy: its name.
        spec: of the data that it learned from.
        noise: ``normal``: the noise is an input; ``zero``: it is 0, and the policy a function of the observation.

    Raises:
        SettingsError: the policy's program has an operation that is not translated.
    """
    graph = Graph(f"policy {policy}")
    for name, (entry, dtype) in spec.inputs.items():
        graph.inputs[name] = helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(dtype), (BATCH, *entry)
        )
    taken: list[tuple[str, tuple[Size, ...]]] = []

    def drawn(shape: tuple[Size, ...]) -> Value:
        if noise == "zero":
            return Value(np.zeros([1] * len(shape), np.float32), (1,) * len(shape))
        if taken:
            raise graph.refuse("more than one call of jax.random.normal")
        name = graph.free("noise")
        graph.inputs[name] = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        taken.append((name, shape))
        return Value(name, shape)

    graph.drawn = drawn
    (batch,) = jax.export.symbolic_shape(BATCH)
    observations = spec.observation(lambda shape, dtype: jax.ShapeDtypeStruct((batch, *shape), dtype))
    with computed_in("float32"):
        program = jax.make_jaxpr(agent.policies()[policy])(observations, jax.random.key(0))
    inputs = [*_observation(graph, spec), Value(None, ())]
    (unit,) = translate(graph, program.jaxpr, program.consts, inputs)
    action = _in_range(graph, graph.whole(unit, (BATCH, spec.action_size)), spec)
    output = graph.free("action")
    graph.nodes.append(helper.make_node("Identity", [graph.name(action.of)], [output]))
    outputs: dict[str, Any] = {output: (onnx.TensorProto.FLOAT, (BATCH, spec.action_size))}
    return PolicyGraph(graph.model(outputs), output, taken[0] if taken else None, graph.ranked)


def _observation(graph: Graph, spec: Spec) -> list[Value]:
    """The arrays that networks see, in the order of JAX's leaves: pictures as they are, other entries end to end."""
    if not spec.observation_keys:
        return [Value(name, (BATCH, *shape)) for name, (shape, _) in spec.inputs.items()]
    found = {name: Value(name, (BATCH, *spec.inputs[name][0])) for name in spec.pictures}
    parts, total = [], 0
    for name, shape in spec.observation_keys:
        if name not in found:
            size = math.prod(shape)
            parts.append(graph.node("Reshape", [name, np.array([-1, size], np.int64)], (BATCH, size)))
            total += size
    if parts:
        found[VECTOR] = graph.node("Concat", parts, (BATCH, total), axis=1)
    return [found[name] for name in sorted(found)]


def _in_range(graph: Graph, unit: Value, spec: Spec) -> Value:
    """``ActionRange.from_unit``, in its float64."""
    if spec.action_range is None:
        return unit
    low, high = (np.array(bound, np.float64) for bound in spec.action_range)
    shape = unit.shape
    double = graph.node("Cast", [unit], shape, to=onnx.TensorProto.DOUBLE)
    scaled = graph.node("Mul", [double, (high - low) / 2], shape)
    moved = graph.node("Add", [scaled, (low + high) / 2], shape)
    clipped = graph.node("Min", [graph.node("Max", [moved, low], shape), high], shape)
    return graph.node("Cast", [clipped], shape, to=onnx.TensorProto.FLOAT)


# ------------------------------------------------------------------------------------------------------ programs


def translate(graph: Graph, program: Any, constants: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
    """The outputs of a traced program, whose equations become nodes; what depends on constants alone is computed."""
    values: dict[Any, Value] = {}

    def read(atom: Any) -> Value:
        return _constant(np.asarray(atom.val, atom.aval.dtype)) if hasattr(atom, "val") else values[atom]

    values.update(zip(program.constvars, map(_constant, constants), strict=True))
    values.update(zip(program.invars, inputs, strict=True))
    for equation in program.eqns:
        values.update(zip(equation.outvars, _equation(graph, equation, [*map(read, equation.invars)]), strict=True))
    return [read(atom) for atom in program.outvars]


def _constant(array: Any) -> Value:
    array = np.asarray(array)
    return Value(array, array.shape)


def _equation(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    name = equation.primitive.name
    if draws_noise(equation) and graph.drawn is not None:
        return [graph.drawn(_sizes(graph, equation.outvars[0]))]
    inner = next((equation.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in equation.params), None)
    if inner is not None and equation.params.get("name") == GELU:
        return [graph.node("Gelu", inputs, inputs[0].shape, approximate="tanh")]
    if name == "scan":
        return _unrolled(graph, equation, inputs)
    if inner is not None:
        return translate(graph, getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), inputs)
    if all(jax.dtypes.issubdtype(variable.aval.dtype, jax.dtypes.prng_key) for variable in equation.outvars):
        return [Value(None, ()) for _ in equation.outvars]
    if any(one.of is None for one in inputs):
        raise graph.refuse(f"random numbers by {name}; draw noise by jax.random.normal")
    constant = not any(isinstance(one.of, str) for one in inputs)
    if constant and not any(BATCH in _sizes(graph, variable) for variable in equation.outvars):
        shapes = [_sizes(graph, variable) for variable in equation.invars]
        return _computed(equation, [*map(graph.whole, inputs, shapes)])
    if constant and name in ELEMENTWISE:
        arrays = np.broadcast_arrays(*(one.of for one in inputs))
        return _computed(equation, [*map(_constant, arrays)])
    if name in ELEMENTWISE:
        return [graph.node(ELEMENTWISE[name], inputs, _broadcast(inputs))]
    if name not in OPERATIONS:
        raise graph.refuse(f"the operation {name}")
    return [OPERATIONS[name](graph, equation, inputs)]


def _computed(equation: Any, inputs: Sequence[Value]) -> list[Value]:
    found = equation.primitive.bind(*(one.of for one in inputs), **equation.params)
    return [*map(_constant, found if equation.primitive.multiple_results else [found])]


def _unrolled(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    """A loop that carries values, step after step."""
    carried, fixed = equation.params["num_carry"], equation.params["num_consts"]
    if len(inputs) != carried + fixed or len(equation.outvars) != carried:
        raise graph.refuse("a loop over the rows of an array")
    body, state = equation.params["jaxpr"], inputs[fixed:]
    for _ in range(equation.params["length"]):
        state = translate(graph, body.jaxpr, body.consts, [*inputs[:fixed], *state])
    return state


def _sizes(graph: Graph, variable: Any) -> tuple[Size, ...]:
    sizes = tuple(size if isinstance(size, int) else str(size) for size in variable.aval.shape)
    if any(isinstance(size, str) and size != BATCH for size in sizes):
        raise graph.refuse(f"an array whose size is computed from the number of observations, {sizes}")
    return sizes


def _broadcast(values: Sequence[Value]) -> tuple[Size, ...]:
    rank = max(len(one.shape) for one in values)
    padded = [(*(1,) * (rank - len(one.shape)), *one.shape) for one in values]
    return tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*padded, strict=True))


# ---------------------------------------------------------------------------------------------------- operations

ELEMENTWISE = {
    "abs": "Abs",
    "add": "Add",
    "add_any": "Add",
    "and": "And",
    "cos": "Cos",
    "div": "Div",
    "eq": "Equal",
    "erf": "Erf",
    "exp": "Exp",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "log": "Log",
    "logistic": "Sigmoid",
    "lt": "Less",
    "max": "Max",
    "min": "Min",
    "mul": "Mul",
    "neg": "Neg",
    "not": "Not",
    "or": "Or",
    "pow": "Pow",
    "sign": "Sign",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "sub": "Sub",
    "tanh": "Tanh",
}
"""Operations of JAX that ONNX has, element by element."""


def _rsqrt(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    root = graph.node("Sqrt", inputs, inputs[0].shape)
    return graph.node("Reciprocal", [root], root.shape)


def _power(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    (x,), exponent = inputs, equation.params.get("y", 2)
    if exponent not in (2, 3):
        return graph.node("Pow", [x, np.float32(exponent)], x.shape)
    squared = graph.node("Mul", [x, x], x.shape)
    return squared if exponent == 2 else graph.node("Mul", [squared, x], x.shape)


def _clamp(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    low, x, high = inputs
    raised = graph.node("Max", [low, x], _broadcast([low, x]))
    return graph.node("Min", [high, raised], _broadcast([high, raised]))


def _select(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    if len(inputs) != 3:
        raise graph.refuse(f"a choice between {len(inputs) - 1} arrays")
    which, otherwise, then = inputs
    return graph.node("Where", [which, then, otherwise], _broadcast(inputs))


def _cast(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(equation.params["new_dtype"]))
    if isinstance(inputs[0].of, np.ndarray):
        return _constant(inputs[0].of.astype(equation.params["new_dtype"]))
    return graph.node("Cast", inputs, inputs[0].shape, to=kind)


def _broadcast_in_dim(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    """New axes, of size 1 until something needs them whole."""
    x, places = inputs[0], [*map(int, equation.params["broadcast_dimensions"])]
    shape: list[Size] = [1] * len(equation.params["shape"])
    for place, size in zip(places, x.shape, strict=True):
        shape[place] = size
    if isinstance(x.of, np.ndarray):
        return Value(x.of.reshape(shape), tuple(shape))
    new = [axis for axis in range(len(shape)) if axis not in places]
    return graph.node("Unsqueeze", [x, np.array(new, np.int64)], tuple(shape)) if new else x


def _reshape(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    shape = _sizes(graph, equation.outvars[0])
    whole = graph.whole(inputs[0], _sizes(graph, equation.invars[0]))
    target = np.array([-1 if size == BATCH else size for size in shape], np.int64)
    return graph.node("Reshape", [whole, target], shape)


def _squeeze(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    axes = equation.params["dimensions"]
    shape = tuple(size for axis, size in enumerate(inputs[0].shape) if axis not in axes)
    return graph.node("Squeeze", [inputs[0], np.array(axes, np.int64)], shape)


def _transpose(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    order = equation.params["permutation"]
    return graph.node("Transpose", inputs, tuple(inputs[0].shape[axis] for axis in order), perm=order)


def _slice(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    shape = _sizes(graph, equation.invars[0])
    starts, ends = equation.params["start_indices"], equation.params["limit_indices"]
    steps = equation.params["strides"] or [1] * len(shape)
    cut = [axis for axis, size in enumerate(shape) if size != BATCH]
    bounds = [np.array([of[axis] for axis in cut], np.int64) for of in (starts, ends)]
    more = [np.array(cut, np.int64), np.array([steps[axis] for axis in cut], np.int64)]
    return graph.node("Slice", [graph.whole(inputs[0], shape), *bounds, *more], _sizes(graph, equation.outvars[0]))


def _concatenate(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    shape, axis = _sizes(graph, equation.outvars[0]), equation.params["dimension"]
    shapes = [_sizes(graph, variable) for variable in equation.invars]
    if all(isinstance(one.of, np.ndarray) for one in inputs) and shape[axis] != BATCH:
        parts = [
            np.broadcast_to(one.of, [1 if isinstance(size, str) else size for size in sizes])
            for one, sizes in zip(inputs, shapes, strict=True)
        ]
        return _constant(np.concatenate(parts, axis))
    return graph.node("Concat", [*map(graph.whole, inputs, shapes)], shape, axis=axis)


def _stack(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    shape, axis = _sizes(graph, equation.outvars[0]), equation.params["axis"]
    single = (*shape[:axis], 1, *shape[axis + 1 :])
    wholes = [*map(graph.whole, inputs, (_sizes(graph, variable) for variable in equation.invars))]
    parts = [graph.node("Unsqueeze", [one, np.array([axis], np.int64)], single) for one in wholes]
    return graph.node("Concat", parts, shape, axis=axis)


def _reduced(operator: str) -> Callable[[Graph, Any, list[Value]], Value]:
    def reduce(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
        whole = graph.whole(inputs[0], _sizes(graph, equation.invars[0]))
        axes = np.array(equation.params["axes"], np.int64)
        return graph.node(operator, [whole, axes], _sizes(graph, equation.outvars[0]), keepdims=0)

    return reduce


def _argmax(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    whole = graph.whole(inputs[0], _sizes(graph, equation.invars[0]))
    graph.ranked = graph.name(whole.of)
    shape = _sizes(graph, equation.outvars[0])
    found = graph.node("ArgMax", [whole], shape, axis=equation.params["axes"][0], keepdims=0)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(equation.params["index_dtype"]))
    return graph.node("Cast", [found], shape, to=kind)


def _product(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    (of_x, of_y), (batch_x, _) = equation.params["dimension_numbers"]
    x, y = inputs
    if batch_x or len(y.shape) != 2 or tuple(of_x) != (len(x.shape) - 1,) or tuple(of_y) != (0,):
        raise graph.refuse("a product that is not rows times a matrix")
    rows = graph.whole(x, (*x.shape[:-1], y.shape[0]))
    return graph.node("MatMul", [rows, y], (*x.shape[:-1], y.shape[1]))


IMAGE = [0, 3, 1, 2]
"""From (batch, height, width, channels) to ONNX's (batch, channels, height, width)."""
BACK = [0, 2, 3, 1]


def _convolution(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    given, (x, kernel) = equation.params, inputs
    numbers = given["dimension_numbers"]
    plain = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) == ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
    if not plain or set(given["lhs_dilation"]) != {1} or not isinstance(kernel.of, np.ndarray):
        raise graph.refuse("a convolution that is not of pictures (batch, height, width, channels) with fixed weights")
    return _over_pictures(
        graph,
        equation,
        "Conv",
        [x, np.ascontiguousarray(kernel.of.transpose(3, 2, 0, 1))],
        pads=[*(low for low, _ in given["padding"]), *(high for _, high in given["padding"])],
        strides=given["window_strides"],
        dilations=given["rhs_dilation"],
        group=given["feature_group_count"],
    )


def _pooled(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    given = equation.params
    window, strides, padding = given["window_dimensions"], given["window_strides"], given["padding"]
    if len(window) != 4 or {*window[::3], *strides[::3], *given["base_dilation"], *given["window_dilation"]} != {1}:
        raise graph.refuse("a maximum over windows that are not of pictures (batch, height, width, channels)")
    pads = [*(low for low, _ in padding[1:3]), *(high for _, high in padding[1:3])]
    return _over_pictures(graph, equation, "MaxPool", inputs, kernel_shape=window[1:3], strides=strides[1:3], pads=pads)


def _over_pictures(graph: Graph, equation: Any, operator: str, inputs: list[Any], **attributes: Any) -> Value:
    shape = _sizes(graph, equation.outvars[0])
    x = graph.whole(inputs[0], _sizes(graph, equation.invars[0]))
    turned = graph.node("Transpose", [x], tuple(x.shape[axis] for axis in IMAGE), perm=IMAGE)
    moved = tuple(shape[axis] for axis in IMAGE)
    made = graph.node(operator, [turned, *inputs[1:]], moved, **attributes)
    return graph.node("Transpose", [made], shape, perm=BACK)


OPERATIONS: dict[str, Callable[[Graph, Any, list[Value]], Value]] = {
    "argmax": _argmax,
    "broadcast_in_dim": _broadcast_in_dim,
    "clamp": _clamp,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "convert_element_type": _cast,
    "copy": lambda graph, equation, inputs: inputs[0],
    "dot_general": _product,
    "integer_pow": _power,
    "reduce_max": _reduced("ReduceMax"),
    "reduce_min": _reduced("ReduceMin"),
    "reduce_sum": _reduced("ReduceSum"),
    "reduce_window_max": _pooled,
    "reshape": _reshape,
    "rsqrt": _rsqrt,
    "select_n": _select,
    "slice": _slice,
    "square": _power,
    "squeeze": _squeeze,
    "stack": _stack,
    "stop_gradient": lambda graph, equation, inputs: inputs[0],
    "transpose": _transpose,
}
"""The others, a function each."""
