#!/usr/bin/env python3
"""What Hugging Face transformers makes of random logits before it draws: writes sampling_references.json beside it.

    python make_sampling_references.py            # some seconds on one core
    python make_sampling_references.py --check    # computes again and compares with what is committed

Each case holds the logits of one row, the ids of a prompt and of an output, the parameters, and
    log_softmax     of the logits as they are
    probabilities   after transformers' processors in the order of GenerationMixin._get_logits_processor:
                    SequenceBias, RepetitionPenalty, MinNewTokensLength, Temperature, TopK, TopP, MinP.
Presence and frequency penalties are not in transformers: they are computed here as the OpenAI API documents them,
logit - count * frequency_penalty - (count > 0) * presence_penalty over the output, behind the repetition penalty.
"""

import argparse
import json
import pathlib
import sys

import torch
import transformers
from transformers.generation import logits_process as hf

VOCAB = 96
CASES = [
    {"temperature": 0.7},
    {"temperature": 1.0, "repetition_penalty": 1.3},
    {"temperature": 0.8, "repetition_penalty": 0.6},
    {"temperature": 1.0, "presence_penalty": 1.5},
    {"temperature": 1.0, "frequency_penalty": 0.4},
    {"temperature": 0.9, "presence_penalty": -0.7, "frequency_penalty": -0.2},
    {"temperature": 1.2, "logit_bias": {"3": 4.0, "17": -100.0, "95": 2.5, "0": -1.0}},
    {"temperature": 1.0, "min_tokens": 9, "stop_ids": [2, 5, 40]},
    {"temperature": 0.8, "repetition_penalty": 1.2, "presence_penalty": 0.3, "frequency_penalty": 0.25,
     "logit_bias": {"7": 3.0, "8": -2.0, "40": 6.0}, "min_tokens": 9, "stop_ids": [2, 40]},
    {"temperature": 1.5, "repetition_penalty": 1.1, "top_k": 12, "logit_bias": {"50": 5.0}},
    {"temperature": 1.0, "repetition_penalty": 1.5, "frequency_penalty": 0.5, "top_p": 0.8},
    {"temperature": 1.0, "presence_penalty": 2.0, "min_p": 0.1, "min_tokens": 9, "stop_ids": [11]},
]


def probabilities(case, logits, prompt, output):
    ids, scores = torch.tensor([prompt + output]), logits[None]
    bias = {(int(token),): value for token, value in case.get("logit_bias", {}).items()}
    if bias:
        scores = hf.SequenceBiasLogitsProcessor(bias)(ids, scores)
    scores = hf.RepetitionPenaltyLogitsProcessor(case.get("repetition_penalty", 1.0))(ids, scores)
    count = torch.bincount(torch.tensor(output), minlength=VOCAB).float()
    scores = scores - count * case.get("frequency_penalty", 0.0) - (count > 0) * case.get("presence_penalty", 0.0)
    if case.get("min_tokens"):
        scores = hf.MinNewTokensLengthLogitsProcessor(len(prompt), case["min_tokens"], case["stop_ids"])(ids, scores)
    scores = hf.TemperatureLogitsWarper(case["temperature"])(ids, scores)
    if case.get("top_k"):
        scores = hf.TopKLogitsWarper(case["top_k"])(ids, scores)
    if case.get("top_p"):
        scores = hf.TopPLogitsWarper(case["top_p"])(ids, scores)
    if case.get("min_p"):
        scores = hf.MinPLogitsWarper(case["min_p"])(ids, scores)
    return torch.softmax(scores[0].double(), dim=-1)


def rounded(values):
    return [float(f"{value:.9g}") for value in values.tolist()]


def build():
    cases = []
    for seed, case in enumerate(CASES):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.tensor(rounded(2 * torch.randn(VOCAB, generator=generator)))
        prompt = torch.randint(0, VOCAB, (20,), generator=generator).tolist()
        output = torch.randint(0, 12, (8,), generator=generator).tolist()  # some of them twice and more
        cases.append({**case, "logits": rounded(logits), "prompt_ids": prompt, "output_ids": output,
                      "log_softmax": rounded(torch.log_softmax(logits.double(), dim=-1)),
                      "probabilities": rounded(probabilities(case, logits, prompt, output))})
    return {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0], "cases": cases}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with what is committed instead of writing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = pathlib.Path(__file__).with_name("sampling_references.json")
    text = json.dumps(build(), separators=(",", ":")).replace('{"temperature"', '\n{"temperature"') + "\n"
    if not arguments.check:
        path.write_text(text)
    elif path.read_text() != text:
        sys.exit("different")


if __name__ == "__main__":
    main()
