"""PyTorch transformers as a peer: `python peer_torch.py JOB`, the job's `variant` being float32 or bfloat16."""

import torch
from measure import Job, measure
from transformers import AutoModelForCausalLM, DynamicCache


class TorchPeer:
    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job["threads"])
        self.model = AutoModelForCausalLM.from_pretrained(job["path"], dtype=getattr(torch, job["variant"]))
        self.cache = DynamicCache()

    def forward(self, ids: list[int]) -> int:
        with torch.inference_mode():
            output = self.model(input_ids=torch.tensor([ids]), past_key_values=self.cache, logits_to_keep=1)
            return int(output.logits[0, -1].argmax())

    def truncate(self, position: int) -> None:
        if position == 0:
            self.cache = DynamicCache()
        else:
            self.cache.crop(position)


measure(TorchPeer)
