"""Checks of a descriptor against TVM and LLVM: does the device exist, and can LLVM generate its code?

LLVM only warns of an unknown mcpu or feature, crashes on an unknown triple, and ends the process on an
intrinsic that the device lacks. So everything runs in a child process, and each finding is
[key path, message].
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from .fields.problems import Problems, join, show, suggest
from .isolate import Crash, can_isolate, isolated
from .requantize import Requantize
from .requantize_calls import requantize_calls
from .templates.intrinsics import Address, Call, Immediate, Memory, Operand, Vector, Written

Finding = list[str]
_MEMORY = 4096  # bytes behind an address
_BIG_ENDIAN = re.compile(
    r"s390x|systemz|(?:powerpc|ppc)(?:64|spe)?|mips(?:64)?(?:r6|isa\w+)?|sparc(?:v9|64)?|aarch64_be|(?:arm|thumb)(?:v\w+)?eb"
    r"|(?:arm|thumb)ebv\w+|bpfeb|riscv(?:32|64)be|lanai|m68k"
)
_SCALABLE = re.compile(r"\.nxv\d")
_ATTRIBUTE = re.compile(r"[+-][A-Za-z0-9_.-]+")


def check_llvm(values: dict[str, Any], problems: Problems) -> None:
    """Note what TVM or LLVM doesn't know, or can't generate. Imports TVM: seconds the first time."""
    config = values["tvm"]
    if not config or problems.below("tvm"):
        return
    calls = [c for c in intrinsic_calls(values) if not problems.below(c.path.rpartition(".")[0])]
    _run(
        lambda: target_findings(config) + name_findings(calls),
        *("tvm", "TVM or LLVM crashes on this target", problems),
    )
    calls = [call for call in calls if not problems.below(call.path)]
    if problems.below("tvm") or config["kind"] != "llvm" or _can_generate(calls, config):
        return
    for call in calls:
        message = (
            f"LLVM can't generate {call.name} for {_device(config)}: {call.why}, and tvm.mcpu and "
            "tvm.mattr must have the feature it needs"
        )
        _run(functools.partial(code_findings, call, config), call.path, message, problems)


def _can_generate(calls: list[Call], config: dict[str, Any]) -> bool:
    """Whether all is well, tried in one child; else each call is tried in its own to find the culprit."""
    if not calls or not can_isolate():
        return True
    try:
        return not any(isolated(lambda: [code_findings(call, config) for call in calls]))
    except Crash:
        return False


def _run(work: Callable[[], list[Finding]], path: str, crash: str, problems: Problems) -> None:
    import tvm  # noqa: F401  # here, so that the child finds it loaded

    if not can_isolate():
        return
    try:
        findings = isolated(work)
    except Crash:
        findings = [[path, crash]]
    for where, what in findings:
        problems.add(where, what)


def _device(config: dict[str, Any]) -> str:
    return " ".join(str(config[key]) for key in ("mtriple", "mcpu") if config.get(key))


def target_findings(config: dict[str, Any]) -> list[Finding]:
    """What is wrong with the [tvm] section."""
    from tvm.target import Target

    if config["kind"] not in list(map(str, Target.list_kinds())):
        hint = suggest(str(config["kind"]), map(str, Target.list_kinds()))
        return [["tvm.kind", f"unknown kind of target {show(config['kind'])} ({hint})"]]
    try:
        Target(config)
    except Exception as error:
        return [_target_error(str(error))]
    if config["kind"] != "llvm":
        return []
    if not config.get("mtriple"):
        return [["tvm.mtriple", "missing: the LLVM triple of the device, such as aarch64-linux-gnu"]]
    return _cpu_findings(config) or _attribute_findings(config)


def _target_error(message: str) -> Finding:
    """TVM's own message, as a finding of the key that it is about."""
    unknown = re.match(
        r"Unknown config option '(.*?)'\. Known options: (.*?)\. Target creation", message, re.S
    )
    if unknown:
        known = re.findall(r"'(.*?)'", unknown[2])
        return [join("tvm", unknown[1]), f"unknown key ({suggest(unknown[1], known)})"]
    typed = re.match(r"Option '(.*?)': expected type '(.*?)'", message)
    if typed:
        kinds = {"str": "a string", "int": "a whole number", "bool": "true or false", "Array<str>": "strings"}
        return [join("tvm", typed[1]), f"must be {kinds.get(typed[2], typed[2])}"]
    first = " ".join(message.split("Target creation from")[0].split())
    return ["tvm", f"TVM refuses it: {first[:200]}"]


