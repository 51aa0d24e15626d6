#!/usr/bin/env python3
"""Builds tiny random checkpoints and what Hugging Face transformers computes from them.

    python make_references.py            # writes references/, some seconds on one core
    python make_references.py --check    # builds again beside it and compares with what is committed

Layout, one folder per model under references/:

    NAME/config.json                     half of them in the spelling of transformers 4 (rope_theta, rope_scaling,
                                         torch_dtype), half in that of transformers 5 (rope_parameters, dtype)
    NAME/generation_config.json
    NAME/model.safetensors               or model.safetensors.index.json with shards; f32, bf16 or f16
    NAME/reference.json
        prompt_ids       [40]            random ids
        greedy_ids       [64]            the continuation by argmax; eos_token_id of config.json is not in it
        positions        [4]             places in prompt_ids + greedy_ids
        logits           [4][vocab]      f32 logits at those places: the distribution of the token that follows.
                                         positions[2] is the last of the prompt, positions[3] the last of all
        max_context_len                  for ModelConfig::inverse_frequencies; the dynamic rope uses its
                                         frequencies from the first token on
        min_top2_gap                     smallest distance between the two best logits over the 64 greedy steps
        max_abs_logit
        file_dtype

Everything is computed in f32 on one CPU thread from the weights as the file stores them (bf16 and f16 are widened
exactly), with eager attention and without a cache, by the model that transformers itself loads from the folder.
Query heads are 8, so that each model can be cut for 1, 2, 4 and 8 ranks.

Seeds are tried in order until the logits' standard deviation is at least 1, 20 different tokens appear in the
continuation and the smallest gap is above MIN_GAP. Each model's feature is then switched off, and the logits
must move: a reference that a model without the feature also meets would test nothing.
"""

import argparse
import copy
import filecmp
import json
import math
import pathlib
import shutil
import sys
import tempfile

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

PROMPT_LEN = 40
NUM_GREEDY = 64
MAX_CONTEXT = PROMPT_LEN + NUM_GREEDY
MIN_GAP = 5e-3
MIN_STD = 1.0
MIN_DISTINCT = 20
MIN_EFFECT = 0.2  # of a feature on some logit

LLAMA, MISTRAL = ("LlamaForCausalLM", "llama"), ("MistralForCausalLM", "mistral")
QWEN2, QWEN3 = ("Qwen2ForCausalLM", "qwen2"), ("Qwen3ForCausalLM", "qwen3")


def model(architecture, file_dtype, new_spelling=False, shards=False, feature_off=None, **fields):
    """feature_off: changes to config.json without which (None removes a field) the logits must differ."""
    base = {"architectures": [architecture[0]], "model_type": architecture[1], "hidden_act": "silu",
            "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 8,
            "num_key_value_heads": 4, "head_dim": 16, "vocab_size": 288, "max_position_embeddings": 256,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False, "bos_token_id": 0}
    return {"config": {**base, **fields}, "file_dtype": file_dtype, "new_spelling": new_spelling,
            "shards": shards, "feature_off": feature_off}


def without(*fields):
    return {field: None for field in fields}


MODELS = {
    # head_dim is not written: hidden_size / num_attention_heads.
    "llama_tied": model(LLAMA, "float16", hidden_size=128, head_dim=None, tie_word_embeddings=True),
    "llama3_rope": model(LLAMA, "bfloat16", shards=True, num_hidden_layers=3, num_key_value_heads=2,
                         rope_theta=500000.0, feature_off=without("rope_scaling"),
                         rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                       "high_freq_factor": 4.0, "original_max_position_embeddings": 32}),
    "llama_bias": model(LLAMA, "float16", new_spelling=True, num_key_value_heads=8, vocab_size=272,
                        attention_bias=True, mlp_bias=True),
    "llama_rope_linear": model(LLAMA, "bfloat16", feature_off=without("rope_scaling"),
                               rope_scaling={"type": "linear", "factor": 4.0}),
    "llama_rope_dynamic": model(LLAMA, "bfloat16", new_spelling=True, max_position_embeddings=32,
                                feature_off=without("rope_scaling"),
                                rope_scaling={"rope_type": "dynamic", "factor": 4.0}),
    "mistral_window": model(MISTRAL, "bfloat16", num_key_value_heads=2, intermediate_size=192, sliding_window=16,
                            feature_off={"sliding_window": None}),
    "qwen2": model(QWEN2, "float32", new_spelling=True, rope_theta=1000000.0, vocab_size=320),
    "qwen2_tied": model(QWEN2, "float16", num_key_value_heads=2, tie_word_embeddings=True),
    "qwen2_mixed_window": model(QWEN2, "bfloat16", num_hidden_layers=3, use_sliding_window=True,
                                sliding_window=12, max_window_layers=1,
                                feature_off={"use_sliding_window": False}),
    "qwen3": model(QWEN3, "bfloat16", new_spelling=True, rope_theta=1000000.0, tie_word_embeddings=True,
                   num_key_value_heads=2, intermediate_size=192),
    "qwen3_yarn": model(QWEN3, "bfloat16", rope_theta=1000000.0, feature_off=without("rope_scaling"),
                        rope_scaling={"rope_type": "yarn", "factor": 4.0,
                                      "original_max_position_embeddings": 64}),
}


