"""The command line of run.sh, checked before anything is started."""
from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import NoReturn, Sequence

from .experiment import LabError

DESCRIPTION = """\
Measures how a model scales over 1, 2, 4, ... devices: for every point starts the service by mpirun, warms it up,
drives it with `trireme bench serve`, stops it. Ends with a report in DIR (report.html and others).
Run again with the same options, it goes on where it was interrupted."""

EPILOG = """\
Exit codes: 0 every point was measured or refused by the planner; 1 some failed, or the lab could not go on; 2 wrong
command line, nothing was started; 130 interrupted.
Strong scaling gives every layout the same load; weak scaling gives each device that load, so requests at a time and
in all grow with the devices. With --divide-cores a CPU "device" is a share of the host's cores, with
--threads-per-rank it is that many cores; a layout with more threads than cores is measured, and marked.
The files of DIR are described in launch/scaling/README.md."""

MAX_DEVICES = 4096


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise LabError(message)


def whole(text: str, name: str, most: int = 10**7) -> int:
    if not re.fullmatch(r"[0-9]{1,8}", text) or not 1 <= int(text) <= most:
        raise LabError(f"{name}: got '{text[:64]}', wanted a whole number from 1 to {most}")
    return int(text)


def rising(text: str, name: str, most: int) -> list[int]:
    """'1,2,4': whole numbers, each larger than the one before."""
    values = [whole(part, name, most) for part in text.split(",")]
    if any(later <= earlier for earlier, later in zip(values, values[1:])):
        raise LabError(f"{name}: got '{text[:64]}', wanted each number once, in rising order")
    return values


def choices(text: str, name: str, known: Sequence[str]) -> list[str]:
    values = text.split(",")
    for value in values:
        if value not in known:
            raise LabError(f"{name}: got '{value[:64]}', wanted {', '.join(known[:-1])} or {known[-1]}")
    if len(set(values)) != len(values):
        raise LabError(f"{name}: got '{text[:64]}', wanted each once")
    return values


def dataset(text: str) -> str:
    """In the terms of `trireme bench serve --dataset`: random:IN,OUT, prefix:..., or a file of conversations."""
    if re.fullmatch(r"random:[1-9]\d*,[1-9]\d*", text) or re.fullmatch(r"prefix:\d+(,\d+){2,3}", text):
        return text
    if re.match(r"(random|prefix):", text):
        raise LabError(
            f"--workload: got '{text[:64]}', wanted random:IN,OUT or prefix:SHARED,UNIQUE,OUT[,GROUPS]"
        )
    path = Path(text.removeprefix("sharegpt:"))
    try:
        with open(path, "rb") as file:
            first = file.read(1)
    except OSError as error:
        raise LabError(f"--workload {path}: cannot be read: {error.strerror}") from error
    if not first:
        raise LabError(f"--workload {path}: is empty, wanted ShareGPT conversations in JSON")
    return f"sharegpt:{path.resolve()}"


def _price(text: str) -> float:
    if not re.fullmatch(r"\d{1,7}(\.\d{1,6})?", text) or float(text) <= 0:
        raise LabError(f"--price: got '{text[:64]}', wanted USD per device and hour, e.g. 2.50")
    return float(text)


