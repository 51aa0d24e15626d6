#!/usr/bin/env python3
"""Trains the demo checkpoint on the King James Bible as Debian packages it, from random weights.

    apt-get install bible-kjv bible-kjv-text
    pip install torch tokenizers safetensors
    python3 launch/demo-model/train.py --minutes 45

Writes a plain Hugging Face directory (config.json, generation_config.json, tokenizer.json, tokenizer_config.json,
model.safetensors in bf16) of LlamaForCausalLM, each time the loss on held-out chapters has become lower.
"""

import argparse
import json
import math
import os
import random
import re
import subprocess
import time

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 2046,
    "eos_token_id": 2047,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 256,
    "initializer_range": 0.02,
    "intermediate_size": 704,
    "max_position_embeddings": 512,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 8,
    "num_hidden_layers": 5,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 2048,
}
BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
# The pre-tokenizer of Llama 3: contractions, words with one leading character, runs of up to three digits, ...
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def read_chapters():
    """The text as a list of chapters, each a list of verses."""
    text = subprocess.run(["bible", "-f", "gen1:1-rev22:21"], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, check=True).stdout
    chapters, last = [], None
    for line in text.splitlines():
        reference, verse = line.split(" ", 1)
        chapter = reference.split(":")[0]
        if chapter != last:
            chapters.append([])
            last = chapter
        chapters[-1].append(re.sub(r"\s+", " ", verse).strip())
    return chapters


def train_tokenizer(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"] - 2, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.add_special_tokens([BOS, EOS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B:1", special_tokens=[(BOS, tokenizer.token_to_id(BOS))])
    assert tokenizer.token_to_id(BOS) == CONFIG["bos_token_id"]
    assert tokenizer.token_to_id(EOS) == CONFIG["eos_token_id"]
    return tokenizer


