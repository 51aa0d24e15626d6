#!/usr/bin/env python3
"""PyTorch's own products and attention beside those of kernel_bench, in the same shapes.

torch_kernels.py [--dtype bf16|f16|f32] [--device N|cpu]      a table of its own, in the shapes of Llama-3.1-8B
kernel_bench ... | torch_kernels.py --beside - [...]          kernel_bench's table (or that in a file), each product and
                                                              attention with PyTorch's us, and ours over PyTorch's

Needs PyTorch, and a GPU unless --device cpu. Where they are missing it says so: alone with code 1; beside a table, which
it prints as it is, with code 0.
"""

import argparse
import re
import sys
import time

HIDDEN, INTERMEDIATE, HEAD_DIM, GROUP = 4096, 14336, 128, 4
MATMUL = re.compile(r"matmul +(\d+) x (\d+) x (\d+) +([\d.]+) ")
ATTENTION = re.compile(r"attention, heads (\d+) +(\d+) x (\d+) of (\d+), (\d+) heads +([\d.]+) ")


class Bench:
    """Seconds of PyTorch's operations on one device; a ValueError where it cannot compute there."""

    def __init__(self, dtype, device):
        try:
            import torch
        except ImportError:
            raise ValueError("PyTorch is not installed") from None
        if device != "cpu" and not torch.cuda.is_available():
            raise ValueError("PyTorch sees no GPU")
        self.torch = torch
        self.device = torch.device("cpu" if device == "cpu" else f"cuda:{device}")
        self.dtype = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[dtype]
        name = "the CPU" if device == "cpu" else torch.cuda.get_device_name(self.device)
        self.title = f"PyTorch {torch.__version__}, {name}, {dtype}"

    def numbers(self, *shape):
        return self.torch.randn(*shape, dtype=self.dtype, device=self.device)

    def seconds_of(self, call, calls=20, rounds=5):
        wait = (lambda: None) if self.device.type == "cpu" else (lambda: self.torch.cuda.synchronize(self.device))
        for _ in range(3):
            call()
        times = []
        for _ in range(rounds):
            wait()
            begin = time.perf_counter()
            for _ in range(calls):
                call()
            wait()
            times.append((time.perf_counter() - begin) / calls)
        return sorted(times)[rounds // 2]

    def matmul(self, rows, width, out):
        x, weight = self.numbers(rows, width), self.numbers(out, width)
        return self.seconds_of(lambda: self.torch.nn.functional.linear(x, weight))

    def attention(self, head_dim, batch, queries, context, heads):
        """Keys and values contiguous, not in blocks; a prompt of `queries` tokens is a whole one."""
        kv_heads = max(1, heads // GROUP)
        q = self.numbers(batch, heads, queries, head_dim)
        k, v = (self.numbers(batch, kv_heads, context, head_dim) for _ in range(2))
        attend = self.torch.nn.functional.scaled_dot_product_attention
        return self.seconds_of(lambda: attend(q, k, v, is_causal=queries > 1, enable_gqa=True))


def print_alone(bench):
    print(bench.title)
    print(f"{'operation':22} {'shape':34} {'us':>10} {'GB/s':>9} {'TFLOP/s':>9}")

    def show(name, shape, moved, flops, seconds):
        print(f"{name:22} {shape:34} {seconds * 1e6:10.2f} {moved / seconds * 1e-9:9.1f} {flops / seconds * 1e-12:9.2f}", flush=True)

    size, heads = bench.dtype.itemsize, HIDDEN // HEAD_DIM
    for out, width in ((HIDDEN, HIDDEN), (2 * INTERMEDIATE, HIDDEN), (HIDDEN, INTERMEDIATE)):
        for rows in (1, 2, 4, 8, 32, 256, 2048):
            show("matmul", f"{rows} x {width} x {out}", size * (out * width + rows * (out + width)), 2 * rows * out * width,
                 bench.matmul(rows, width, out))
    for batch, queries, context in [(b, 1, c) for b in (1, 32) for c in (512, 4096, 32768)] + [(1, 2048, 2048)]:
        seen = queries * (context - (queries - 1) / 2)
        moved = 2 * size * batch * HEAD_DIM * (heads * queries + heads // GROUP * context)
        show(f"attention, heads {HEAD_DIM}", f"{batch} x {queries} of {context}, {heads} heads", moved,
             4 * batch * heads * HEAD_DIM * seen, bench.attention(HEAD_DIM, batch, queries, context, heads))


def seconds_beside(bench, line):
    """Of the operation in a line of kernel_bench's table: (its own us, PyTorch's seconds); None for another line."""
    if found := MATMUL.match(line):
        rows, width, out, own = found.groups()
        return float(own), bench.matmul(int(rows), int(width), int(out))
    if found := ATTENTION.match(line):
        head_dim, batch, queries, context, heads, own = found.groups()
        return float(own), bench.attention(*map(int, (head_dim, batch, queries, context, heads)))
    return None


def print_beside(bench, lines):
    for line in lines:
        line = line.rstrip("\n")
        if line.startswith("operation"):
            print(f"{line:110} {'PyTorch us':>11} {'of PyTorch':>10}", flush=True)
            continue
        measured = seconds_beside(bench, line)
        if measured:
            own, seconds = measured
            line = f"{line:110} {seconds * 1e6:11.2f} {own / (seconds * 1e6):10.2f}"
        print(line, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=("bf16", "f16", "f32"), default="bf16")
    parser.add_argument("--device", default="0", help="number of a GPU, or cpu")
    parser.add_argument("--beside", metavar="FILE", help="what kernel_bench has printed; -: from standard input")
    options = parser.parse_args()
    if options.device != "cpu" and not options.device.isdecimal():
        parser.error(f"--device: got '{options.device}', wanted a number or cpu")
    # All of it first: nothing else is to be measured meanwhile.
    lines = None
    if options.beside == "-":
        lines = sys.stdin.readlines()
    elif options.beside:
        with open(options.beside) as table:
            lines = table.readlines()
    try:
        bench = Bench(options.dtype, options.device)
    except ValueError as reason:
        print(f"torch_kernels.py: {reason}: nothing to measure", file=sys.stderr)
        sys.stdout.writelines(lines or [])
        return 0 if lines is not None else 1
    if lines is None:
        print_alone(bench)
    else:
        print(bench.title)
        print_beside(bench, lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