def parser() -> argparse.ArgumentParser:
    p = _Parser(
        prog="launch/scaling/run.sh",
        description=DESCRIPTION,
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--model", required=True, type=Path, metavar="DIR", help="Hugging Face directory")
    p.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of this experiment")
    p.add_argument("--devices", default="1,2,4,8", metavar="LIST", help="device counts, rising [1,2,4,8]")
    p.add_argument(
        "--mode",
        default="tp",
        metavar="M[,M]",
        help="tp: one replica over all devices; dp: a replica on each; grid: every tp x dp [tp]",
    )
    p.add_argument("--backend", default="cpu", choices=("cpu", "cuda"), help="[cpu]")
    p.add_argument("--compute-dtype", default="auto", choices=("auto", "f32", "bf16"), help="[auto]")
    p.add_argument(
        "--workload",
        default="random:64,64",
        metavar="W",
        help="random:IN,OUT tokens, prefix:SHARED,UNIQUE,OUT[,GROUPS], or a ShareGPT file [random:64,64]",
    )
    p.add_argument("--concurrency", default="8", metavar="LIST", help="requests at a time, rising [8]")
    p.add_argument("--requests", default="8", metavar="N", help="requests for each one at a time [8]")
    p.add_argument("--repeat", default="3", metavar="R", help="measurements of each point, interleaved [3]")
    p.add_argument("--scaling", default="strong", choices=("strong", "weak", "both"), help="[strong]")
    threads = p.add_mutually_exclusive_group()
    threads.add_argument("--threads-per-rank", default=None, metavar="N", help="the same for every layout")
    threads.add_argument(
        "--divide-cores",
        action="store_true",
        help="the host's cores shared by the ranks of a layout, at least one each [the default]",
    )
    p.add_argument("--goodput", default="", metavar="T", help="targets, e.g. ttft:500,tpot:50 (ms)")
    p.add_argument("--price", default=None, type=_price, metavar="USD", help="of one device for an hour")
    p.add_argument("--seed", default="1", metavar="N", help="of the prompts [1]")
    p.add_argument(
        "--hostfile", default=None, type=Path, metavar="F", help='"HOST slots=N" per line, as serve.sh has it'
    )
    for name, meta, text in (
        ("--listen", "HOST", "by which the other hosts reach this one"),
        ("--advertise", "HOST", "the same, where it is not what is listened on"),
        ("--network", "NET", "between the hosts, e.g. 10.0.0.0/24"),
        ("--rsh-agent", "COMMAND", "starts processes on other hosts"),
        ("--host-timeout", "S", "in which a host must answer"),
    ):
        p.add_argument(name, default=None, metavar=meta, help=f"with --hostfile: {text} (as serve.sh has it)")
    p.add_argument(
        "--insecure", action="store_true", help="with --hostfile: listen on the network, unencrypted"
    )
    p.add_argument(
        "--serve-option",
        action="append",
        default=[],
        metavar="X",
        help="pass X on to serve.sh, e.g. --serve-option=--worker-option --serve-option=--kv-memory=1GiB; may be repeated",
    )
    p.add_argument(
        "--trace",
        action="store_true",
        help="of layouts of one replica, keep what each rank did in its last steps: "
        "DIR/logs/POINT/trace.json, for ui.perfetto.dev",
    )
    p.add_argument("--ready-timeout", default="600", metavar="S", help="for a service to start [600]")
    p.add_argument(
        "--point-timeout", default="600", metavar="S", help="for the load of a point, and its warm-up [600]"
    )
    p.add_argument(
        "--build", default=None, type=Path, metavar="DIR", help="where the programs are [build/BACKEND/bin]"
    )
    return p


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options with their lists read; LabError says which one is wrong."""
    p = parser()
    options = p.parse_args(arguments)
    options.devices = rising(options.devices, "--devices", MAX_DEVICES)
    options.concurrency = rising(options.concurrency, "--concurrency", 100_000)
    options.modes = choices(options.mode, "--mode", ("tp", "dp", "grid"))
    options.scalings = ["strong", "weak"] if options.scaling == "both" else [options.scaling]
    options.dataset = dataset(options.workload)
    for name in ("requests", "repeat", "seed", "ready_timeout", "point_timeout"):
        setattr(options, name, whole(getattr(options, name), "--" + name.replace("_", "-")))
    if options.threads_per_rank is not None:
        options.threads_per_rank = whole(options.threads_per_rank, "--threads-per-rank", 4096)
    for target in options.goodput.split(",") if options.goodput else []:
        if not re.fullmatch(r"(ttft|tpot|e2e):\d+(\.\d+)?", target):
            raise LabError(f"--goodput: got '{target[:64]}', wanted ttft:MS, tpot:MS or e2e:MS")
    if not (options.model / "config.json").is_file():
        raise LabError(f"--model {options.model}: no config.json there, wanted a Hugging Face directory")
    options.model = options.model.resolve()
    return options
