"""Broken descriptors: each is refused with file, key path and cause, never with a traceback."""

from __future__ import annotations

import pytest
from descriptors import ARM, I8MM, Refuse, edited

#: (what is edited, the line expected after "chip.toml: ", or its beginning)
BROKEN = {
    "schema missing": (("schema = 1\n", ""), "schema: missing: the version of this format"),
    "schema of the future": (("schema = 1", "schema = 2"), "schema: must be 1, not 2"),
    "schema as text": (("schema = 1", 'schema = "1"'), "schema: must be a whole number, not '1'"),
    "name missing": (('name = "arm-cortex-a"\n', ""), "name: missing: the device in one word"),
    "name empty": (('name = "arm-cortex-a"', 'name = ""'), "name: must not be empty"),
    "name a path": (('name = "arm-cortex-a"', 'name = "../x"'), "name: must be letters, digits"),
    "summary a number": (
        ("schema = 1\n", "schema = 1\nsumary = 3\n"),
        "sumary: unknown key (did you mean summary?)",
    ),
    "unknown section": (("[memory]", "[memroy]"), "memroy: unknown key (did you mean memory?)"),
    "tvm missing kind": (('kind = "llvm"\n', ""), "tvm.kind: missing"),
    "compiler missing": (
        ('compiler = ["aarch64-linux-gnu-gcc"]\n', ""),
        "toolchain.compiler: missing: C compiler",
    ),
    "compiler as text": (
        ('compiler = ["aarch64-linux-gnu-gcc"]', 'compiler = "aarch64-linux-gnu-gcc -static"'),
        "toolchain.compiler: must be a list, not 'aarch64-linux-gnu-gcc -static'",
    ),
    "compiler empty": (
        ('compiler = ["aarch64-linux-gnu-gcc"]', "compiler = []"),
        "toolchain.compiler: must not be empty",
    ),
    "compiler nameless": (
        ('["aarch64-linux-gnu-gcc"]', '[""]'),
        "toolchain.compiler[0]: must be the name of a program",
    ),
    "flag a number": (('["-static"]', '["-static", 3]'), "toolchain.link_flags[1]: must be a string, not 3"),
    "flag with a line feed": (
        ('["-static"]', '["-static\\n"]'),
        "toolchain.link_flags[0]: must be one line of printable",
    ),
    "toolchain typo": (("objdump =", "objdmp ="), "toolchain.objdmp: unknown key (did you mean objdump?)"),
    "instruction of two words": (
        ('"sdot"\npack', '"sdot v0"\npack'),
        "toolchain.instruction: must be one mnemonic",
    ),
    "package with shell text": (
        ('"qemu-user"]', '"qemu-user; reboot"]'),
        "toolchain.packages[1]: must be the name of a Debian",
    ),
    "requantize lanes": (
        ("lanes = 4\nmul", "lanes = 3\nmul"),
        "requantize.lanes: must be a power of two, not 3",
    ),
    "half of requantize": (
        ('multiply_high = "llvm.aarch64.neon.sqrdmulh.v4i32"', ""),
        "requantize.multiply_high: missing: the other intrinsics go with it",
    ),
    "two forms of requantize": (
        ("lanes = 4\nmul", "lanes = 4\nwide_products = true\nmul"),
        "requantize.wide_products: give this or the intrinsics of both steps",
    ),
    "half of packing": (
        ("lanes = 4\nmul", 'lanes = 4\npack_words = "llvm.x86.sse2.packssdw.128"\nmul'),
        "requantize.pack_bytes: missing: give both intrinsics or none",
    ),
    "intrinsic not LLVM's": (
        ('"llvm.aarch64.neon.sdot', '"sdot'),
        "kernel.sdot.intrinsic: must be the name of an LLVM intrinsic",
    ),
    "template missing": (
        ('template = "dot_product"\n', ""),
        "kernel.sdot.template: missing: one of depthwise, depthwise_dot_product, dot_product",
    ),
    "template unknown": (
        ('"dot_product"', '"dotproduct"'),
        "kernel.sdot.template: unknown template 'dotproduct' (did you mean dot_product?)",
    ),
    "template a list": (('"dot_product"', "[1]"), "kernel.sdot.template: unknown template [1]"),
    "key of another template": (
        ("dense_vectors", "dense_vektors"),
        "kernel.sdot.dense_vektors: unknown key (did you mean dense_vectors?)",
    ),
    "kernel key misplaced": (("tile_pixels = 2", "k = 4"), "kernel.depthwise.k: unknown key"),
    "k 0": (("k = 4", "k = 0"), "kernel.sdot.k: must be from 1 to 64, not 0"),
    "k true": (("k = 4", "k = true"), "kernel.sdot.k: must be a whole number, not true"),
    "k a fraction": (("k = 4", "k = 4.0"), "kernel.sdot.k: must be a whole number, not 4.0"),
    "k does not fit": (
        ("k = 4", "k = 2"),
        "kernel.sdot.k: k * operand_bits is 16: the operands of one int32 lane take 32",
    ),
    "an instruction that adds up whole vectors": (
        ("lanes = 4\nk = 4", "lanes = 1\nk = 16"),
        "kernel.sdot.k: k * operand_bits is 128: the operands of one int32 lane take 32 bits, so k is 4 for "
        "operands of 8 bits; an instruction that adds up whole vectors takes the template reducing_dot",
    ),
    "lanes 10^9": (
        ("lanes = 4\nk", "lanes = 1000000000\nk"),
        "kernel.sdot.lanes: must be from 1 to 1024, not 1000000000",
    ),
    "lanes 3": (
        ("lanes = 4\nk", "lanes = 3\nk"),
        "kernel.sdot.lanes: lanes * k * operand_bits is 96 bits: a vector has",
    ),
    "lanes of 4096 bits": (
        ("lanes = 4\nk", "lanes = 128\nk"),
        "kernel.sdot.lanes: lanes * k * operand_bits is 4096 bits",
    ),
    "depthwise lanes": (
        ("lanes = 4\ntile_pixels = 2", "lanes = 12"),
        "kernel.depthwise.lanes: lanes * 32 is 384 bits: a vector has",
    ),
    "entries beyond the registers": (
        ("entries = 64\nregisters = 4", "entries = 64\nregisters = 2"),
        "kernel.tbl.entries: 64 in 2 registers are 32 in each, of 16 bytes",
    ),
    "indices beyond the operands": (
        ("entries = 64\nregisters = 4", "entries = 16\nregisters = 1"),
        "kernel.tbl.indices: there are 2 operands, the last one is number 1",
    ),
    "joining what is not 0": (
        ("indices = 4", 'indices = 4\noutside = "low_bits"'),
        "kernel.tbl.joining: is for instructions that give 0 for indices outside",
    ),
    "entries beyond int8": (
        ("lanes = 16\nentries = 64", 'lanes = 64\noutside = "zero_if_negative"\nentries = 256'),
        "kernel.tbl.entries: an int8 that is not negative is an index below 128",
    ),
    "masked code that may read nothing behind": (
        ("[memory]", "[elementwise]\nmasked = true\n\n[memory]"),
        "memory.readable_behind: must be elementwise.lanes, 16, or more",
    ),
    "operand bits": (
        ("operand_bits = 8", "operand_bits = 12"),
        "kernel.sdot.operand_bits: must be 8 or 16, not 12",
    ),
    "negative tile": (
        ("tile_pixels = 4", "tile_pixels = -4"),
        "kernel.sdot.tile_pixels: must be from 1 to 64, not -4",
    ),
    "huge tile": (
        ("tile_vectors = 4", "tile_vectors = 65"),
        "kernel.sdot.tile_vectors: must be from 1 to 64, not 65",
    ),
    "by_element as text": (
        ("by_element = true", 'by_element = "yes"'),
        "kernel.sdot.by_element: must be true or false, not 'yes'",
    ),
    "unsigned 16 bits": (
        ("k = 4\noperand_bits = 8", "k = 2\noperand_bits = 16\nunsigned_activation = true"),
        "kernel.sdot.unsigned_activation: is for operands of 8 bits",
    ),
    "intrinsic missing": (
        ('intrinsic = "llvm.aarch64.neon.sdot.v4i32.v16i8"\n', ""),
        "kernel.sdot.intrinsic: missing: LLVM name",
    ),
    "odd kernel name": (
        ("[kernel.depthwise]", '[kernel."a b"]'),
        "kernel.'a b': a key must be letters, digits",
    ),
    "second kernel unknown": (
        ('kernel = "depthwise"', 'kernel = "depthwise"\notherwise = "depthwize"'),
        "op[depthwise_conv2d].otherwise: there is no [kernel.depthwize] (did you mean depthwise?)",
    ),
    "kernel unused": (('kernel = "depthwise"', ""), "kernel.depthwise: no [[op]] uses it"),
    "kernel unknown": (
        ('kernel = "sdot"', 'kernel = "sdto"'),
        "op[conv2d].kernel: there is no [kernel.sdto] (did you mean sdot?)",
    ),
    "kernel unfit": (
        ('kernel = "sdot"', 'kernel = "depthwise"'),
        "op[conv2d].kernel: template depthwise_dot_product of [kernel.depthwise] serves depthwise_conv2d, "
        "not conv2d (use sdot)",
    ),
    "kernel of an add": (
        ('op = "add"', 'op = "add"\nkernel = "sdot"'),
        "op[add].kernel: template dot_product of [kernel.sdot] serves",
    ),
    "op unknown": (
        ('op = "conv2d"', 'op = "conv3d"'),
        "op[conv3d].op: unknown value 'conv3d' (did you mean conv2d?)",
    ),
    "op nameless": (('op = "matmul"', ""), "op[3].op: missing: kind of operator"),
    "op twice": (
        ('op = "mul"', 'op = "add"'),
        "op[add]: this operator has more than one [[op]] table: keep one",
    ),
    "granularity": (
        ('"channel"', '"chanel"'),
        "op[conv2d].granularity: unknown value 'chanel' (did you mean channel?)",
    ),
    "weight group": (
        ("weight_group = 32", "weight_group = 12"),
        "kernel.sdot.weight_group: must be a multiple of 2 * k, 8: a byte holds two",
    ),
    "pairs empty": (
        ('[["int8", "int8"], ["int8", "int4"], ["int16", "int8"], ["int16", "int4"]]', "[]"),
        "op[conv2d].pairs: must not be empty",
    ),
    "pair of three": (
        ('["int8", "int4"], [', '["int8", "int4", "int4"], ['),
        "op[conv2d].pairs[1]: must be a list of 2, not ['int8'",
    ),
    "pair as text": (
        ('["int8", "int4"], [', '"int8/int4", ['),
        "op[conv2d].pairs[1]: must be a list of 2, not 'int8/int4'",
    ),
    "dtype unknown": (
        ('["int8", "int4"], [', '["int8", "itn4"], ['),
        "op[conv2d].pairs[1][1]: unknown value 'itn4' (did you mean int4?)",
    ),
    "pair twice": (
        ('["int8", "int4"], [', '["int8", "int8"], ['),
        "op[conv2d].pairs[1]: ['int8', 'int8'] is there twice",
    ),
    "pair without code": (
        ('["int8", "int4"], [', '["int4", "int8"], ['),
        "op[conv2d].pairs[1]: ['int4', 'int8'] has no code generator for kind 'llvm': it takes "
        "['int16', 'int8'] and ['int16', 'int4']",
    ),
    "pair of an add": (
        ('op = "add"', 'op = "add"\npairs = [["int8", "int4"]]'),
        "op[add].pairs[0]: add has no weights: only",
    ),
    "alignment": (("alignment = 64", "alignment = 48"), "memory.alignment: must be a power of two, not 48"),
    "alignment 0": (("alignment = 64", "alignment = 0"), "memory.alignment: must be from 1 to 4096, not 0"),
    "scratchpad": (
        ("alignment = 64", "scratchpad = -1"),
        "memory.scratchpad: must be from 0 to 1.09951e+12, not -1",
    ),
    "cost missing": (("int4 = 0.03125", ""), "cost.int4: missing: op[conv2d] may choose int4 weights"),
    "cost of an unknown dtype": (
        ("int4 = 0.03125", "int4 = 0.03125\nint5 = 1"),
        "cost.int5: unknown key (did you mean int",
    ),
    "cost negative": (("int8 = 0.03125", "int8 = -1"), "cost.int8: must be from 1e-06 to 1e+06, not -1"),
    "cost not a number": (("int8 = 0.03125", "int8 = nan"), "cost.int8: nan is out of range"),
    "cost infinite": (("int8 = 0.03125", "int8 = inf"), "cost.int8: inf is out of range"),
    "cost as text": (("int8 = 0.03125", 'int8 = "1"'), "cost.int8: must be a number, not '1'"),
    "float output of a convolution": (
        ('op = "conv2d"\n', 'op = "conv2d"\nfloat_output = true\n'),
        "op[conv2d].float_output: only dense has it",
    ),
    "a date": (
        ("alignment = 64", "alignment = 2024-01-01"),
        "memory.alignment: must be a whole number, not 2024-01-01",
    ),
    "not TOML": (("[tvm]", "[tvm"), "not a TOML file: "),
    "key twice": (('kind = "llvm"', 'kind = "llvm"\nkind = "llvm"'), "not a TOML file: "),
}


