"""Processor features that compiled kernels may use, by each name that somebody knows them by.

LLVM  ->  what a target's processor implies      Linux  ->  /proc/cpuinfo      C  ->  a test at run time
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Feature:
    """One feature; ``c`` is an expression that is true where the processor has it, or empty."""

    system: str
    llvm: str
    linux: str
    c: str = ""


def _x86(llvm: str, linux: str = "", gcc: str = "") -> Feature:
    return Feature("x86_64", llvm, linux or llvm, f'__builtin_cpu_supports("{gcc or llvm}")')


def _arm(system: str, llvm: str, linux: str, hwcap: str = "") -> Feature:
    # Linux hands every process what it found when it started.
    return Feature(system, llvm, linux, f"(getauxval(AT_HWCAP) & HWCAP_{hwcap or linux.upper()})")


FEATURES = (
    _x86("ssse3"),
    _x86("sse4.1", "sse4_1"),
    _x86("sse4.2", "sse4_2"),
    _x86("popcnt"),
    _x86("avx"),
    _x86("avx2"),
    _x86("fma"),
    _x86("bmi", "bmi1"),
    _x86("bmi2"),
    # Every processor with AVX2 has these, and gcc knows them from version 11 on only: C does not ask.
    Feature("x86_64", "f16c", "f16c"),
    Feature("x86_64", "lzcnt", "abm"),
    Feature("x86_64", "movbe", "movbe"),
    _x86("avx512f"),
    _x86("avx512bw"),
    _x86("avx512cd"),
    _x86("avx512dq"),
    _x86("avx512vl"),
    _x86("avx512ifma"),
    _x86("avx512vbmi"),
    _x86("avx512vbmi2", "avx512_vbmi2"),
    _x86("avx512vnni", "avx512_vnni"),
    _x86("avx512bitalg", "avx512_bitalg"),
    _x86("avx512vpopcntdq", "avx512_vpopcntdq"),
    _arm("aarch64", "neon", "asimd"),
    _arm("aarch64", "lse", "atomics"),
    _arm("aarch64", "rdm", "asimdrdm"),
    _arm("aarch64", "fullfp16", "asimdhp"),
    _arm("aarch64", "dotprod", "asimddp"),
    _arm("aarch64", "sve", "sve"),
    _arm("armv7l", "neon", "neon"),
    _arm("armv7l", "vfp4", "vfpv4", "VFPv4"),
    _arm("armv7l", "hwdiv-arm", "idiva"),
)
ARM_INCLUDES = "#include <asm/hwcap.h>\n#include <sys/auxv.h>"


def needed(system: str, llvm_features: Iterable[str]) -> tuple[str, ...]:
    """Linux names of LLVM's features, those of the table, in its order."""
    known = set(llvm_features)
    return tuple(each.linux for each in FEATURES if each.system == system and each.llvm in known)


def c_checks(system: str, needs: Iterable[str]) -> tuple[str, str]:
    """Includes, and a line of C for each needed feature that C can ask for."""
    wanted = set(needs)
    found = [each for each in FEATURES if each.system == system and each.linux in wanted and each.c]
    lines = [f'  if (!{each.c}) return "{each.linux}";' for each in found]
    return ARM_INCLUDES if found and system != "x86_64" else "", "\n".join(lines)
