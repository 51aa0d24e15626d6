#!/usr/bin/env python3
"""Writes rope_references.json: inverse frequencies as Hugging Face transformers computes them.

Each case is a whole config.json (given to our parser as it is), the context length, and what
ROPE_INIT_FUNCTIONS made of it: inverse frequencies (f32, written so that they read back bit for bit) and the
factor on cos and sin. Run with transformers 5 and torch on a CPU; the committed file is its output.
"""

import copy
import json
import pathlib

import torch
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

BASE = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 2, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 32000, "max_position_embeddings": 4096, "rope_theta": 10000.0}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}


def case(name, changes, context=0):
    return {"name": name, "config": {**copy.deepcopy(BASE), **changes}, "max_context_len": context}


CASES = [
    case("default", {}),
    case("default theta 1e6 head_dim 64", {"rope_theta": 1e6, "head_dim": 64}),
    case("default kind named", {"rope_scaling": {"rope_type": "default"}}),
    case("default in rope_parameters", {"rope_theta": None,
                                        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}),
    case("linear old key", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    case("linear new key", {"rope_scaling": {"rope_type": "linear", "factor": 2.5}}),
    case("dynamic at its own length", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
    case("dynamic longer", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 8192),
    case("dynamic longer new key", {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}, "head_dim": 64}, 12289),
    case("llama3 of Llama-3.1-8B", {"rope_theta": 500000.0, "max_position_embeddings": 131072,
                                    "rope_scaling": {"rope_type": "llama3", **LLAMA3}}),
    case("llama3 of Llama-3.2-1B", {"rope_theta": 500000.0, "max_position_embeddings": 131072,
                                    "hidden_size": 2048, "head_dim": 64,
                                    "rope_scaling": {"rope_type": "llama3", **LLAMA3, "factor": 32.0}}),
    case("llama3 in rope_parameters", {"rope_theta": None, "max_position_embeddings": 131072,
                                       "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, **LLAMA3}}),
    case("yarn of Qwen3", {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "rope_theta": 1e6,
                           "head_dim": 128, "max_position_embeddings": 32768,
                           "rope_scaling": {"rope_type": "yarn", "factor": 4.0,
                                            "original_max_position_embeddings": 32768}}),
    case("yarn old key, length from the model", {"rope_scaling": {"type": "yarn", "factor": 16.0}}),
    case("yarn with betas, not truncated", {"rope_scaling": {"rope_type": "yarn", "factor": 8.0, "beta_fast": 24,
                                                             "beta_slow": 2, "truncate": False,
                                                             "original_max_position_embeddings": 2048}}),
    case("yarn with attention factor", {"rope_scaling": {"rope_type": "yarn", "factor": 8.0,
                                                         "attention_factor": 1.25,
                                                         "original_max_position_embeddings": 2048}}),
    case("yarn with mscale", {"rope_scaling": {"rope_type": "yarn", "factor": 40.0, "mscale": 0.707,
                                               "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096}}),
    case("yarn without factor", {"max_position_embeddings": 16384,
                                 "rope_scaling": {"rope_type": "yarn", "factor": None,
                                                  "original_max_position_embeddings": 4096}}),
    case("yarn tiny head", {"hidden_size": 64, "num_attention_heads": 8, "head_dim": 16,
                            "max_position_embeddings": 256,
                            "rope_scaling": {"rope_type": "yarn", "factor": 4.0,
                                             "original_max_position_embeddings": 64}}),
]


def main():
    for entry in CASES:
        values = {k: v for k, v in copy.deepcopy(entry["config"]).items() if k != "model_type" and v is not None}
        config = AutoConfig.for_model(entry["config"]["model_type"], **values)
        kind = config.rope_parameters["rope_type"]
        if kind == "default":
            frequencies, factor = LlamaRotaryEmbedding.compute_default_rope_parameters(config)
        else:
            frequencies, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=entry["max_context_len"] or None)
        assert frequencies.dtype == torch.float32
        entry["inverse_frequencies"] = [float(f"{value:.9g}") for value in frequencies.tolist()]
        entry["attention_factor"] = float(factor)
    path = pathlib.Path(__file__).with_name("rope_references.json")
    with path.open("w") as file:
        file.write("[\n" + ",\n".join(json.dumps(entry) for entry in CASES) + "\n]\n")
    print(f"{path.name}: {len(CASES)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
