"""Completions as a textbook would write them: what the engine's are held against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from ccai.base.params import Generation
from ccai.base.records import Message
from ccai.engines.sampling import gumbel


class Textbook:
    """transformers' own forward pass and cache, one row at a time; probabilities in float64."""

    def __init__(self, folder: Path, adapter: Path | None = None) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        base = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa")
        self.model = (base if adapter is None else PeftModel.from_pretrained(base, adapter)).eval()
        self.end = base.generation_config.eos_token_id

    @torch.inference_mode()
    def decode(self, messages: tuple[Message, ...], seed: int, limit: int, sampling: Generation) -> dict[str, Any]:
        turns = [message.model_dump() for message in messages]
        prompt = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
        new, past, written = prompt, None, list[int]()
        while len(written) < limit:
            answer = self.model(input_ids=torch.tensor([new]), past_key_values=past, use_cache=True, logits_to_keep=1)
            past, logits = answer.past_key_values, answer.logits[0, -1].double().numpy()
            for token in set(written):
                logits[token] *= sampling.repetition_penalty ** -np.sign(logits[token])
            if not written:
                logits[self.end] = -np.inf
            likely = np.exp((logits - logits.max()) / sampling.temperature)
            likely[likely < sampling.min_p * likely.max()] = 0
            ids = torch.arange(len(likely))
            noise = gumbel(torch.full_like(ids, seed), torch.full_like(ids, len(written)), ids).numpy()
            with np.errstate(divide="ignore"):
                token = int((np.log(likely) + noise).argmax())
            if token == self.end:
                break
            written.append(token)
            new = [token]
        return {
            "text": self.tokenizer.decode(written, skip_special_tokens=True).strip(),
            "finish_reason": "length" if len(written) == limit else "stop",
            "prompt_tokens": len(prompt),
            "completion_tokens": len(written),
        }