#: The same for a descriptor with a matrix-multiply kernel.
BROKEN_MATRIX = {
    "rows 3": (("rows = 2", "rows = 3"), "kernel.smmla.rows: rows * k * 8 is 192 bits: a vector has"),
    "k 12": (("k = 8", "k = 12"), "kernel.smmla.columns: columns * k * 8 is 192 bits: a vector has"),
    "many accumulators": (
        ("rows = 2\ncolumns = 2", "rows = 16\ncolumns = 16"),
        "kernel.smmla.columns: rows * columns * 32 is 8192 bits: a vector has",
    ),
    "rows 0": (("rows = 2", "rows = 0"), "kernel.smmla.rows: must be from 1 to 64, not 0"),
    "lanes": (("rows = 2", "lanes = 2"), "kernel.smmla.lanes: unknown key"),
    "depthwise": (
        ('op = "conv2d"', 'op = "depthwise_conv2d"'),
        "op[depthwise_conv2d].kernel: template matrix_multiply of [kernel.smmla] serves conv2d and dense",
    ),
    "a directive": (
        ('"smmla v{accumulator}', '".incbin v{accumulator}'),
        "kernel.smmla.assembly: must be one instruction in lower case",
    ),
    "two instructions": (
        ('"b.ne {label}"', '"b.ne {label}; brk #0"'),
        "assembly.next[1]: must be one instruction in lower case",
    ),
    "no accumulator": (
        ("smmla v{accumulator}.4s", "smmla v0.4s"),
        "kernel.smmla.assembly: must name {accumulator}, but is",
    ),
    "no step": ((", {step}", ""), "assembly.load_and_step: must name {step}, but is"),
    "few registers": (
        ("registers = 32", "registers = 27"),
        "kernel.smmla.assembly: tile_pixels and tile_vectors take 28 registers or more, [assembly] has 27",
    ),
}