def _cpu_findings(config: dict[str, Any]) -> list[Finding]:
    from tvm.target import Target, codegen

    triple, cpu = config["mtriple"], config.get("mcpu", "generic")
    architecture = triple.partition("-")[0]
    if _BIG_ENDIAN.fullmatch(architecture):
        return [["tvm.mtriple", f"{architecture} is big-endian: tensors are laid out for little-endian ones"]]
    if codegen.llvm_is_valid_cpu(cpu, triple):
        return []
    if not codegen.llvm_is_valid_cpu("generic", triple):
        architectures = [str(name) for name in codegen.llvm_get_targets()]
        hint = suggest(triple.split("-")[0], architectures)
        return [["tvm.mtriple", f"LLVM has no architecture of {show(triple)} ({hint})"]]
    known = sorted(map(str, codegen.llvm_get_cpu_archlist(Target({"kind": "llvm", "mtriple": triple}))))
    return [["tvm.mcpu", f"LLVM knows no CPU {show(cpu)} of {triple} ({suggest(cpu, known)})"]]


def _attribute_findings(config: dict[str, Any]) -> list[Finding]:
    findings = []
    known: list[str] = []
    for i, attribute in enumerate(config.get("mattr", [])):
        path = f"tvm.mattr[{i}]"
        if not _ATTRIBUTE.fullmatch(attribute):
            findings.append([path, f'must be "+feature" or "-feature", not {show(attribute)}'])
        elif attribute[1:] not in _features(config, [f"+{attribute[1:]}"]):
            hint = suggest(attribute[1:], known := known or _all_features(config))
            hint = hint if hint.startswith("did") else "see llc -mattr=help"
            findings.append(
                [path, f"LLVM knows no feature {show(attribute[1:])} of {_device(config)} ({hint})"]
            )
    return findings


def _features(config: dict[str, Any], attributes: list[str], cpu: str = "") -> set[str]:
    from tvm.target import Target, codegen

    cpu = cpu or config.get("mcpu", "generic")
    target = {"kind": "llvm", "mtriple": config["mtriple"], "mcpu": cpu, "mattr": attributes}
    return set(map(str, codegen.llvm_get_cpu_features(Target(target))))


def _all_features(config: dict[str, Any]) -> list[str]:
    """The features that any CPU of this architecture has."""
    from tvm.target import Target, codegen

    cpus = codegen.llvm_get_cpu_archlist(Target({"kind": "llvm", "mtriple": config["mtriple"]}))
    return sorted(set().union(*(_features(config, [], str(cpu)) for cpu in cpus)))


def intrinsic_calls(values: dict[str, Any]) -> list[Call]:
    """Every intrinsic of the descriptor with the operand types that follow from its fields."""
    calls: list[Call] = []
    for name, kernel in (values.get("kernels") or {}).items():
        if kernel is not None:
            calls += kernel.intrinsics(join("kernel", name))
    requantize: Requantize | None = values.get("requantize")
    if requantize:
        calls += requantize_calls(requantize)
    return [call for call in calls if call.name]


