#!/usr/bin/env python3
"""What each compiled CUDA kernel takes of a device, and whether the compiler did what the kernels are written for.

resources.py FILE...    object files, libraries or programs with uncompressed device code (nvcc --no-compress)

Reads the machine code itself, so that it needs no tool of the CUDA Toolkit: registers, static shared memory, stack, and
how many instructions of each kind that speed hangs on. Fails when a kernel uses local memory (spilled registers, arrays
that are indexed at run time) unless LOCAL_MEMORY allows it, when a kernel lacks what WANTED says or has more than MOST
says, and when an entry of a list matches no kernel. Exit code 0: all well; 1: a kernel is not as it should be; 2: nothing to look at.
"""

import re
import struct
import subprocess
import sys
from collections import namedtuple

HALF = r"(?:__nv_bfloat16|__half)"
VECTOR = r"(?:float, 4|__nv_bfloat16, 8|__half, 8)"  # element type and width of 16 bytes

# Kernels by a pattern that matches their name and template arguments from the beginning; least instructions of each kind.
WANTED = [
    # Tiles of keys and values come by asynchronous copies; products of 16 x 8 x 16, two loops over the head.
    (rf"attention_kernel<{HALF}, ", {"HMMA": 32, "LDSM": 16, "LDGSTS.128": 2}),
    # Four packs of the weight under way, and at least as many of x.
    (rf"few_rows_kernel<{VECTOR}, ", {"LDG.128": 8}),
    (rf"add_kernel<{VECTOR}>", {"LDG.128": 2, "STG.128": 1}),
    (rf"silu_mul_kernel<{VECTOR}>", {"LDG.128": 2, "STG.128": 1}),
    (r"gather_kernel<(\w+), \1, [48]>", {"LDG.128": 1, "STG.128": 1}),
    # Its own tensor and each rank's part; the part and the sum.
    (rf"one_shot_kernel<(?:float|{HALF}), 2>", {"LDG.128": 3, "STG.128": 2}),
    (rf"one_shot_kernel<(?:float|{HALF}), 8>", {"LDG.128": 9, "STG.128": 2}),
    (rf"rms_norm_kernel<{VECTOR}, false>", {"LDG.128": 3, "STG.128": 1}),
    (rf"rms_norm_kernel<{VECTOR}, true>", {"LDG.128": 4, "STG.128": 2}),
]

# Most instructions of a kind.
MOST = [
    # Each waits until all memory of all devices has what was written: one for all ranks that are told.
    (r"one_shot_kernel<", {"MEMBAR": 1}),
    # What shared memory cannot add by itself is tried again while others add: hundreds of times where many meet.
    (r"sample_kernel", {"ATOMS.CAS": 0}),
]

# Kernels that may use local memory: most instructions that load or store it, and why that is no loss.
LOCAL_MEMORY = [
    (rf"attention_kernel<{HALF}, 256, ", 12, "no model that is loaded has heads of 256; beside 130 HMMA of a tile it is little"),
    (r"generic_attention_kernel<", 4, "kept across the calls of a slow division; not a kernel for speed"),
    (r"rope_and_store_kv_kernel<", 5, "angles beyond 105,615 radians: the first pair of elements of tokens beyond that position"),
]

COLUMNS = ("LDG.128", "STG.128", "LDGSTS.128", "LDSM", "HMMA", "HGMMA", "ATOMS.CAS", "MEMBAR", "local")
MACHINE_CUDA = 190
BITS_128 = 6  # of the field for the size of an access
Kernel = namedtuple("Kernel", "name arch registers shared stack counts")


class BadFile(Exception):
    pass


