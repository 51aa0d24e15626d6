#!/usr/bin/env python3
"""PyTorch's own products and attention on a GPU, in the columns and shapes of kernel_bench, to be set beside it.

torch_kernels.py [--dtype bf16|f16] [--device N]

Needs PyTorch with CUDA and a GPU; says so and ends with code 1 where they are missing.
"""

import argparse
import sys

HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, HEAD_DIM = 4096, 14336, 32, 8, 128


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=("bf16", "f16"), default="bf16")
    parser.add_argument("--device", type=int, default=0)
    options = parser.parse_args()
    try:
        import torch
    except ImportError:
        return refuse("PyTorch is not installed")
    if not torch.cuda.is_available():
        return refuse("PyTorch sees no GPU")
    torch.cuda.set_device(options.device)
    dtype = {"bf16": torch.bfloat16, "f16": torch.float16}[options.dtype]
    print(f"PyTorch {torch.__version__}, {torch.cuda.get_device_name()}")
    print(f"{'operation':22} {'shape':26} {'us':>10} {'GB/s':>9} {'TFLOP/s':>9}")

    def measure(name, shape, moved, flops, call):
        for _ in range(3):
            call()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        times = []
        for _ in range(5):
            begin.record()
            for _ in range(20):
                call()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 20 * 1e-3)
        seconds = sorted(times)[2]
        print(f"{name:22} {shape:26} {seconds * 1e6:10.2f} {moved / seconds * 1e-9:9.1f} {flops / seconds * 1e-12:9.2f}", flush=True)

    def numbers(*shape):
        return torch.randn(*shape, dtype=dtype, device="cuda")

    for out, width in ((HIDDEN, HIDDEN), (2 * INTERMEDIATE, HIDDEN), (HIDDEN, INTERMEDIATE)):
        weight = numbers(out, width)
        for rows in (1, 2, 4, 8, 32, 256, 2048):
            x = numbers(rows, width)
            measure("matmul", f"{rows} x {width} x {out}", 2 * (out * width + rows * (out + width)), 2 * rows * out * width,
                    lambda: torch.nn.functional.linear(x, weight))
    attend = torch.nn.functional.scaled_dot_product_attention
    for batch, queries, context in [(b, 1, c) for b in (1, 32) for c in (512, 4096, 32768)] + [(1, 2048, 2048)]:
        q, k, v = numbers(batch, HEADS, queries, HEAD_DIM), *(numbers(batch, KV_HEADS, context, HEAD_DIM) for _ in range(2))
        seen = queries * (context - (queries - 1) / 2)
        measure("attention", f"{batch} x {queries} of {context}", 2 * (2 * q.numel() + 2 * k.numel()),
                4 * batch * HEADS * HEAD_DIM * seen, lambda: attend(q, k, v, is_causal=queries > 1, enable_gqa=True))
    return 0


def refuse(reason):
    print(f"torch_kernels.py: {reason}: nothing to measure", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