def name_findings(calls: list[Call]) -> list[Finding]:
    """Intrinsics that LLVM doesn't have, or whose suffix names other operand types.

    The lookup takes any suffix: llvm.aarch64.neon.sdot.v4i32.v9i8 passes as llvm.aarch64.neon.sdot.
    """
    from tvm.target import codegen

    findings = []
    for call in calls:
        number = codegen.llvm_lookup_intrinsic_id(call.name)
        if number == 0:
            plain = re.sub(r"(\.v\d+i\d+)+$", "", call.name)
            findings.append([call.path, f"LLVM has no {call.name} ({suggest(plain, _intrinsics(plain))})"])
            continue
        base = str(codegen.llvm_get_intrinsic_name(number))
        suffix = call.name.removeprefix(base)
        fitting = {""}
        if call.result is not None:
            last = [operand for operand in call.operands if isinstance(operand, Vector)][-1:]
            whole = f".{call.result}" if call.result.lanes > 1 else ""
            fitting |= {whole, *(f"{whole}.{operand}" for operand in last)}
        if _SCALABLE.search(suffix):
            why = "takes vectors whose length only the device knows: templates have a fixed number of lanes"
            findings.append([call.path, f"{call.name} {why}; name the instruction of fixed vectors instead"])
        elif suffix not in fitting:
            wanted = min(fitting, key=lambda fit: (abs(fit.count(".") - suffix.count(".")), fit))
            findings.append([call.path, f"{call.why}, so the name ends in {wanted}, not {suffix}"])
    return findings


def _intrinsics(name: str) -> list[str]:
    """LLVM's intrinsics of the same family: llvm.x86.*, without type suffixes."""
    family = ".".join(name.split(".")[:2]) + "."
    return [found for found in _all_intrinsics() if found.startswith(family)]


@functools.cache
def _all_intrinsics() -> list[str]:
    from tvm.target import codegen

    names, number = [], 1
    while found := str(codegen.llvm_get_intrinsic_name(number)):
        names.append(found)
        number += 1
    return names


def code_findings(call: Call, config: dict[str, Any]) -> list[Finding]:
    """Whether LLVM takes a call with these operand types. It ends the process where the device lacks it."""
    import tvm
    from tvm.target import Target

    try:
        module = tvm.tirx.build(tvm.IRModule({"check": calling(call)}), target=Target(config))
    except Exception:
        return [[call.path, f"LLVM's {call.name} has other operands or another result: {call.why}"]]
    module.inspect_source("asm")
    return []


def calling(call: Call) -> Any:
    """A PrimFunc (in0, in1, …, out) that calls the intrinsic once: out = intrinsic(in0, in1, …)."""
    from tvm.script.ir_builder import IRBuilder
    from tvm.script.ir_builder import tirx as T

    def index(vector: Vector) -> list[Any]:
        return [T.ramp(0, 1, vector.lanes) if vector.lanes > 1 else 0]

    def operand(number: int, kind: Operand) -> Any:
        if isinstance(kind, Immediate):
            return getattr(T, kind.dtype)(kind.value)
        if isinstance(kind, Written):
            return None  # the parameter after all others
        if isinstance(kind, Address):
            return T.arg(f"in{number}", T.buffer((_MEMORY,), "int8")).access_ptr("rw")
        if isinstance(kind, Memory):
            return T.arg(f"in{number}", T.buffer((kind.lanes,), kind.dtype)).access_ptr("r")
        return T.arg(f"in{number}", T.buffer((kind.lanes,), kind.dtype))[index(kind)]

    with IRBuilder() as builder, T.prim_func():
        T.func_name("check")
        operands = [operand(i, kind) for i, kind in enumerate(call.operands)]
        out = T.arg("out", T.buffer((call.result.lanes,), call.result.dtype)) if call.result else None
        written = [i for i, kind in enumerate(call.operands) if isinstance(kind, Written)]
        for i in written:
            operands[i] = out.access_ptr("rw")  # type: ignore[union-attr]
        if call.result is None or written:
            T.evaluate(T.call_llvm_intrin("void", call.name, *operands))
        else:
            dtype = call.result.dtype + (f"x{call.result.lanes}" if call.result.lanes > 1 else "")
            reads = any(isinstance(kind, Memory) for kind in call.operands)
            made = (T.call_llvm_intrin if reads else T.call_llvm_pure_intrin)(dtype, call.name, *operands)
            T.buffer_store(out, made, index(call.result))
    return builder.get()
