"""ONNX Runtime as a peer, through onnxruntime-genai: `python peer_onnx.py JOB`.

onnxruntime-genai keeps keys and values in buffers that the runtime appends to; plain sessions would copy them at every step.
"""

import json

import numpy as np
import onnxruntime_genai as og
from measure import Job, measure


class OnnxPeer:
    def __init__(self, job: Job) -> None:
        config = og.Config(job["path"])
        options = {"intra_op_num_threads": job["threads"]}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self.model = og.Model(config)
        self.params = og.GeneratorParams(self.model)
        # The buffers are made for all positions at once: the model's own 32,768 would take 7 GB.
        self.params.set_search_options(max_length=job["maxPositions"])
        self.generator = og.Generator(self.model, self.params)

    def forward(self, ids: list[int]) -> int:
        self.generator.append_tokens(np.array(ids, dtype=np.int32))
        return int(self.generator.get_logits()[0, -1].argmax())

    def truncate(self, position: int) -> None:
        self.generator.rewind_to(position)


measure(OnnxPeer)
