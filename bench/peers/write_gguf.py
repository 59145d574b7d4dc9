"""Writes a Qwen3 safetensors checkpoint as GGUF, for llama.cpp.

    python write_gguf.py CHECKPOINT_DIR OUT.gguf f16|q8_0|q4_0

The usual converter comes with llama.cpp's sources and not as a package; the `gguf` package has its parts: tensor names, quantizer and
writer. As there, gains stay float32 and all matrices, the embedding too, take the type asked for. The tokenizer is a
dummy: the measurements feed ids.
"""

import json
import sys
from pathlib import Path

import gguf
import torch
from safetensors import safe_open

TYPES = {
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}


def write_header(writer: gguf.GGUFWriter, config: dict, file_type: gguf.LlamaFileType) -> None:
    """The keys that llama.cpp asks of this architecture."""
    writer.add_name("seeded random weights")
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    # llama.cpp will not run without a tokenizer, nor with one that has no merge rule.
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([f"<unused{i}>" for i in range(config["vocab_size"])])
    writer.add_token_types([gguf.TokenType.UNUSED] * config["vocab_size"])
    writer.add_token_merges(["a b"])


def main(checkpoint: Path, target: Path, type_name: str) -> None:
    tensor_type, file_type = TYPES[type_name]
    config = json.loads((checkpoint / "config.json").read_text())
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config["num_hidden_layers"])
    # Through a temporary file: the whole model never lies in memory.
    writer = gguf.GGUFWriter(target, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.QWEN3], use_temp_file=True)
    write_header(writer, config, file_type)
    with safe_open(checkpoint / "model.safetensors", framework="pt") as tensors:
        for name in tensors.keys():
            values = tensors.get_tensor(name).to(torch.float32).numpy()
            gguf_name = names.get_name(name, try_suffixes=(".weight",))
            if gguf_name is None:
                raise ValueError(f"{name}: expected a tensor of Qwen3")
            if values.ndim == 1:
                writer.add_tensor(gguf_name, values)
            else:
                writer.add_tensor(gguf_name, gguf.quants.quantize(values, tensor_type), raw_dtype=tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[3] not in TYPES:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
