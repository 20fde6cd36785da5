"""ONNX Runtime: one step of M as a graph, its inputs and outputs bound to memory beforehand."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from worldmodels_fast.bench.protocol.cases import Case
from worldmodels_fast.bench.protocol.op_inputs import Op, OpInputs, checked_loop
from worldmodels_fast.bench.protocol.processes import Unavailable
from worldmodels_fast.bench.protocol.timing import Loop
from worldmodels_fast.bench.rivals.packing import rival_weights


def step_graph(inputs: OpInputs) -> bytes:
    """The step as an ONNX model: one product for the LSTM, one for the head.

    ONNX's own LSTM operator over a sequence of one step was as fast.
    """
    from onnx import TensorProto, helper, numpy_helper

    w, n = inputs.case.weights, inputs.n
    packed = rival_weights(inputs.case, inputs.params)
    constants = [
        numpy_helper.from_array(getattr(packed, name), name)
        for name in ("lstm", "lstm_bias", "head", "head_bias")
    ]
    sizes = {"z": w.latent_dim, "action": w.action_dim}
    if w.predicts_done:
        sizes["restart"] = 1
    sizes["h"] = w.hidden_dim
    node = helper.make_node
    nodes = [
        node("Concat", list(sizes), ["x"], axis=1),
        node("Gemm", ["x", "lstm", "lstm_bias"], ["gates"]),
        node("Split", ["gates"], ["i", "f", "g", "o"], axis=1, num_outputs=4),
        node("Sigmoid", ["i"], ["in_gate"]),
        node("Sigmoid", ["f"], ["forget"]),
        node("Tanh", ["g"], ["candidate"]),
        node("Sigmoid", ["o"], ["out_gate"]),
        node("Mul", ["forget", "c"], ["kept"]),
        node("Mul", ["in_gate", "candidate"], ["added"]),
        node("Add", ["kept", "added"], ["c_next"]),
        node("Tanh", ["c_next"], ["squashed"]),
        node("Mul", ["out_gate", "squashed"], ["h_next"]),
        node("Gemm", ["h_next", "head", "head_bias"], ["out"]),
    ]

    def values(columns: dict[str, int]) -> list[Any]:
        return [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [n, size])
            for name, size in columns.items()
        ]

    results = {"out": packed.head_bias.size, "h_next": w.hidden_dim, "c_next": w.hidden_dim}
    ins = values({**sizes, "c": w.hidden_dim})
    graph = helper.make_graph(nodes, "mdn_rnn_step", ins, values(results), constants)
    opset = [helper.make_opsetid("", 21)]
    model: bytes = helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    return model


def make_op(op: str, case: Case, n: int, precision: str) -> Loop:
    """One step of M to be timed, checked; its unit is a call.

    Raises:
        Unavailable: onnxruntime or onnx is not installed.
    """
    inputs = OpInputs.make(case, n)
    try:
        import onnxruntime

        model = step_graph(inputs)
    except ImportError as error:
        raise Unavailable(f"onnxruntime or onnx is not installed ({error})") from error
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = int(os.environ.get("NPROC", "1"))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    arrays = {"z": inputs.z, "action": inputs.action, "h": inputs.h, "c": inputs.c}
    if case.weights.predicts_done:
        arrays["restart"] = inputs.restart[:, None]
    binding = session.io_binding()
    value = onnxruntime.OrtValue.ortvalue_from_numpy
    # Kept: the session reads and writes their memory.
    given = {name: value(x) for name, x in arrays.items()}
    results = {o.name: value(np.zeros(o.shape, np.float32)) for o in session.get_outputs()}
    for name, x in given.items():
        binding.bind_ortvalue_input(name, x)
    for name, x in results.items():
        binding.bind_ortvalue_output(name, x)

    def call() -> dict[str, Any]:
        session.run_with_iobinding(binding)
        return given  # which keeps it

    def answer() -> dict[str, Any]:
        call()
        return inputs.step_answer(*(results[name].numpy() for name in ("out", "h_next", "c_next")))

    return checked_loop("onnxruntime", op, Op(call, answer), inputs, precision)