@pytest.mark.usefixtures("no_llvm")
@pytest.mark.parametrize("case", BROKEN_MATRIX)
def test_a_broken_matrix_kernel_is_refused(case: str, refuse: Refuse) -> None:
    edit, expected = BROKEN_MATRIX[case]
    lines = refuse(edited(I8MM, edit), trust=True)
    assert any(line.startswith(f"chip.toml: {expected}") for line in lines), lines


@pytest.mark.usefixtures("no_llvm")
@pytest.mark.parametrize("case", BROKEN)
def test_refused_with_key_path_and_cause(case: str, refuse: Refuse) -> None:
    edit, expected = BROKEN[case]
    lines = refuse(edited(ARM, edit), trust=True)
    assert any(line.startswith(f"chip.toml: {expected}") for line in lines), lines


@pytest.mark.usefixtures("no_llvm")
def test_an_edit_makes_no_other_noise(refuse: Refuse) -> None:
    """One mistake, one line, in nearly all cases: nothing that only follows from another problem."""
    noisy = {
        case: lines for case, (edit, _) in BROKEN.items() if len(lines := refuse(edited(ARM, edit), True)) > 2
    }
    assert not noisy


@pytest.mark.usefixtures("no_llvm")
def test_all_problems_at_once(refuse: Refuse) -> None:
    cases = (
        "schema as text",
        "toolchain typo",
        "k 0",
        "huge tile",
        "granularity",
        "alignment",
        "cost negative",
    )
    lines = refuse(edited(ARM, *(BROKEN[case][0] for case in cases)), trust=True)
    for case in cases:
        assert f"chip.toml: {BROKEN[case][1]}" in lines
    assert len(lines) == len(cases)


@pytest.mark.usefixtures("no_llvm")
@pytest.mark.parametrize(
    "section", ["tvm", "toolchain", "requantize", "kernel", "memory", "cost", "assembly"]
)
def test_a_section_must_be_a_table(section: str, refuse: Refuse) -> None:
    text = f'schema = 1\nname = "x"\nsummary = "x"\n{section} = 3\n[[op]]\nop = "add"\n'
    assert f"chip.toml: {section}: must be a table, not 3" in refuse(text)


@pytest.mark.usefixtures("no_llvm")
@pytest.mark.parametrize("ops", ["op = 3", 'op = ["conv2d"]', "op = [[]]", "[op]\nconv2d = 1", "op = []"])
def test_op_must_be_tables(ops: str, refuse: Refuse) -> None:
    lines = refuse(f'schema = 1\nname = "x"\nsummary = "x"\n{ops}\n')
    assert any(line.startswith("chip.toml: op") and "must" in line for line in lines), lines


def test_an_empty_file_names_what_is_missing(refuse: Refuse) -> None:
    keys = [line.split(": ")[1] for line in refuse("")]
    assert sorted(keys) == ["name", "op", "schema", "summary", "toolchain", "tvm"]
