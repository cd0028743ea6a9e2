"""Exported forms of FinGPT's decoding step: the same numbers through ONNX Runtime, where eager PyTorch is too slow.

    eager     the model itself: no extra packages, the definition
    onnx      fp32 through ONNX Runtime: equal to fp32 rounding
    onnx-w8   matrices as 8-bit integers with a scale for 32 numbers of a row, activations rounded likewise within each
              product; embeddings, head and cache stay fp32. A quarter of the bytes, which is what bounds large models

A form has the `step` and `prefill` of `models.fingpt.FinGPT`, on the same cache, and takes its place in the engine.
Which one is faster where, and what it loses in bits: benchmarks/results/models.md. The graph is built here, operator by
operator, in a second: PyTorch's exporter takes 14 s for 19M parameters and needs three packages more, and AOTInductor
compiles for a minute and a half, with a C++ compiler, to be slower than ONNX Runtime (docs/log.md).
"""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.decoder import Decoder
from models.fingpt import FinGPT
from models.forms import FORMS, FormError
from models.kv_cache import KVCache
from models.layers import EPS, Block

__all__ = ["BLOCK", "FORMS", "Decoder", "FormError", "OnnxForm", "exported", "quantise", "step_graph"]

BLOCK = 32  # numbers a scale: 64 and 128 are as fast, and up to 1.3 times as far off

Floats = npt.NDArray[np.float32]

_HIDDEN = np.float32(-1e30)  # not infinity: a row of a cache that is new holds nothing else
_CONTRIB = "com.microsoft"


