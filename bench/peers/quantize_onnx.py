"""Makes the dynamically quantized int8 model of ONNX Runtime from the float32 one: `python quantize_onnx.py FP32_DIR OUT_DIR`.

Weights in int8 with a scale for each output, activations in uint8 with one scale for all rows: faster than the exporter's own int8, whose
weights have a scale for every 32 inputs as llama.cpp's q8_0, and coarser.
"""

import shutil
import sys
from pathlib import Path

from onnxruntime.quantization import QuantType, quantize_dynamic


def main(source: Path, target: Path) -> None:
    # The weights' file is appended to where there is one.
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    quantize_dynamic(
        source / "model.onnx",
        target / "model.onnx",
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        use_external_data_format=True,
    )
    shutil.copy(source / "genai_config.json", target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
