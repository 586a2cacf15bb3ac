"""The C side of a runtime-free model: a header, a function that calls the kernels in turn, a main program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import Template

from hwptq.backends import data_files
from hwptq.backends.program import Tensor
from hwptq.targets.memory import Memory

from .header_parts import interface, prompt_prototype, state_prototype
from .hooks import give_back_name, launch_name, take_name
from .memory_plan import Call, MemoryPlan, Place, PromptPlan

#: What a call returns where the system keeps a state of the processor to itself.
STATE_REFUSED = -1
_ASK_FOR_STATE = 0x1023  # ARCH_REQ_XCOMP_PERM of Linux
_HIDDEN = '__attribute__((visibility("hidden"))) '


@dataclass(frozen=True)
class Workspace:
    """Scratch memory of `size` bytes for kernels with large local arrays.

    in_arena: it lies behind the activations, one for each thread of the pool, so that calls with arenas of
    their own may run side by side; else it is one static array.
    """

    size: int
    alignment: int
    in_arena: bool

    def first(self, plan: MemoryPlan) -> int:
        """Its offset in the arena."""
        return -(-plan.arena_bytes // self.alignment) * self.alignment

    def arena_bytes(self, plan: MemoryPlan, memory: Memory) -> int:
        """Bytes of the arena that a caller gives."""
        behind = (
            self.first(plan) + self.size * plan.threads if self.size and self.in_arena else plan.arena_bytes
        )
        return max(behind + memory.readable_behind, 1)


def header(
    plan: MemoryPlan, prefix: str, memory: Memory, workspace: Workspace, state_component: int = 0
) -> str:  # fmt: skip
    """model.h: sizes of the interface and the prototype of <prefix>_run, or of <prefix>_step and
    <prefix>_reset."""
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
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f"#define {upper}_ALIGNMENT {memory.alignment}",
        f"#define {upper}_ARENA_BYTES {workspace.arena_bytes(plan, memory)}",
        f"#define {upper}_INPUTS {len(plan.inputs)}",
        f"#define {upper}_OUTPUTS {len(plan.outputs)}",
        *interface(plan.inputs, upper, "INPUT"),
        *interface(plan.outputs, upper, "OUTPUT"),
        "",
        "/* Computes the outputs of one sample; `arena` is its memory. Returns 0, or stops at a kernel that",
        "   asks for more scratch memory than there is, and returns its number, from 1 on.",
        *(_refusal() if state_component else []),
        *_side_by_side(plan, workspace),
        f"int32_t {entry(plan, prefix)}(const void *const *inputs, void *const *outputs, void *arena);",
        "",
        *(state_prototype(plan.state, prefix, upper) if plan.state else []),
        *(prompt_prototype(plan.prompt, prefix) if plan.prompt else []),
        f"#define {upper}_THREADS {plan.threads}",
        *(_threads_prototype(prefix, upper) if plan.threads > 1 else []),
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def entry(plan: MemoryPlan, prefix: str) -> str:
    """The function that computes one sample; where caches stay in the arena, one step of a text."""
    return f"{prefix}_step" if plan.state else f"{prefix}_run"


def reset_name(plan: MemoryPlan, prefix: str) -> str:
    """The function that begins a text, "" where there are no caches."""
    return f"{prefix}_reset" if plan.state else ""


def prompt_name(plan: MemoryPlan, prefix: str) -> str:
    """The function that reads several tokens at once, "" where there is none."""
    return f"{prefix}_prompt" if plan.prompt else ""


def shown_names(plan: MemoryPlan, prefix: str) -> list[str]:
    """The functions that users call, but for the one of threads."""
    every = (entry(plan, prefix), reset_name(plan, prefix), prompt_name(plan, prefix))
    return [name for name in every if name]


def _refusal() -> list[str]:
    return [f"   Returns {STATE_REFUSED} where the system refuses the registers that it needs."]


def _side_by_side(plan: MemoryPlan, workspace: Workspace) -> list[str]:
    """What the header says of calls from several threads."""
    if workspace.size and not workspace.in_arena:
        return ["   One call at a time: kernels share static memory. */"]
    if plan.threads > 1:
        return ["   Calls from several threads, each with an arena of its own, take turns at the pool. */"]
    return ["   Calls from several threads, each with an arena of its own, may run side by side. */"]


def source(
    plan: MemoryPlan, prefix: str, workspace: Workspace, state_component: int = 0, clocked: bool = False
) -> str:
    """model.c: <prefix>_run or _step, which calls every kernel once, and <prefix>_prompt where there is one.
    clocked: the former notes the nanoseconds of each, and has no threads."""
    prompt = plan.prompt.calls if plan.prompt else ()
    arity = {call.symbol: len(call.args) for call in (*plan.calls, *prompt)}
    run = "pool_run" if plan.threads > 1 else "calls"
    lines = [
        *(["#define _GNU_SOURCE"] if plan.threads > 1 else []),
        "#include <stddef.h>",
        f'#include "{prefix}.h"',
        "",
        f'extern const uint8_t {prefix}_weights[] __attribute__((visibility("hidden")));',
        *(f"int32_t {prefix}_{name}({', '.join(['void *'] * n)});" for name, n in arity.items()),
        "",
        *(_pool(plan, prefix) if plan.threads > 1 else []),
        *(workspace_source(workspace, prefix, plan) if workspace.size else []),
        *(state_source(state_component) if state_component else []),
        *(_calls_by_threads(plan, prefix, workspace) if plan.threads > 1 else _calls(plan, prefix, clocked)),
        *(_reset(plan, prefix) if plan.state else []),
        *_function(entry(plan, prefix), run, plan, workspace, state_component),
    ]
    if plan.prompt:
        lines += _calls(plan.prompt, prefix, False, "prompt_calls")
        lines += _function(prompt_name(plan, prefix), "prompt_calls", plan, workspace, state_component)
    return "\n".join(lines) + "\n"


def _function(
    name: str, run: str, plan: MemoryPlan, workspace: Workspace, state_component: int
) -> list[str]:  # fmt: skip
    """A function that users call."""
    return [
        f"int32_t {name}(const void *const *inputs, void *const *outputs, void *arena) {{",
        *([f"    if (use_state()) return {STATE_REFUSED};"] if state_component else []),
        *(["    find_workspace(arena);"] if workspace.size else []),
        *(["    use_pool();"] if plan.threads > 1 else []),
        f"    return {run}(inputs, outputs, arena);",
        "}",
    ]


def _reset(plan: MemoryPlan, prefix: str) -> list[str]:
    assert plan.state
    zero = f"__builtin_memset(arena, 0, {plan.state.nbytes})"
    return [f"void {reset_name(plan, prefix)}(void *arena) {{ {zero}; }}", ""]


def state_source(component: int) -> list[str]:
    """A function that asks the system for a state of the processor; 0, or it is refused."""
    return [
        "#include <sys/syscall.h>",
        "long syscall(long, ...);",
        "static int use_state(void) {",
        "    static int given; /* by all threads the same value is written */",
        f"    if (!given) given = !syscall(SYS_arch_prctl, {_ASK_FOR_STATE:#x}, {component});",
        "    return !given;",
        "}",
        "",
    ]


def _calls(plan: MemoryPlan | PromptPlan, prefix: str, clocked: bool, name: str = "calls") -> list[str]:
    """A function that makes the calls in turn."""
    clock = [f"int64_t {prefix}_now(void);", f"int64_t {prefix}_spent[{max(len(plan.calls), 1)}];"]
    return [
        *(clock if clocked else []),
        f"static int32_t {name}(const void *const *inputs, void *const *outputs, uint8_t *arena) {{",
        f"    uint8_t *weights = (uint8_t *){prefix}_weights;",
        "    (void)arena, (void)weights;",
        *(["    int64_t start;"] if clocked else []),
        *(
            f"    {f'start = {prefix}_now(); ' if clocked else ''}if ({_call(c, prefix)}) return {number};"
            + (f" {prefix}_spent[{number - 1}] = {prefix}_now() - start;" if clocked else "")
            for number, c in enumerate(plan.calls, 1)
        ),
        *(f"    {_copy(*copy)};" for copy in plan.copies),
        "    return 0;",
        "}",
        "",
    ]


def _pool(plan: MemoryPlan, prefix: str) -> list[str]:
    """The pool of threads. TVM's code finds it by a weak pointer."""
    launch = launch_name(prefix)
    return [
        f"#define POOL_THREADS {plan.threads}",
        f"#define POOL_MOST {max((call.cycles for call in plan.calls), default=0)}",
        f"#define POOL_INPUTS {len(plan.inputs)}",
        f"#define POOL_OUTPUTS {len(plan.outputs)}",
        '#include "claim_pool.c"',
        f"int32_t {prefix}_threads(int32_t count) {{ return pool_start(count); }}",
        f"extern int (*{launch})(Task, void *, int) __attribute__((weak));",
        f"static void use_pool(void) {{ if (&{launch}) {launch} = pool_launch; }}",
        "",
    ]