def config_json(entry, eos_token_id):
    """The file's content, in the old or the new spelling."""
    # A copy: transformers writes rope_theta into the block it is given.
    config = copy.deepcopy({key: value for key, value in entry["config"].items()
                            if value is not None or key == "sliding_window"})
    config["eos_token_id"] = eos_token_id
    if entry["new_spelling"]:
        rope = {"rope_type": "default", "rope_theta": config.pop("rope_theta")}
        rope.update(config.pop("rope_scaling", {}))
        config["rope_parameters"] = rope
        config["dtype"] = entry["file_dtype"]
    else:
        config["torch_dtype"] = entry["file_dtype"]
    return config


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def random_model(config, seed):
    """Weights at which a random model neither fades nor explodes, with norms and biases that matter."""
    generator = torch.Generator().manual_seed(seed)
    random = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in sorted(random.named_parameters()):
            values = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                values = 1 + 0.2 * values
            elif name.endswith("bias"):
                values = 0.5 * values
            elif "embed_tokens" in name and not config.tie_word_embeddings:
                pass
            elif "embed_tokens" in name or "lm_head" in name:
                values = values * 2 / math.sqrt(parameter.shape[1])
            else:
                values = values * 1.5 / math.sqrt(parameter.shape[1])
            parameter.copy_(values)
    return random


def load(folder):
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    loaded.eval()
    rotary = loaded.model.rotary_emb
    if rotary.rope_type == "dynamic":
        # One set of frequencies for every token, as a cache of rotated keys needs it.
        rotary.inv_freq, rotary.attention_scaling = ROPE_INIT_FUNCTIONS["dynamic"](loaded.config,
                                                                                  seq_len=MAX_CONTEXT)
        rotary.max_seq_len_cached, rotary.original_max_seq_len = MAX_CONTEXT, 0
    return loaded


@torch.no_grad()
def logits_of(loaded, ids):
    return loaded(torch.tensor([ids]), use_cache=False).logits[0]


def continue_greedily(loaded, prompt):
    ids, gap = list(prompt), math.inf
    for _ in range(NUM_GREEDY):
        best = torch.topk(logits_of(loaded, ids)[-1], 2)
        gap = min(gap, (best.values[0] - best.values[1]).item())
        ids.append(best.indices[0].item())
    return ids[len(prompt):], gap


