#!/usr/bin/env python3
"""resources.py sees what it is there to see: in images made up here and, where nvcc is found, in compiled kernels."""

import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import resources  # noqa: E402

LDG_128, LDG_32, STG_128, LDL, STL, HMMA, LDSM, ATOMS_CAS, MEMBAR = (
    (0x981, 6), (0x981, 4), (0x986, 6), (0x983, 4), (0x387, 4), (0x23C, 0), (0x83B, 4), (0x38D, 5), (0x992, 0))


def code_of(instructions):
    return b"".join(struct.pack("<QQ", 0xABC000 | operation, 0x1234000000000000 | size << 9) for operation, size in instructions)


def image_of(name, instructions, registers=40, stack=0, machine=190):
    """An ELF image with one kernel."""
    names, sections = b"\0", []

    def add(section, content):
        nonlocal names
        sections.append((len(names), content))
        names += section.encode() + b"\0"

    add("", b"")
    add(".strtab", b"\0" + name.encode() + b"\0")
    add(".symtab", struct.pack("<IBBHQQ", 1, 0, 0, 0, 0, 0))
    add(".nv.info", struct.pack("<BBHII", 4, 0x2F, 8, 0, registers) + struct.pack("<BBHII", 4, 0x12, 8, 0, stack))
    add(".nv.info." + name, b"")
    add(".text." + name, code_of(instructions))
    add(".shstrtab", b"")
    sections[-1] = (sections[-1][0], names)
    body, headers = b"", b""
    for offset, content in sections:
        headers += struct.pack("<IIQQQQIIQQ", offset, 1, 0, 0, 64 + len(body), len(content), 0, 0, 1, 0)
        body += content
    head = b"\x7fELF\x02\x01\x01\0\x08" + bytes(7)
    head += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 0, 64 + len(body), 90 << 8, 64, 0, 0, 64, len(sections),
                        len(sections) - 1)
    return head + body + headers


class ResourcesTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def kernels(self, *images):
        path = os.path.join(self.folder.name, "images")
        with open(path, "wb") as file:
            file.write(b"something before" + b"and between".join(images))
        return resources.kernels_of(path)

    def test_counts_are_those_of_the_code(self):
        kernel, = self.kernels(image_of("_Z3addPf", [LDG_128, LDG_128, LDG_32, STG_128, HMMA, LDSM, LDL, STL, ATOMS_CAS, MEMBAR],
                                        77, 48))
        self.assertEqual((kernel.name, kernel.arch, kernel.registers, kernel.stack), ("add", 90, 77, 48))
        self.assertEqual(kernel.counts, {"LDG.128": 2, "STG.128": 1, "LDGSTS.128": 0, "LDSM": 1, "HMMA": 1, "HGMMA": 0,
                                         "ATOMS.CAS": 1, "MEMBAR": 1, "local": 2})

    def test_several_images_and_other_elf_files_between_them(self):
        kernels = self.kernels(image_of("_Z1bv", []), image_of("_Z1xv", [], machine=62), image_of("_Z1av", []))
        self.assertEqual([kernel.name for kernel in kernels], ["a", "b"])

    def test_local_memory_is_a_fault_unless_allowed(self):
        kernels = self.kernels(image_of("_Z3addPf", [STL, LDL, LDL], stack=16))
        fault, = resources.faults_of(kernels, [], [], [])
        self.assertIn("add for 90: 3 instructions on local memory, wanted at most 0 (stack of 16 bytes)", fault)
        self.assertEqual(resources.faults_of(kernels, [], [("add", 3, "why")], []), [])
        self.assertEqual(len(resources.faults_of(kernels, [], [("add", 2, "why")], [])), 1)

    def test_more_than_the_most_is_a_fault(self):
        kernels = self.kernels(image_of("_Z3addPf", [MEMBAR, MEMBAR]))
        self.assertEqual(resources.faults_of(kernels, [], [], [("add", {"MEMBAR": 2})]), [])
        self.assertEqual(resources.faults_of(kernels, [], [], [("add", {"MEMBAR": 1})]),
                         ["add for 90: 2 MEMBAR, wanted at most 1"])

    def test_narrow_loads_and_missing_tensor_cores_are_faults(self):
        kernels = self.kernels(image_of("_Z3addPf", [LDG_32, LDG_128]))
        self.assertEqual(resources.faults_of(kernels, [("add", {"LDG.128": 1})], [], []), [])
        self.assertEqual(resources.faults_of(kernels, [("add", {"LDG.128": 2, "HMMA": 1})], [], []),
                         ["add for 90: 1 LDG.128, wanted at least 2", "add for 90: 0 HMMA, wanted at least 1"])

    def test_a_rule_for_a_kernel_that_is_not_there_is_a_fault(self):
        kernels = self.kernels(image_of("_Z3addPf", []))
        self.assertEqual(len(resources.faults_of(kernels, [("sub", {})], [("mul", 1, "why")], [("div", {})])), 3)

    def test_names_lose_result_namespaces_and_parameters(self):
        self.assertEqual(resources.short_name("void trireme::cuda::(anonymous namespace)::add_kernel<__half, 8>"
                                              "(__half*, long, __half const*, long, int)"), "add_kernel<__half, 8>")
        self.assertEqual(resources.short_name("void a::k<float, (int)4, (bool)1>(float)"), "k<float, 4, 1>")

    def test_the_whole_list_is_missed_by_a_file_with_another_kernel(self):
        path = os.path.join(self.folder.name, "image")
        with open(path, "wb") as file:
            file.write(image_of("_Z3addPf", []))
        done = subprocess.run([sys.executable, os.path.join(HERE, "resources.py"), path], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("no kernel matches", done.stderr)

    def test_a_file_without_device_code_is_an_error_that_says_so(self):
        done = subprocess.run([sys.executable, os.path.join(HERE, "resources.py"), __file__], capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn("no uncompressed device code", done.stderr)

    @unittest.skipUnless(shutil.which("nvcc"), "nvcc is not on PATH")
    def test_compiled_kernels_are_seen_as_they_are(self):
        out = os.path.join(self.folder.name, "bad.cubin")
        subprocess.run(["nvcc", "-arch=sm_90a", "-cubin", "-o", out, os.path.join(HERE, "bad_kernels.cu")], check=True)
        kernels = resources.kernels_of(out)
        self.assertEqual([kernel.name for kernel in kernels], ["add_kernel", "copy_kernel<float, 4>", "wide_copy_kernel<float4, 1>"])
        self.assertTrue(all(kernel.arch == 90 and kernel.registers > 4 for kernel in kernels))
        wide = {"LDG.128": 1, "STG.128": 1}
        faults = resources.faults_of(kernels, [("copy_kernel", wide), ("wide_copy_kernel", wide)], [], [])
        self.assertEqual(len(faults), 3, faults)
        self.assertRegex(faults[0], r"add_kernel for 90: \d+ instructions on local memory")
        self.assertEqual(faults[1:], ["copy_kernel<float, 4> for 90: 0 LDG.128, wanted at least 1",
                                      "copy_kernel<float, 4> for 90: 0 STG.128, wanted at least 1"])


if __name__ == "__main__":
    unittest.main()