def _calls_by_threads(plan: MemoryPlan, prefix: str, workspace: Workspace) -> list[str]:
    """The function that every thread runs."""
    return [
        "static int32_t pool_calls(const void *const *inputs, void *const *outputs, uint8_t *arena) {",
        f"    uint8_t *weights = (uint8_t *){prefix}_weights;",
        "    int32_t failed = 0;",
        "    (void)arena, (void)weights;",
        *(["    find_workspace(arena);"] if workspace.size else []),
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
    return f"{prefix}_{call.symbol}({', '.join(map(_address, call.args))})"


def _copy(source: Place, to: Place, nbytes: int) -> str:
    return f"__builtin_memcpy({_address(to)}, {_address(source)}, {nbytes})"


def _threads_prototype(prefix: str, upper: str) -> list[str]:
    return [
        f"/* Lets `count` threads, at most {upper}_THREADS, share the work from now on;",
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


def workspace_source(workspace: Workspace, prefix: str, plan: MemoryPlan | None = None) -> list[str]:
    """Functions that take scratch memory and give it back in stack order. Each thread of a pool has its own.

    Without a plan the memory is static.
    """
    size, alignment = workspace.size, workspace.alignment
    if plan is not None and workspace.in_arena:
        thread = f" + {size}u * (size_t)at.thread" if plan.threads > 1 else ""
        memory = [
            "static _Thread_local uint8_t *workspace;",
            "static _Thread_local size_t used;",
            "static void find_workspace(void *arena) {",
            f"    workspace = (uint8_t *)arena + {workspace.first(plan)}{thread};",
            "    used = 0;",
            "}",
        ]
    else:
        memory = [
            f"static uint8_t workspace[{size}] __attribute__((aligned({alignment})));",
            "static size_t used;",
            "static void find_workspace(void *arena) { (void)arena, used = 0; }",
        ]
    return [
        *memory,
        f"{_HIDDEN}void *{take_name(prefix)}(uint64_t n) {{",
        f"    size_t rounded = (n + {alignment - 1}) / {alignment} * {alignment};",
        f"    if (rounded > {size}u - used) return NULL;",
        "    used += rounded;",
        "    return workspace + used - rounded;",
        "}",
        f"{_HIDDEN}int32_t {give_back_name(prefix)}(void *p) {{",
        "    used = (size_t)((uint8_t *)p - workspace);",
        "    return 0;",
        "}",
        "",
    ]


def main_program(plan: MemoryPlan, prefix: str, memory: Memory, *, timed: bool) -> str:
    """main.c: reads samples from standard input and writes their outputs to standard output.

    A timed one knows --repeat, for which it needs a C library.
    """
    return _main("timed_main.c.in" if timed else "plain_main.c.in", plan, prefix, memory)


def profiler_program(plan: MemoryPlan, prefix: str, memory: Memory) -> str:
    """main.c of a program that tells how long each call of a clocked source takes."""
    return _main("profiler.c.in", plan, prefix, memory)


def _main(end: str, plan: MemoryPlan, prefix: str, memory: Memory) -> str:
    text = data_file("main.c.in") + data_file(end)
    room = {
        key: buffer_bytes(tensors, memory)
        for key, tensors in (("in_bytes", plan.inputs), ("out_bytes", plan.outputs))
    }
    if plan.prompt:
        room["in_bytes"] = max(room["in_bytes"], buffer_bytes(plan.prompt.inputs, memory))
    section = ' __attribute__((section(".bss.arena")))' if memory.regions else ""
    return Template(text).substitute(
        prefix=prefix,
        upper=prefix.upper(),
        entry=entry(plan, prefix),
        calls=max(len(plan.calls), 1),
        most_inputs=max(len(plan.inputs), len(plan.prompt.inputs) if plan.prompt else 0),
        arena_section=section,
        **room,
    )


def buffer_bytes(tensors: Sequence[Tensor], memory: Memory) -> int:
    """Of the buffer that the program reads inputs into, or has its outputs in."""
    rounded = sum(-(-t.nbytes // memory.alignment) * memory.alignment for t in tensors)
    return rounded + memory.readable_behind


def data_file(name: str) -> str:
    """The text of a file of this package."""
    assert __package__
    return data_files.data_file(__package__, name)