class Block(nn.Module):
    """One decoder layer; the parameter names are those of Hugging Face's Llama."""

    def __init__(self, c):
        super().__init__()
        hidden, inner, dim = c["hidden_size"], c["intermediate_size"], c["head_dim"]
        self.num_heads, self.num_kv_heads, self.head_dim = c["num_attention_heads"], c["num_key_value_heads"], dim
        self.input_layernorm = nn.RMSNorm(hidden, c["rms_norm_eps"])
        self.post_attention_layernorm = nn.RMSNorm(hidden, c["rms_norm_eps"])
        self.self_attn = nn.ModuleDict({
            "q_proj": nn.Linear(hidden, self.num_heads * dim, bias=False),
            "k_proj": nn.Linear(hidden, self.num_kv_heads * dim, bias=False),
            "v_proj": nn.Linear(hidden, self.num_kv_heads * dim, bias=False),
            "o_proj": nn.Linear(self.num_heads * dim, hidden, bias=False)})
        self.mlp = nn.ModuleDict({
            "gate_proj": nn.Linear(hidden, inner, bias=False),
            "up_proj": nn.Linear(hidden, inner, bias=False),
            "down_proj": nn.Linear(inner, hidden, bias=False)})

    def forward(self, x, cos, sin, dropout):
        batch, length, _ = x.shape
        a, h = self.self_attn, self.input_layernorm(x)
        q = a["q_proj"](h).view(batch, length, self.num_heads, self.head_dim).transpose(1, 2)
        k = a["k_proj"](h).view(batch, length, self.num_kv_heads, self.head_dim).transpose(1, 2)
        v = a["v_proj"](h).view(batch, length, self.num_kv_heads, self.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        group = self.num_heads // self.num_kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, length, -1)
        x = x + F.dropout(a["o_proj"](y), dropout, self.training)
        m, h = self.mlp, self.post_attention_layernorm(x)
        y = m["down_proj"](F.silu(m["gate_proj"](h)) * m["up_proj"](h))
        return x + F.dropout(y, dropout, self.training)


def rotate(x, cos, sin):
    """Rotary embedding, halves rotated (the Hugging Face layout)."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


class Llama(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Block(c) for _ in range(c["num_hidden_layers"]))
        self.norm = nn.RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        for name, p in self.named_parameters():
            if p.dim() == 2:
                depth = 2 * c["num_hidden_layers"] if name.endswith(("o_proj.weight", "down_proj.weight")) else 1
                nn.init.normal_(p, std=c["initializer_range"] / math.sqrt(depth))
        frequency = c["rope_theta"] ** (-torch.arange(0, c["head_dim"], 2).float() / c["head_dim"])
        angle = torch.outer(torch.arange(c["max_position_embeddings"]).float(), frequency)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, ids, dropout=0.0):
        x = self.embed_tokens(ids)
        cos, sin = self.cos[:ids.shape[1]], self.sin[:ids.shape[1]]
        for layer in self.layers:
            x = layer(x, cos, sin, dropout)
        return F.linear(self.norm(x), self.embed_tokens.weight)

    def loss(self, ids, dropout=0.0, reduction="mean"):
        with torch.autocast("cpu", torch.bfloat16):
            logits = self(ids[:, :-1], dropout)
        return F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction=reduction)


class Text:
    """Chapters as one stream of tokens: begin-of-text, the verses one per line, end-of-text."""

    def __init__(self, chapters, tokenizer):
        ids, self.starts = [], []
        for verses in chapters:
            ids.append(CONFIG["bos_token_id"])
            encoded = tokenizer.encode_batch([v + ("\n" if i + 1 < len(verses) else "") for i, v in enumerate(verses)],
                                             add_special_tokens=False)
            for e in encoded:
                self.starts.append(len(ids))
                ids += e.ids
            ids.append(CONFIG["eos_token_id"])
        self.ids = torch.tensor(ids)

    def sample(self, rng, batch, length):
        """Windows that begin with begin-of-text and any verse, so that a prompt may be the start of any verse."""
        rows = []
        while len(rows) < batch:
            start = rng.choice(self.starts)
            if start + length <= len(self.ids):
                row = self.ids[start - 1:start + length].clone()
                row[0] = CONFIG["bos_token_id"]
                rows.append(row)
        return torch.stack(rows)

    @torch.no_grad()
    def loss(self, model, length):
        """Nats per token over all of the text, in consecutive windows."""
        model.eval()
        total = count = 0
        for start in range(0, len(self.ids) - 1, length):
            window = self.ids[start:start + length + 1][None]
            total += model.loss(window, reduction="sum").item()
            count += window.shape[1] - 1
        model.train()
        return total / count


@torch.no_grad()
def complete(model, tokenizer, prompt, num_tokens, temperature):
    model.eval()
    ids = tokenizer.encode(prompt).ids
    for _ in range(num_tokens):
        logits = model(torch.tensor([ids]))[0, -1]
        token = (torch.multinomial(torch.softmax(logits / temperature, -1), 1) if temperature else logits.argmax()).item()
        if token == CONFIG["eos_token_id"]:
            break
        ids.append(token)
    model.train()
    return tokenizer.decode(ids)


def save(model, tokenizer, folder):
    """Replaces the files one by one; each is whole at any moment."""
    def replace(name, write):
        path = os.path.join(folder, name)
        write(path + ".new")
        os.replace(path + ".new", path)

    def write_json(value):
        return lambda path: open(path, "w").write(json.dumps(value, indent=2) + "\n")

    weights = {"model." + k: v.detach().to(torch.bfloat16).contiguous() for k, v in model.named_parameters()}
    os.makedirs(folder, exist_ok=True)
    replace("model.safetensors", lambda path: save_file(weights, path, metadata={"format": "pt"}))
    replace("tokenizer.json", lambda path: tokenizer.save(path))
    replace("config.json", write_json(CONFIG))
    replace("generation_config.json", write_json({
        "bos_token_id": CONFIG["bos_token_id"], "eos_token_id": CONFIG["eos_token_id"],
        "do_sample": True, "temperature": 0.8, "top_p": 0.95}))
    replace("tokenizer_config.json", write_json({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS, "eos_token": EOS,
        "clean_up_tokenization_spaces": False, "model_max_length": CONFIG["max_position_embeddings"]}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--minutes", type=float, default=45, help="wall time of training; the schedule follows it")
    parser.add_argument("--steps", type=int, help="train for this many steps instead, whatever time they take")
    parser.add_argument("--batch", type=int, default=8, help="windows per step")
    parser.add_argument("--length", type=int, default=256, help="tokens per window; the last quarter trains on 512")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1611)
    parser.add_argument("--eval-every", type=int, default=250)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)

    chapters = read_chapters()
    held_out = [c for i, c in enumerate(chapters) if i % 40 == 20]
    training = [c for i, c in enumerate(chapters) if i % 40 != 20]
    tokenizer = train_tokenizer("\n".join(c) for c in training)
    train_text, valid_text = Text(training, tokenizer), Text(held_out, tokenizer)
    valid_bytes = sum(len(v) + 1 for c in held_out for v in c)
    model = Llama(CONFIG)
    print(f"{len(training)} chapters, {len(train_text.ids)} tokens to train on; {len(held_out)} chapters, "
          f"{len(valid_text.ids)} tokens ({valid_bytes} bytes) held out; "
          f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)

    matrices = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
                                  lr=args.lr, betas=(0.9, 0.95), fused=True)
    start, step, tokens, best, recent, warmup = time.monotonic(), 0, 0, math.inf, [], 100
    while True:
        elapsed = time.monotonic() - start
        progress = min(1.0, step / args.steps if args.steps else elapsed / (60 * args.minutes))
        if step % args.eval_every == 0 or progress >= 1:
            loss = valid_text.loss(model, CONFIG["max_position_embeddings"])
            print(f"step {step}, {tokens / len(train_text.ids):.2f} epochs, {elapsed:.0f} s: "
                  f"train {sum(recent) / max(1, len(recent)):.4f}, held out {loss:.4f} nats/token, "
                  f"{loss * len(valid_text.ids) / valid_bytes / math.log(2):.4f} bits/byte", flush=True)
            recent.clear()
            if loss < best:
                best = loss
                save(model, tokenizer, args.out)
                print("   ", complete(model, tokenizer, "In the beginning", 60, 0.8).replace("\n", " / "), flush=True)
        if progress >= 1:
            break
        rate = args.lr * min(1, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        long = progress > 0.75
        batch = train_text.sample(rng, args.batch // 2 if long else args.batch, 2 * args.length if long else args.length)
        loss = model.loss(batch, args.dropout)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent.append(loss.item())
        tokens += batch.numel()
        step += 1
    print(f"best held-out loss {best:.4f} nats/token", flush=True)


if __name__ == "__main__":
    main()
