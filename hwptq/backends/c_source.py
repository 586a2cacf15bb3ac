"""The C side of a runtime-free model: a header, a function that calls the kernels in turn, a main program."""

from __future__ import annotations

import re
from importlib import resources
from string import Template

from hwptq.targets.schema import Memory

from .memory_plan import Call, MemoryPlan, Place, Tensor


def identifier(name: str) -> str:
    """A model's name as a C identifier: "resnet-8 v2" -> "resnet_8_v2", "8bit" -> "m8bit"."""
    clean = re.sub(r"\W", "_", name, flags=re.ASCII)
    return clean if re.match(r"[A-Za-z_]", clean) else f"m{clean}"


def header(plan: MemoryPlan, prefix: str, memory: Memory) -> str:
    """model.h: sizes of the interface and the prototype of <prefix>_run."""
    upper, behind = prefix.upper(), memory.readable_behind
    note = [
        f"/* Up to {behind} bytes behind inputs and outputs are read (not written), and must be memory. */"
    ]
    lines = [
        f"/* {prefix}: made by hwptq. All buffers must be aligned to {upper}_ALIGNMENT bytes. */",
        *(note if behind else []),
        f"#ifndef HWPTQ_{upper}_H",
        f"#define HWPTQ_{upper}_H",
        "#include <stdint.h>",
        "",
        f"#define {upper}_ALIGNMENT {memory.alignment}",
        f"#define {upper}_ARENA_BYTES {max(plan.arena_bytes + behind, 1)}",
        f"#define {upper}_INPUTS {len(plan.inputs)}",
        f"#define {upper}_OUTPUTS {len(plan.outputs)}",
        *_interface(plan.inputs, upper, "INPUT"),
        *_interface(plan.outputs, upper, "OUTPUT"),
        "",
        "/* Computes the outputs of one sample; `arena` is its memory. Returns 0, or stops at a kernel that",
        "   asks for more scratch memory than there is, and returns its number, from 1 on. */",
        f"int32_t {prefix}_run(const void *const *inputs, void *const *outputs, void *arena);",
        "",
        f"#define {upper}_THREADS {plan.threads}",
        *(_threads_prototype(prefix, upper) if plan.threads > 1 else []),
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _interface(tensors: tuple[Tensor, ...], upper: str, kind: str) -> list[str]:
    sizes = ", ".join(str(t.nbytes) for t in tensors)
    notes = [
        f"/* {kind.lower()} {i}: {re.sub('[^ -~]|[*]/', '?', t.name)} {t.dtype} {list(t.shape)} */"
        for i, t in enumerate(tensors)
    ]
    return [*notes, f"#define {upper}_{kind}_BYTES {{ {sizes} }}"]


def source(plan: MemoryPlan, prefix: str, alignment: int, workspace: int) -> str:
    """model.c: <prefix>_run, which calls every kernel once."""
    arity = {call.function: len(call.args) for call in plan.calls}
    run = "pool_run" if plan.threads > 1 else "calls"
    lines = [
        *(["#define _GNU_SOURCE"] if plan.threads > 1 else []),
        "#include <stddef.h>",
        f'#include "{prefix}.h"',
        "",
        f"extern const uint8_t {prefix}_weights[];",
        *(f"int32_t {prefix}_{name}({', '.join(['void *'] * n)});" for name, n in arity.items()),
        "",
        *(_pool(plan, prefix) if plan.threads > 1 else []),
        *(workspace_source(alignment, workspace, plan.threads) if workspace else []),
        *(_calls_by_threads(plan, prefix) if plan.threads > 1 else _calls(plan, prefix)),
        f"int32_t {prefix}_run(const void *const *inputs, void *const *outputs, void *arena) {{",
        *(["    use_workspace();"] if workspace else []),
        *(["    use_pool();"] if plan.threads > 1 else []),
        f"    return {run}(inputs, outputs, arena);",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _calls(plan: MemoryPlan, prefix: str) -> list[str]:
    """A function that makes the calls in turn."""
    return [
        "static int32_t calls(const void *const *inputs, void *const *outputs, uint8_t *arena) {",
        f"    uint8_t *weights = (uint8_t *){prefix}_weights;",
        "    (void)arena, (void)weights;",
        *(f"    if ({_call(c, prefix)}) return {number};" for number, c in enumerate(plan.calls, 1)),
        *(f"    {_copy(*copy)};" for copy in plan.copies),
        "    return 0;",
        "}",
        "",
    ]


def _pool(plan: MemoryPlan, prefix: str) -> list[str]:
    """The pool of threads. TVM's code finds it by a weak pointer."""
    return [
        f"#define POOL_THREADS {plan.threads}",
        f"#define POOL_MOST {max((call.cycles for call in plan.calls), default=0)}",
        f"#define POOL_INPUTS {len(plan.inputs)}",
        f"#define POOL_OUTPUTS {len(plan.outputs)}",
        '#include "claim_pool.c"',
        f"int32_t {prefix}_threads(int32_t count) {{ return pool_start(count); }}",
        "extern int (*__TVMBackendParallelLaunch)(Task, void *, int) __attribute__((weak));",
        "static void use_pool(void) {",
        "    if (&__TVMBackendParallelLaunch) __TVMBackendParallelLaunch = pool_launch;",
        "}",
        "",
    ]


def _calls_by_threads(plan: MemoryPlan, prefix: str) -> list[str]:
    """The function that every thread runs."""
    return [
        "static int32_t pool_calls(const void *const *inputs, void *const *outputs, uint8_t *arena) {",
        f"    uint8_t *weights = (uint8_t *){prefix}_weights;",
        "    int32_t failed = 0;",
        "    (void)arena, (void)weights;",
        *(
            f"    if (pool_mine({c.cycles}) && {_call(c, prefix)} && !failed) failed = {number};"
            for number, c in enumerate(plan.calls, 1)
        ),
        *(f"    if (pool_mine(0)) {_copy(*copy)};" for copy in plan.copies),
        "    return failed;",
        "}",
        "",
    ]


def _call(call: Call, prefix: str) -> str:
    return f"{prefix}_{call.function}({', '.join(map(_address, call.args))})"


def _copy(source: Place, to: Place, nbytes: int) -> str:
    return f"__builtin_memcpy({_address(to)}, {_address(source)}, {nbytes})"


def _threads_prototype(prefix: str, upper: str) -> list[str]:
    return [
        f"/* Lets `count` threads, at most {upper}_THREADS, share the work of {prefix}_run from now on;",
        "   until then it is one. Returns how many there are. Link with -pthread. */",
        f"int32_t {prefix}_threads(int32_t count);",
    ]


def _address(place: Place) -> str:
    match place.kind:
        case "input":
            return f"(void *)inputs[{place.at}]"
        case "output":
            return f"outputs[{place.at}]"
    return f"{place.kind} + {place.at}"


def workspace_source(alignment: int, size: int, threads: int = 1) -> list[str]:
    """Scratch memory for kernels with large local arrays, taken and given back in stack order.

    Each of several threads has its own.
    """
    aligned = f"__attribute__((aligned({alignment})))"
    own = [
        f"static uint8_t workspaces[POOL_THREADS][{size}] {aligned};",
        "#define workspace workspaces[at.thread]",
        "static _Thread_local size_t used;",
    ]
    return [
        *(own if threads > 1 else [f"static uint8_t workspace[{size}] {aligned};", "static size_t used;"]),
        "static void *take(int type, int id, uint64_t n, int code, int bits) {",
        "    (void)type, (void)id, (void)code, (void)bits;",
        f"    size_t rounded = (n + {alignment - 1}) / {alignment} * {alignment};",
        "    if (rounded > sizeof workspace - used) return NULL;",
        "    used += rounded;",
        "    return workspace + used - rounded;",
        "}",
        "static int give_back(int type, int id, void *p) {",
        "    (void)type, (void)id;",
        "    used = (size_t)((uint8_t *)p - workspace);",
        "    return 0;",
        "}",
        "extern void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) __attribute__((weak));",
        "extern int (*__TVMBackendFreeWorkspace)(int, int, void *) __attribute__((weak));",
        "static void use_workspace(void) {",
        "    used = 0;",
        "    if (&__TVMBackendAllocWorkspace) __TVMBackendAllocWorkspace = take;",
        "    if (&__TVMBackendFreeWorkspace) __TVMBackendFreeWorkspace = give_back;",
        "}",
        "",
    ]


def main_program(plan: MemoryPlan, prefix: str, memory: Memory, *, timed: bool) -> str:
    """main.c: reads samples from standard input and writes their outputs to standard output.

    A timed one knows --repeat, for which it needs a C library.
    """
    text = data_file("main.c.in") + data_file("timed_main.c.in" if timed else "plain_main.c.in")
    room = {
        key: sum(-(-t.nbytes // memory.alignment) * memory.alignment for t in tensors)
        + memory.readable_behind
        for key, tensors in (("in_bytes", plan.inputs), ("out_bytes", plan.outputs))
    }
    return Template(text).substitute(prefix=prefix, upper=prefix.upper(), **room)


def data_file(name: str) -> str:
    """The text of a file of this package."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def weights_assembly(prefix: str, file: str, memory: Memory) -> str:
    """weights.s: the constants, taken from a file as they are."""
    return (
        f".section .rodata\n.balign {memory.alignment}\n.globl {prefix}_weights\n{prefix}_weights:\n"
        f'.incbin "{file}"\n.zero {memory.readable_behind + 1}\n.section .note.GNU-stack,"",%progbits\n'
    )
