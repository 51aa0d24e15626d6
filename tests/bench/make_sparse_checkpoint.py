#!/usr/bin/env python3
"""Writes a bf16 checkpoint of the Llama shape in a config.json, with holes for its data.

The files have their full apparent size (141 GB for a 70B shape) and take a few kB on disk, so that loading one rank's
part can be run for real where the model has no room. All weights read as zero.

    make_sparse_checkpoint.py CONFIG.json OUT_DIR [--layers-per-file N]
"""

import argparse
import json
import os
import shutil
import struct


def layer_tensors(config, layer):
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    q = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    prefix = f"model.layers.{layer}."
    return {
        prefix + "input_layernorm.weight": [hidden],
        prefix + "self_attn.q_proj.weight": [q, hidden],
        prefix + "self_attn.k_proj.weight": [kv, hidden],
        prefix + "self_attn.v_proj.weight": [kv, hidden],
        prefix + "self_attn.o_proj.weight": [hidden, q],
        prefix + "post_attention_layernorm.weight": [hidden],
        prefix + "mlp.gate_proj.weight": [inner, hidden],
        prefix + "mlp.up_proj.weight": [inner, hidden],
        prefix + "mlp.down_proj.weight": [hidden, inner],
    }


def files_of(config, layers_per_file):
    vocab, hidden, layers = config["vocab_size"], config["hidden_size"], config["num_hidden_layers"]
    yield {"model.embed_tokens.weight": [vocab, hidden]}
    for first in range(0, layers, layers_per_file):
        tensors = {}
        for layer in range(first, min(first + layers_per_file, layers)):
            tensors |= layer_tensors(config, layer)
        yield tensors
    last = {"model.norm.weight": [hidden]}
    if not config.get("tie_word_embeddings", False):
        last["lm_head.weight"] = [vocab, hidden]
    yield last


def write_sparse(path, tensors):
    """A safetensors file whose data is one hole. Returns the bytes of the data."""
    header, offset = {}, 0
    for name, shape in tensors.items():
        size = 2
        for dimension in shape:
            size *= dimension
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
    return offset


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("out_dir")
    parser.add_argument("--layers-per-file", type=int, default=4)
    arguments = parser.parse_args()
    with open(arguments.config) as file:
        config = json.load(file)
    os.makedirs(arguments.out_dir, exist_ok=True)
    groups = list(files_of(config, arguments.layers_per_file))
    weight_map, total = {}, 0
    for number, tensors in enumerate(groups, start=1):
        name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        total += write_sparse(os.path.join(arguments.out_dir, name), tensors)
        weight_map |= {tensor: name for tensor in tensors}
    with open(os.path.join(arguments.out_dir, "model.safetensors.index.json"), "w") as file:
        json.dump({"metadata": {"total_size": total}, "weight_map": weight_map}, file)
    shutil.copyfile(arguments.config, os.path.join(arguments.out_dir, "config.json"))
    print(f"{arguments.out_dir}: {len(groups)} files, {total / 1e9:.1f} GB apparent")


if __name__ == "__main__":
    main()
