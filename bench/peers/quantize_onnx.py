"""Makes dynamically quantized int8 models of ONNX Runtime from the float32 one: `python quantize_onnx.py FP32_DIR OUT_DIR [--plain-attention]`.

Weights in int8 with a scale for each output, activations in uint8 with one scale for all rows: faster than the exporter's own int8, whose
weights have a scale for every 32 inputs as llama.cpp's q8_0, and coarser.

`--plain-attention` writes attention out in standard operators before. ONNX Runtime's own GroupQueryAttention, which the exporter uses, is much the
slower one where it was compiled to WebAssembly, and keeps keys and values in place elsewhere.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

PLAIN = "model-plain-attention.onnx"


class PlainAttention:
    """Replaces each GroupQueryAttention of a graph by rotation, concatenation, products and a softmax."""

    def __init__(self, model: onnx.ModelProto, heads: int, kv_heads: int, size: int) -> None:
        self.graph = model.graph
        self.heads, self.kv_heads, self.size = heads, kv_heads, size
        self.nodes: list[onnx.NodeProto] = []
        self.count = 0

    def add(self, op: str, *inputs: str, output: str = "", **attributes: object) -> str:
        self.count += 1
        name = output or f"plain/{self.count}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"plain/{op}/{self.count}", **attributes))
        return name

    def constant(self, *values: int, dtype: type = np.int64, scalar: bool = False) -> str:
        self.count += 1
        array = np.array(values[0] if scalar else values, dtype=dtype)
        self.graph.initializer.append(numpy_helper.from_array(array, f"plain/{self.count}"))
        return f"plain/{self.count}"

    def length(self, of: str) -> str:
        """The second dimension, as a number."""
        return self.add("Gather", self.add("Shape", of), self.constant(1, scalar=True))

    def replace(self) -> None:
        zero, one = self.constant(0, scalar=True), self.constant(1, scalar=True)
        total = self.length("attention_mask")
        rows = self.add("Range", self.add("Sub", total, self.length("input_ids")), total, one)
        self.positions = self.add("Unsqueeze", rows, self.constant(0))  # [1, rows]
        seen = self.add("LessOrEqual", self.add("Range", zero, total, one), self.add("Unsqueeze", rows, self.constant(1)))
        lowest = self.constant(np.finfo(np.float32).min, dtype=np.float32, scalar=True)
        self.mask = self.add("Where", seen, self.constant(0.0, dtype=np.float32, scalar=True), lowest)  # [rows, total]
        shared, self.nodes = self.nodes, []
        replaced: list[onnx.NodeProto] = []
        for node in self.graph.node:
            if node.op_type == "GroupQueryAttention":
                self.layer(node)
                replaced += self.nodes
                self.nodes = []
            else:
                replaced.append(node)
        del self.graph.node[:]
        self.graph.node.extend(shared + replaced)

    def layer(self, node: onnx.NodeProto) -> None:
        query, key, value, past_key, past_value, _, _, cos, sin = node.input[:9]
        out, present_key, present_value = node.output
        heads, kv_heads, size, group = self.heads, self.kv_heads, self.size, self.heads // self.kv_heads

        def rotated(x: str, count: int) -> str:
            return self.add("RotaryEmbedding", x, self.positions, cos, sin, domain="com.microsoft", num_heads=count)

        def by_head(x: str, count: int) -> str:
            return self.add("Transpose", self.add("Reshape", x, self.constant(1, -1, count, size)), perm=[0, 2, 1, 3])

        keys = self.add("Concat", past_key, by_head(rotated(key, kv_heads), kv_heads), axis=2, output=present_key)
        values = self.add("Concat", past_value, by_head(value, kv_heads), axis=2, output=present_value)
        keys = self.add("Unsqueeze", self.add("Transpose", keys, perm=[0, 1, 3, 2]), self.constant(2))  # [1, kv heads, 1, size, total]
        values = self.add("Unsqueeze", values, self.constant(2))
        scale = self.constant(size**-0.5, dtype=np.float32, scalar=True)
        scaled = self.add("Mul", by_head(rotated(query, heads), heads), scale)
        grouped = self.add("Reshape", scaled, self.constant(1, kv_heads, group, -1, size))
        weights = self.add("Softmax", self.add("Add", self.add("MatMul", grouped, keys), self.mask), axis=-1)
        attended = self.add("Reshape", self.add("MatMul", weights, values), self.constant(1, heads, -1, size))
        self.add("Reshape", self.add("Transpose", attended, perm=[0, 2, 1, 3]), self.constant(1, -1, heads * size), output=out)


def write_plain(source: Path) -> Path:
    """Beside the float32 model, whose weights it shares."""
    decoder = json.loads((source / "genai_config.json").read_text())["model"]["decoder"]
    model = onnx.load(source / "model.onnx", load_external_data=False)
    PlainAttention(model, decoder["num_attention_heads"], decoder["num_key_value_heads"], decoder["head_size"]).replace()
    onnx.save(model, source / PLAIN)
    return source / PLAIN


def main(source: Path, target: Path, plain: bool) -> None:
    # The weights' file is appended to where there is one.
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    quantize_dynamic(
        write_plain(source) if plain else source / "model.onnx",
        target / "model.onnx",
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        use_external_data_format=True,
    )
    shutil.copy(source / "genai_config.json", target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), "--plain-attention" in sys.argv[3:])