def exported(model: FinGPT, form: str = "eager") -> Decoder:
    """`model` in one of FORMS.

    Raises:
        ValueError: there is no such form, or the model is not fp32 on the CPU.
        FormError: its packages are not installed.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, was {form!r}")
    return model if form == "eager" else OnnxForm(model, quantised=form == "onnx-w8")


class OnnxForm:
    """A FinGPT whose `step` runs in ONNX Runtime on one thread; `prefill` is the model's own.

    A batch is run one sequence after the other: at one token each the cache is most of what is read, and no sequence
    shares it, so what a sequence gets does not depend on which others tick with it, to the last bit.

    Args:
        model: fp32 on the CPU. Its weights are copied: train first, export then.
        quantised: 8-bit matrices.
    """

    def __init__(self, model: FinGPT, *, quantised: bool) -> None:
        if model.embedding.weight.dtype != torch.float32 or model.embedding.weight.device.type != "cpu":
            raise ValueError(
                f"want a model in float32 on the cpu, was {model.embedding.weight.dtype} on "
                f"{model.embedding.weight.device}"
            )
        self.config = model.config
        self._model = model
        runtime = _package("onnxruntime")
        options = runtime.SessionOptions()
        # Two threads on a busy machine took a step from 1 to 240 ms: one waits for the other to be scheduled.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        data = step_graph(model, quantised=quantised).SerializeToString()
        self._session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        context = self.config.context
        position = np.arange(context)
        # What a query at ring row s may not see: its own row, which still holds the lap before; on the first lap the
        # rows after it too. Its own key and value join inside the graph.
        self._full = np.where(position[None, :] == position[:, None], _HIDDEN, np.float32(0.0))  # (C, C)
        self._first = np.where(position[None, :] >= position[:, None], _HIDDEN, np.float32(0.0))  # (C, C)

    def symbol_index(self, name: str) -> int:
        return self._model.symbol_index(name)

    def new_cache(self, slots: int) -> KVCache:
        return self._model.new_cache(slots)

    def prefill(self, tokens: Tensor, hours: Tensor | None, symbol: Tensor | None, cache: KVCache, slot: int) -> Tensor:
        return self._model.prefill(tokens, hours, symbol, cache, slot)

    def step(
        self, tokens: Tensor, hours: Tensor | None, symbols: Tensor | None, cache: KVCache, slots: Sequence[int]
    ) -> Tensor:
        """`FinGPT.step`: tokens (B,), hours (B,), symbols (B,) int64; B different slots -> logits (B, V).

        Numerics: rows of the cache that were never written must be finite, as a new cache has them. The products
                  of integers are summed in another order on processors with other instructions: there `onnx-w8`
                  differs by rounding, as fp32 does.
        """
        if len(set(slots)) != len(slots):
            raise ValueError(f"slots of one step must differ, was {tuple(slots)}")
        feed: dict[str, npt.NDArray[Any]] = {}
        token_rows = tokens.numpy()
        given = {"hour": hours if self.config.hours else None, "symbol": symbols if self.config.symbols else None}
        if self.config.hours and hours is None:
            raise ValueError("this model is conditioned on the hour of week: hours are needed, was None")
        if self.config.symbols and symbols is None:
            given["symbol"] = torch.zeros_like(tokens)
        extra = {name: value.numpy() for name, value in given.items() if value is not None}
        store = cache.store.numpy()  # (2, L, slots, K, C, D), the cache's own memory
        logits = np.empty((len(slots), self.config.vocabulary), dtype=np.float32)
        for i, slot in enumerate(slots):
            feed["token"] = token_rows[i : i + 1]
            for name, value in extra.items():
                feed[name] = value[i : i + 1]
            logits[i] = self._one(feed, cache, slot, store)
        return torch.from_numpy(logits)

    def _one(self, feed: dict[str, npt.NDArray[Any]], cache: KVCache, slot: int, store: Floats) -> Floats:
        """Append one token to one slot; logits (V,)."""
        plan = cache.begin_step((slot,))
        row = plan.row  # of one sequence there is one
        half = self.config.head_dim // 2
        # Sliced by numpy, in a quarter of PyTorch's 20 us.
        feed["cos"] = plan.cos.numpy().reshape(1, -1)[:, :half]  # (1, D/2)
        feed["sin"] = plan.sin.numpy().reshape(1, -1)[:, half:]  # (1, D/2)
        feed["bias"] = (self._full if cache.counts[slot] >= self.config.context else self._first)[row]  # (C,)
        for layer in range(self.config.layers):
            feed[f"k{layer}"], feed[f"v{layer}"] = store[0, layer, slot], store[1, layer, slot]  # (K, C, D) each
        logits, new = self._session.run(None, feed)
        store[:, :, slot, :, row] = new
        cache.advance((slot,))
        return logits[0]


def step_graph(model: FinGPT, *, quantised: bool) -> Any:
    """One decoding step as an ONNX model (opset 18 and the contributed operators of ONNX Runtime).

    Inputs:   token (1,) int64, where the model is conditioned on them hour (1,) and symbol (1,) int64; cos and sin
              (1, D/2) of the token's angle; bias (C,), added to the scores of the ring's rows; k0, v0, k1, ...: the
              ring of each layer, (K, C, D).
    Outputs:  logits (1, V); new (2, L, K, D): keys, then values of the token, to be written to the ring.

    Raises:
        FormError: the package onnx is not installed.
    """
    config = model.config
    graph = _Graph(quantised)
    group, d, kv_heads = config.heads // config.kv_heads, config.head_dim, config.kv_heads
    unit, unit_head = graph.const(np.ones(config.width, np.float32)), graph.const(np.ones(d, np.float32))
    x = graph.op("Gather", graph.const(model.embedding.weight), "token")  # (1, W)
    for name, table in (("hour", model.hour_embedding), ("symbol", model.symbol_embedding)):
        if table is not None:
            x = graph.op("Add", x, graph.op("Gather", graph.const(table.weight), name))
    x = graph.norm(x, unit)
    y = graph.norm(x, unit)
    keys, values = [], []
    zero, scale = graph.shape(0), graph.const(np.array(d**-0.5, np.float32))
    position = graph.op("Reshape", zero, graph.shape(1, 1))
    blocks = [block for block in model.blocks if isinstance(block, Block)]
    for layer, block in enumerate(blocks):
        qkv = graph.op("Reshape", graph.matmul(y, block.attention.qkv.weight), graph.shape(1, -1, 1, d))
        qk, v = graph.split(qkv, 1, config.heads + kv_heads, kv_heads)
        turned = graph.op("RotaryEmbedding", graph.norm(qk, unit_head), position, "cos", "sin", domain=_CONTRIB)
        q, k = graph.split(turned, 1, config.heads, kv_heads)
        q = graph.op("Reshape", graph.op("Mul", q, scale), graph.shape(kv_heads, group, d))
        k, v = (graph.op("Reshape", part, graph.shape(kv_heads, 1, d)) for part in (k, v))
        ring = graph.op("Add", graph.op("FusedMatMul", q, f"k{layer}", domain=_CONTRIB, transB=1), "bias")  # (K, G, C)
        own = graph.op("FusedMatMul", q, k, domain=_CONTRIB, transB=1)  # (K, G, 1)
        weights = graph.op("Softmax", graph.op("Concat", ring, own, axis=2), axis=-1)  # (K, G, C + 1)
        ring, own = graph.split(weights, 2, config.context, 1)
        y = graph.op("Add", graph.op("MatMul", ring, f"v{layer}"), graph.op("Mul", own, v))  # (K, G, D)
        y = graph.op("Reshape", y, graph.shape(1, config.width))
        y, x = graph.add_norm(x, graph.matmul(y, block.attention.out.weight), unit)
        up = graph.op("Relu", graph.matmul(y, block.mlp.up.weight))
        y, x = graph.add_norm(x, graph.matmul(graph.op("Mul", up, up), block.mlp.down.weight), unit)
        keys.append(k)
        values.append(v)
    graph.op("MatMul", y, graph.const(model.head.weight.T), name="logits")
    new = graph.op("Concat", *keys, *values, axis=0)  # (2 L K, 1, D)
    graph.op("Reshape", new, graph.shape(2, config.layers, kv_heads, d), name="new")
    integers = ["token", *(["hour"] if config.hours else []), *(["symbol"] if config.symbols else [])]
    floats = {"cos": (1, d // 2), "sin": (1, d // 2), "bias": (config.context,)}
    for layer in range(config.layers):
        floats[f"k{layer}"] = floats[f"v{layer}"] = (kv_heads, config.context, d)
    outputs = {"logits": (1, config.vocabulary), "new": (2, config.layers, kv_heads, d)}
    return graph.model(integers, floats, outputs)


def quantise(weight: Floats, block: int = BLOCK) -> tuple[npt.NDArray[np.uint8], Floats]:
    """8-bit integers and scales of a matrix, symmetric within each block of a row; 128 stands for zero.

    Shapes:   weight (N, F), F padded with zeros to a multiple of `block` -> (N, F / block, block), (N, F / block).
    """
    rows, columns = weight.shape
    blocks = -(-columns // block)
    padded = np.zeros((rows, blocks * block), np.float32)
    padded[:, :columns] = weight
    parts = padded.reshape(rows, blocks, block)
    scale = np.abs(parts).max(axis=2) / np.float32(127.0)  # (N, blocks)
    scale[scale == 0.0] = 1.0
    codes = np.rint(parts / scale[:, :, None]) + 128.0
    return codes.astype(np.uint8), scale.astype(np.float32)


class _Graph:
    """Nodes and constants of an ONNX graph under way; values go by their names."""

    def __init__(self, quantised: bool) -> None:
        self._onnx = _package("onnx")
        self._quantised = quantised
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._shapes: dict[tuple[int, ...], str] = {}

    def op(self, kind: str, *inputs: str, domain: str = "", name: str = "", **attributes: Any) -> str:
        name = name or f"x{len(self._nodes)}"
        node = self._onnx.helper.make_node(kind, list(inputs), [name], domain=domain, **attributes)
        self._nodes.append(node)
        return name

    def split(self, x: str, axis: int, *sizes: int) -> tuple[str, str]:
        first, second = (f"x{len(self._nodes)}.{i}" for i in range(2))
        node = self._onnx.helper.make_node("Split", [x, self.shape(*sizes)], [first, second], axis=axis)
        self._nodes.append(node)
        return first, second

    def const(self, value: Tensor | npt.NDArray[Any]) -> str:
        array = value.detach().numpy() if isinstance(value, Tensor) else value
        name = f"c{len(self._constants)}"
        # np.array, not ascontiguousarray: that one makes a vector of a single number.
        self._constants.append(self._onnx.numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def shape(self, *sizes: int) -> str:
        if sizes not in self._shapes:
            self._shapes[sizes] = self.const(np.array(sizes, dtype=np.int64))
        return self._shapes[sizes]

    def matmul(self, x: str, weight: Tensor) -> str:
        """x (1, F) times weight (N, F) transposed -> (1, N)."""
        if not self._quantised:
            return self.op("MatMul", x, self.const(weight.T))
        codes, scale = quantise(weight.detach().numpy())
        rows, columns = weight.shape
        # Accuracy level 4 is integer arithmetic; level 0 widens the weights first, 8 to 50 times slower.
        sizes: dict[str, Any] = {"K": columns, "N": rows, "bits": 8, "block_size": BLOCK, "accuracy_level": 4}
        return self.op("MatMulNBits", x, self.const(codes), self.const(scale.reshape(-1)), domain=_CONTRIB, **sizes)

    def norm(self, x: str, unit: str) -> str:
        return self.op("SimplifiedLayerNormalization", x, unit, axis=-1, epsilon=EPS, stash_type=1)

    def add_norm(self, x: str, y: str, unit: str) -> tuple[str, str]:
        """The norm of x + y, and x + y."""
        norm, total = (f"x{len(self._nodes)}.{i}" for i in range(2))
        kind = "SkipSimplifiedLayerNormalization"
        outputs = [norm, "", "", total]
        self._nodes.append(self._onnx.helper.make_node(kind, [x, y, unit], outputs, domain=_CONTRIB, epsilon=EPS))
        return norm, total

    def model(
        self, integers: Sequence[str], floats: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]]
    ) -> Any:
        helper, kinds = self._onnx.helper, self._onnx.TensorProto
        inputs = [helper.make_tensor_value_info(name, kinds.INT64, [1]) for name in integers]
        inputs += [helper.make_tensor_value_info(name, kinds.FLOAT, shape) for name, shape in floats.items()]
        results = [helper.make_tensor_value_info(name, kinds.FLOAT, shape) for name, shape in outputs.items()]
        graph = helper.make_graph(self._nodes, "step", inputs, results, self._constants)
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid(_CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise FormError(
            f"an exported form needs the package {name}, which is not installed: pip install 'ticktorch[export]', or "
            "choose the form eager"
        ) from None