def count_instructions(code):
    """Volta and newer: 16 bytes each, the operation in the lowest 12 bits, the size of an access in bits 73 to 75."""
    counts = dict.fromkeys(COLUMNS, 0)
    for low, high in struct.iter_unpack("<QQ", code[: len(code) // 16 * 16]):
        operation, wide = low & 0xFFF, high >> 9 & 7 == BITS_128
        if operation in (0x381, 0x981):
            counts["LDG.128"] += wide
        elif operation in (0x386, 0x986):
            counts["STG.128"] += wide
        elif operation == 0xFAE:
            counts["LDGSTS.128"] += wide
        elif operation == 0x83B:
            counts["LDSM"] += 1
        elif operation == 0x23C:
            counts["HMMA"] += 1
        elif operation in (0x9F0, 0xDF0):
            counts["HGMMA"] += 1
        elif operation == 0x38D:
            counts["ATOMS.CAS"] += 1
        elif operation == 0x992:
            counts["MEMBAR"] += 1
        elif operation in (0x983, 0x387):
            counts["local"] += 1
    return counts


def text_at(table, offset):
    return table[offset : table.index(b"\0", offset)].decode()


def read_sections(image):
    """Name, type, flags, size, link, info and content of each section of an ELF image."""
    table, = struct.unpack_from("<Q", image, 0x28)
    entry_bytes, count, names_index = struct.unpack_from("<HHH", image, 0x3A)
    entries = [struct.unpack_from("<IIQQQQIIQQ", image, table + i * entry_bytes) for i in range(count)]
    content = lambda entry: b"" if entry[1] == 8 else image[entry[4] : entry[4] + entry[5]]  # 8: takes no room in the file
    names = content(entries[names_index])
    return [(text_at(names, entry[0]), entry, content(entry)) for entry in entries]


def read_attributes(info):
    """Entries of a .nv.info section that have a size: (attribute, bytes)."""
    at = 0
    while at + 4 <= len(info):
        form, attribute, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if form == 4:
            yield attribute, info[at : at + size]
            at += size


def read_kernels(image):
    """The kernels of one ELF image of device code."""
    flags, = struct.unpack_from("<I", image, 0x30)
    arch = flags >> 8 & 0xFF if image[8] >= 8 else flags & 0xFF
    sections = read_sections(image)
    contents = {name: content for name, _, content in sections}
    symbols = contents.get(".symtab", b"")
    names = contents.get(".strtab", b"")
    symbol_name = lambda index: text_at(names, struct.unpack_from("<I", symbols, index * 24)[0])
    registers, stack = {}, {}
    for attribute, value in read_attributes(contents.get(".nv.info", b"")):
        if attribute in (0x2F, 0x12):  # registers; least size of the stack
            index, number = struct.unpack_from("<II", value)
            (registers if attribute == 0x2F else stack)[symbol_name(index)] = number
    for name, entry, content in sections:
        if not name.startswith(".text.") or ".nv.info." + name[6:] not in contents:
            continue
        mangled = name[6:]
        shared = next((other[5] for key, other, _ in sections if key == ".nv.shared." + mangled), 0)
        yield Kernel(mangled, arch, registers.get(mangled, entry[7] >> 24), shared, stack.get(mangled, 0),
                     count_instructions(content))


def short_name(name):
    """Without the result, the namespaces around and the parameters behind."""
    name = re.sub(r"\(anonymous namespace\)::", "", name)
    name = re.sub(r"^void ", "", name)
    depth = 0
    for end, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0 and not name.startswith("(int)", end):
            name = name[:end]
            break
    name = re.sub(r"\((?:int|bool|unsigned int)\)", "", name)
    return re.sub(r"^(?:\w+::)+", "", name)


def kernels_of(path):
    with open(path, "rb") as file:
        data = file.read()
    kernels, at = [], data.find(b"\x7fELF\x02\x01")
    while at >= 0:
        if len(data) >= at + 64 and struct.unpack_from("<H", data, at + 18)[0] == MACHINE_CUDA:
            kernels += read_kernels(data[at:])
        at = data.find(b"\x7fELF\x02\x01", at + 1)
    if not kernels:
        raise BadFile(f"{path}: no uncompressed device code (was it compiled with nvcc --no-compress?)")
    listed = "\n".join(kernel.name for kernel in kernels)
    readable = subprocess.run(["c++filt"], input=listed, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted(kernel._replace(name=short_name(name)) for kernel, name in zip(kernels, readable))


def faults_of(kernels, wanted=None, local_memory=None, most=None):
    """One sentence for each thing that is not as it should be."""
    wanted = WANTED if wanted is None else wanted
    local_memory = LOCAL_MEMORY if local_memory is None else local_memory
    most = MOST if most is None else most
    faults = []
    for pattern, *_ in [*wanted, *most, *local_memory]:
        if not any(re.match(pattern, kernel.name) for kernel in kernels):
            faults.append(f"no kernel matches {pattern}")
    for kernel in kernels:
        where = f"{kernel.name} for {kernel.arch}"
        allowed = max((number for pattern, number, _ in local_memory if re.match(pattern, kernel.name)), default=0)
        if kernel.counts["local"] > allowed:
            faults.append(f"{where}: {kernel.counts['local']} instructions on local memory, wanted at most {allowed} "
                          f"(stack of {kernel.stack} bytes)")
        for pattern, least in wanted:
            if re.match(pattern, kernel.name):
                faults += [f"{where}: {kernel.counts[column]} {column}, wanted at least {number}"
                           for column, number in least.items() if kernel.counts[column] < number]
        for pattern, bounds in most:
            if re.match(pattern, kernel.name):
                faults += [f"{where}: {kernel.counts[column]} {column}, wanted at most {number}"
                           for column, number in bounds.items() if kernel.counts[column] > number]
    return faults


def table_of(kernels):
    width = max(len(kernel.name) for kernel in kernels)
    head = ("sm", "registers", "shared", "stack", *COLUMNS)
    lines = [f"{'kernel':{width}} " + " ".join(f"{title:>{max(6, len(title))}}" for title in head)]
    for kernel in kernels:
        cells = (kernel.arch, kernel.registers, kernel.shared, kernel.stack, *(kernel.counts[c] for c in COLUMNS))
        lines.append(f"{kernel.name:{width}} " +
                     " ".join(f"{cell:>{max(6, len(title))}}" for title, cell in zip(head, cells)))
    return "\n".join(lines)


def main(paths):
    if not paths or any(path.startswith("-") for path in paths):
        print(__doc__.strip())
        return 0 if paths in (["-h"], ["--help"]) else 2
    try:
        kernels = [kernel for path in paths for kernel in kernels_of(path)]
    except (BadFile, OSError) as error:
        print(f"resources.py: {error}", file=sys.stderr)
        return 2
    print(table_of(kernels))
    faults = faults_of(kernels)
    for fault in faults:
        print(f"resources.py: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