def build(name, entry, folder, seed):
    """Writes the folder from `seed`; None where the seed does not serve."""
    folder.mkdir(parents=True)
    fields = {key: value for key, value in config_json(entry, None).items() if key not in ("model_type", "dtype")}
    config = AutoConfig.for_model(entry["config"]["model_type"], **fields)
    shard_size = "150KB" if entry["shards"] else "50GB"
    random_model(config, seed).to(getattr(torch, entry["file_dtype"])).save_pretrained(folder,
                                                                                       max_shard_size=shard_size)
    write_json(folder / "config.json", config_json(entry, None))
    loaded = load(folder)
    generator = torch.Generator().manual_seed(seed)
    prompt = torch.randint(0, config.vocab_size, (PROMPT_LEN,), generator=generator).tolist()
    greedy, gap = continue_greedily(loaded, prompt)
    logits = logits_of(loaded, prompt + greedy)
    if gap <= MIN_GAP or len(set(greedy)) < MIN_DISTINCT or logits.std().item() < MIN_STD:
        return None

    eos = next(token for token in range(2, config.vocab_size) if token not in greedy)
    write_json(folder / "config.json", config_json(entry, eos))
    write_json(folder / "generation_config.json", {"bos_token_id": 0, "eos_token_id": eos, "do_sample": False})
    positions = [0, 17, PROMPT_LEN - 1, MAX_CONTEXT - 1]
    reference = {
        "transformers": transformers.__version__, "torch": torch.__version__.split("+")[0], "seed": seed,
        "file_dtype": entry["file_dtype"], "max_context_len": MAX_CONTEXT, "min_top2_gap": round(gap, 6),
        "max_abs_logit": round(logits.abs().max().item(), 4), "prompt_ids": prompt, "greedy_ids": greedy,
        "positions": positions,
        "logits": [[float(f"{value:.8g}") for value in logits[position].tolist()] for position in positions],
    }
    (folder / "reference.json").write_text(json.dumps(reference, separators=(",", ":")) + "\n")
    effect = feature_effect(entry, folder, prompt + greedy, logits)
    print(f"{name:20} seed {seed:3}  std {logits.std().item():5.2f}  distinct {len(set(greedy)):2}  "
          f"min gap {gap:.4f}  feature moves a logit by {effect}  "
          f"{sum(file.stat().st_size for file in folder.iterdir()) // 1024} KiB")
    return reference


def feature_effect(entry, folder, ids, logits):
    """Largest change of a logit without the feature: feature_off, else biases and the norms of q and k."""
    if entry["feature_off"] is not None:
        with tempfile.TemporaryDirectory() as scratch:
            other = pathlib.Path(scratch) / "other"
            shutil.copytree(folder, other)
            changed = {**entry, "config": {**entry["config"], **entry["feature_off"]}}
            write_json(other / "config.json", config_json(changed, None))
            effect = (logits_of(load(other), ids) - logits).abs().max().item()
    else:
        plain = load(folder)
        touched = [parameter for name, parameter in plain.named_parameters()
                   if name.endswith(("bias", "q_norm.weight", "k_norm.weight"))]
        if not touched:
            return "-"
        with torch.no_grad():
            for parameter in touched:
                parameter.fill_(1 if parameter.shape[0] == plain.config.head_dim else 0)
        effect = (logits_of(plain, ids) - logits).abs().max().item()
    assert effect > MIN_EFFECT, (folder.name, effect)
    return f"{effect:.2f}"


def check_dynamic(folder):
    """At its full length the fixed frequencies are those transformers computes for it by itself."""
    reference = json.loads((folder / "reference.json").read_text())
    untouched = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    ids = reference["prompt_ids"] + reference["greedy_ids"]
    assert len(ids) == MAX_CONTEXT
    difference = (logits_of(untouched.eval(), ids)[-1] - torch.tensor(reference["logits"][-1])).abs().max().item()
    assert difference < 1e-4, difference


def build_all(target, names):
    for name in names:
        for seed in range(200):
            shutil.rmtree(target / name, ignore_errors=True)
            if build(name, MODELS[name], target / name, seed) is not None:
                break
        else:
            sys.exit(f"{name}: no seed serves")
    if "llama_rope_dynamic" in names:
        check_dynamic(target / "llama_rope_dynamic")
    total = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    print(f"{total / 1e6:.2f} MB")
    assert total < 4e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with what is committed instead of writing")
    parser.add_argument("names", nargs="*", default=list(MODELS), help="models (all)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    committed = pathlib.Path(__file__).parent / "references"
    if not arguments.check:
        return build_all(committed, arguments.names)
    with tempfile.TemporaryDirectory() as scratch:
        build_all(pathlib.Path(scratch), arguments.names)
        different = [str(file.relative_to(scratch)) for file in sorted(pathlib.Path(scratch).rglob("*"))
                     if file.is_file() and not filecmp.cmp(file, committed / file.relative_to(scratch), False)]
        sys.exit("different: " + ", ".join(different) if different else None)


if __name__ == "__main__":
    main()
