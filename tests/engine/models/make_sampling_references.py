#!/usr/bin/env python3
"""Greedy continuations and log probabilities by Hugging Face transformers of some checkpoints under references/.

    python make_sampling_references.py            # writes sampling_references.json, some seconds on one core
    python make_sampling_references.py --check    # computes again and compares with what is committed

Per case
    model, repetition_penalty, logit_bias, min_tokens, stop_ids, presence_penalty, frequency_penalty
    prompt_ids, output_ids      the argmax of what transformers' SequenceBias, RepetitionPenalty and
                                MinNewTokensLength make of the logits; presence and frequency penalties, which
                                transformers lacks, behind the repetition penalty as the OpenAI API documents them
    logprobs, top               log_softmax of the unmodified logits: at each output token, and the TOP largest
    prompt_logprobs, prompt_top the same of prompt_ids[1:]
Everything in f32 on one thread, without a cache. A case whose two best scores ever come closer than MIN_GAP, or
whose changes do not change the continuation, is refused.
"""

import argparse
import json
import math
import pathlib
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.generation import logits_process as hf

NUM_TOKENS, TOP, MIN_GAP = 24, 5, 1e-3
CASES = [
    {"model": "llama3_rope", "repetition_penalty": 1.4},
    {"model": "llama3_rope", "repetition_penalty": 0.8, "presence_penalty": 1.0, "frequency_penalty": 0.6},
    {"model": "mistral_window", "presence_penalty": 1.7},
    {"model": "mistral_window", "min_tokens": 12, "stop_first": 3},
    {"model": "qwen3", "frequency_penalty": 0.9, "bias_second": 2.5},
    {"model": "qwen3", "repetition_penalty": 1.3, "bias_second": 1.0, "min_tokens": 9, "stop_first": 4},
]


def top_of(logprobs):
    best = torch.topk(logprobs, TOP)
    return [[index, rounded(value)] for value, index in zip(best.values.tolist(), best.indices.tolist())]


def rounded(value):
    return float(f"{value:.7g}")


@torch.no_grad()
def run(model, case, prompt, plain):
    """`plain`: the continuation without changes, from which stop and biased ids are taken."""
    case = dict(case)
    if "stop_first" in case:
        case["stop_ids"] = sorted(set(plain[:case.pop("stop_first")]))
    if "bias_second" in case:
        case["logit_bias"] = {str(plain[1]): -3.0, str(plain[5]): case.pop("bias_second")}
    ids, logprobs, top, gap = list(prompt), [], [], math.inf
    for _ in range(NUM_TOKENS):
        raw = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
        scores, sofar = raw[None].clone(), torch.tensor([ids])
        bias = {(int(token),): value for token, value in case.get("logit_bias", {}).items()}
        if bias:
            scores = hf.SequenceBiasLogitsProcessor(bias)(sofar, scores)
        scores = hf.RepetitionPenaltyLogitsProcessor(case.get("repetition_penalty", 1.0))(sofar, scores)
        count = torch.bincount(torch.tensor(ids[len(prompt):], dtype=torch.long), minlength=raw.shape[0]).float()
        scores = (scores - count * case.get("frequency_penalty", 0.0)
                  - (count > 0) * case.get("presence_penalty", 0.0))
        if case.get("min_tokens"):
            scores = hf.MinNewTokensLengthLogitsProcessor(len(prompt), case["min_tokens"], case["stop_ids"])(sofar,
                                                                                                          scores)
        best = torch.topk(scores[0], 2)
        gap = min(gap, (best.values[0] - best.values[1]).item())
        token = best.indices[0].item()
        log_softmax = torch.log_softmax(raw.double(), dim=-1)
        ids.append(token)
        logprobs.append(rounded(log_softmax[token].item()))
        top.append(top_of(log_softmax))
        if token in case.get("stop_ids", []):
            break
    return case, ids[len(prompt):], logprobs, top, gap


@torch.no_grad()
def build():
    folder = pathlib.Path(__file__).parent / "references"
    cases = []
    for case in CASES:
        model = AutoModelForCausalLM.from_pretrained(folder / case["model"], dtype=torch.float32,
                                                     attn_implementation="eager").eval()
        prompt = json.loads((folder / case["model"] / "reference.json").read_text())["prompt_ids"]
        plain = run(model, {}, prompt, [])[1]
        resolved, output, logprobs, top, gap = run(model, case, prompt, plain)
        assert gap > MIN_GAP, (case, gap)
        assert output != plain, case
        of_prompt = torch.log_softmax(model(torch.tensor([prompt]), use_cache=False).logits[0].double(), dim=-1)
        cases.append({**resolved, "prompt_ids": prompt, "output_ids": output, "logprobs": logprobs, "top": top,
                      "prompt_logprobs": [rounded(of_prompt[i, token].item()) for i, token in enumerate(prompt[1:])],
                      "prompt_top": [top_of(of_prompt[i]) for i in range(len(prompt) - 1)]})
        print(f"{case}: {len(output)} tokens, gap {gap:.4f}", file=sys.stderr)
    return {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0], "cases": cases}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with what is committed instead of writing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    path = pathlib.Path(__file__).with_name("sampling_references.json")
    text = json.dumps(build(), separators=(",", ":")).replace('{"model"', '\n{"model"') + "\n"
    if not arguments.check:
        path.write_text(text)
    elif path.read_text() != text:
        sys.exit("different")


if __name__ == "__main__":
    main()
