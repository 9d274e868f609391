"""Which processor this is, as far as ``/proc/cpuinfo`` and the firmware's name of the machine tell.

Recognition goes by model number where that is the silicon's own, else by the instruction sets that a hypervisor lets through,
else by the cloud provider, else not at all; the basis is part of the answer. Nothing here touches the machine.

A virtual machine may be shown the model of an older processor, so that it can move between hosts (QEMU's ``Skylake-Server``,
``EPYC-Rome``): its name is not that of any processor on sale. The silicon is that model or any newer one.

Model numbers: Linux ``arch/x86/include/asm/intel-family.h``, ``arch/x86/kernel/cpu/amd.c`` and
``arch/arm64/include/asm/cputype.h``; QEMU ``target/i386/cpu.c`` for what a guest is shown,
the names included.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Literal

__all__ = ["GENERIC", "Basis", "Processor", "Recognition", "parse_cpuinfo", "recognise"]

Basis = Literal["model", "flags", "provider", "generic"]

GENERIC = "generic"
"""The architecture of a processor that is not recognised."""


@dataclass(frozen=True, slots=True)
class Processor:
    """What the first processor of ``/proc/cpuinfo`` says of itself; ``None`` where it says nothing.

    ``implementer`` and ``part`` are those of an ARM core. ``threads_per_core`` is what is switched on, as this machine sees it.
    """

    vendor: str = ""
    family: int | None = None
    model: int | None = None
    stepping: int | None = None
    flags: frozenset[str] = frozenset()
    implementer: int | None = None
    part: int | None = None
    threads_per_core: int | None = None
    name: str = ""

    @property
    def without_smt(self) -> bool:
        """Whether this is an x86 processor on bare metal with one thread per core; a hypervisor shows its threads as cores."""
        return self.threads_per_core == 1 and bool(self.vendor) and "hypervisor" not in self.flags


@dataclass(frozen=True, slots=True)
class Recognition:
    """An architecture, and how it was found.

    Args:
        architecture: A row of ``cpu_power.csv``, or :data:`GENERIC`.
        basis: ``model``: its number. ``flags``: its instruction sets. ``provider``: only whose cloud it is.
            ``generic``: nothing.
        or_else: Other rows that the evidence cannot tell from this one.
    """

    architecture: str
    basis: Basis
    or_else: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "unrecognised CPU" if self.architecture == GENERIC else f"{self.architecture} (by {self.basis})"


# Family 6. Skylake-SP, Cascade Lake and Cooper Lake share model 85 and are told apart by stepping.
_INTEL: dict[int, str] = {
    **dict.fromkeys((42, 45), "Sandy Bridge"),
    **dict.fromkeys((58, 62), "Ivy Bridge"),
    **dict.fromkeys((60, 63, 69, 70), "Haswell"),
    **dict.fromkeys((61, 71, 79, 86), "Broadwell"),
    **dict.fromkeys((78, 94), "Skylake"),
    **dict.fromkeys((142, 158, 165), "Coffee Lake"),
    **dict.fromkeys((106, 108, 134), "Ice Lake"),  # 134: what QEMU's Icelake-Server shows; see _ATOM_WITHOUT_AVX
    143: "Sapphire Rapids",
    207: "Emerald Rapids",
    **dict.fromkeys((173, 174), "Granite Rapids"),
}
# Family 6 without a row whose instruction sets would suggest a wrong one: Xeon Phi, and laptops and desktops with AVX-512.
_INTEL_WITHOUT_ROW = frozenset({87, 102, 125, 126, 133, 140, 141, 167})

# The number is that of an Atom core (Tremont, of Snow Ridge and Jacobsville), which has no AVX.
_ATOM_WITHOUT_AVX = 134

# Family -> (first model, last model, architecture).
_AMD: dict[int, tuple[tuple[int, int, str], ...]] = {
    23: ((0x00, 0x2F, "EPYC 1st Gen"), (0x30, 0xFF, "EPYC 2nd Gen")),
    24: ((0x00, 0xFF, "EPYC 1st Gen"),),  # Hygon Dhyana, Zen 1 under licence
    25: (
        (0x00, 0x0F, "EPYC 3rd Gen"),
        (0x10, 0x1F, "EPYC 4th Gen"),
        (0x20, 0x5F, "EPYC 3rd Gen"),
        (0x60, 0x7F, "EPYC 4th Gen"),
        (0xA0, 0xAF, "EPYC 4th Gen"),
    ),
    26: ((0x00, 0x4F, "EPYC 5th Gen"), (0x60, 0x7F, "EPYC 5th Gen")),  # the rest of the family is Zen 6
}

# All of the flags, newest first. A hypervisor may hide flags, never invent them: what is found is the oldest that it can be.
_INTEL_FLAGS: tuple[tuple[frozenset[str], Recognition], ...] = (
    (frozenset({"amx_tile"}), Recognition("Sapphire Rapids", "flags", ("Emerald Rapids", "Granite Rapids"))),
    (frozenset({"avx512_fp16"}), Recognition("Sapphire Rapids", "flags", ("Emerald Rapids", "Granite Rapids"))),
    (frozenset({"avx512_vbmi2", "vaes"}), Recognition("Ice Lake", "flags")),
    (frozenset({"avx512_vnni"}), Recognition("Cascade Lake", "flags")),
    (frozenset({"avx512f"}), Recognition("Skylake", "flags")),
    # One whose AVX-512 is missing, or hidden, which says too little: not taken (see _intel), but newer than what follows.
    (frozenset({"avx2", "adx", "rdseed", "clflushopt"}), Recognition("Coffee Lake", "flags")),
    (frozenset({"avx2", "adx", "rdseed"}), Recognition("Broadwell", "flags")),
    (frozenset({"avx2", "bmi2"}), Recognition("Haswell", "flags")),
    (frozenset({"avx", "f16c", "rdrand"}), Recognition("Ivy Bridge", "flags")),
    (frozenset({"avx"}), Recognition("Sandy Bridge", "flags")),
)
_AMD_FLAGS: tuple[tuple[frozenset[str], Recognition], ...] = (
    (frozenset({"avx512_vp2intersect"}), Recognition("EPYC 5th Gen", "flags")),
    (frozenset({"avx_vnni"}), Recognition("EPYC 5th Gen", "flags")),
    (frozenset({"avx512f"}), Recognition("EPYC 4th Gen", "flags")),
    (frozenset({"vaes"}), Recognition("EPYC 3rd Gen", "flags")),
    (frozenset({"clwb"}), Recognition("EPYC 2nd Gen", "flags")),
    (frozenset({"clzero"}), Recognition("EPYC 1st Gen", "flags")),
    (frozenset({"avx2", "sha_ni"}), Recognition("EPYC 1st Gen", "flags")),
)
# The chain of server cores in which a hypervisor may show an older model than the silicon that the flags betray.
_INTEL_AGE = ("Skylake", "Cascade Lake", "Ice Lake", "Sapphire Rapids")

# What processors on sale are called: Intel's all have the sign of a trademark; AMD's and Hygon's have a number of four places
# or more (7763, 9R14, 7945HX, 7950X3D), or the name of a line that no hypervisor makes up. And what Firecracker calls AMD's,
# whose model it shows as it is.
_ON_SALE = {
    "GenuineIntel": re.compile(r"\(R\)|\(TM\)"),
    "AuthenticAMD": re.compile(r"\b\d\w{3,}|\bRyzen\b|^AMD EPYC$"),
}

# ARM Ltd's cores in Amazon's own processors; elsewhere the same cores sit in processors that are nothing like them.
_GRAVITON = {0xD0C: "Graviton2", 0xD40: "Graviton3", 0xD4F: "Graviton4"}


def parse_cpuinfo(text: str) -> Processor:
    """The first processor in the text of ``/proc/cpuinfo``."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip().lower(), value.strip())
    siblings, cores = _integer(fields.get("siblings")), _integer(fields.get("cpu cores"))
    return Processor(
        vendor=fields.get("vendor_id", ""),
        family=_integer(fields.get("cpu family")),
        model=_integer(fields.get("model")),
        stepping=_integer(fields.get("stepping")),
        flags=frozenset((fields.get("flags") or fields.get("features") or "").split()),
        implementer=_integer(fields.get("cpu implementer")),
        part=_integer(fields.get("cpu part")),
        threads_per_core=siblings // cores if siblings and cores else None,
        name=fields.get("model name", ""),
    )


def recognise(processor: Processor, *, sys_vendor: str = "", product_name: str = "") -> Recognition:
    """The architecture of a processor; ``sys_vendor`` and ``product_name`` are the firmware's (DMI)."""
    provider = _provider(sys_vendor, product_name)
    found: Recognition | None = None
    if processor.vendor == "GenuineIntel":
        found = _intel(processor)
    elif processor.vendor in ("AuthenticAMD", "HygonGenuine"):
        found = _amd(processor)
    elif processor.implementer == 0x41 and provider == "unknown_aws" and processor.part in _GRAVITON:
        found = Recognition(_GRAVITON[processor.part], "model")
    if found is not None and found.basis == "model" and _only_shown(processor, sys_vendor):
        return replace(found, or_else=_newer_than(found.architecture, processor.vendor))
    if found is not None:
        return found
    return Recognition(GENERIC, "generic") if provider is None else Recognition(provider, "provider")


def _intel(processor: Processor) -> Recognition | None:
    model = processor.model if processor.family == 6 else None
    if model in _INTEL_WITHOUT_ROW or (model == _ATOM_WITHOUT_AVX and "avx" not in processor.flags):
        return None
    by_flags = _by_flags(_INTEL_FLAGS, processor.flags)
    if by_flags is not None and by_flags.architecture not in _INTEL_AGE and "clflushopt" in processor.flags:
        by_flags = None
    by_model = None if model is None else _INTEL.get(model)
    if model == 85 and processor.stepping is not None:
        by_model = "Skylake" if processor.stepping <= 4 else "Cascade Lake" if processor.stepping in (5, 6, 7, 10, 11) else None
    if by_model is None:
        return by_flags
    if by_flags is not None and by_model in _INTEL_AGE and by_flags.architecture in _INTEL_AGE:
        newer = _INTEL_AGE.index(by_flags.architecture) > _INTEL_AGE.index(by_model)
        return by_flags if newer else Recognition(by_model, "model")
    return Recognition(by_model, "model")


def _amd(processor: Processor) -> Recognition | None:
    if processor.family is not None and processor.model is not None:
        for first, last, architecture in _AMD.get(processor.family, ()):
            if first <= processor.model <= last:
                return Recognition(architecture, "model")
    return _by_flags(_AMD_FLAGS, processor.flags)


def _only_shown(processor: Processor, sys_vendor: str) -> bool:
    """Whether a hypervisor shows the number of a model that need not be the silicon's."""
    if "hypervisor" not in processor.flags or not processor.vendor:
        return False
    if processor.name in ("", "unknown"):  # a sandbox: it hides the name, not the number
        return sys_vendor == "QEMU"
    return not _ON_SALE.get(processor.vendor, _ON_SALE["AuthenticAMD"]).search(processor.name)


def _newer_than(architecture: str, vendor: str) -> tuple[str, ...]:
    table = _INTEL_FLAGS if vendor == "GenuineIntel" else _AMD_FLAGS
    newest_first = dict.fromkeys(name for _, found in table for name in (*reversed(found.or_else), found.architecture))
    return tuple(takewhile(lambda name: name != architecture, newest_first))


def _by_flags(table: tuple[tuple[frozenset[str], Recognition], ...], flags: frozenset[str]) -> Recognition | None:
    """The first row that fits; behind a hypervisor, which shows old instruction sets of new silicon, or any that is newer."""
    newer: dict[str, None] = {}
    for needed, found in table:
        if needed <= flags:
            newer.pop(found.architecture, None)
            return replace(found, or_else=(*newer,)) if newer and "hypervisor" in flags else found
        newer |= dict.fromkeys((found.architecture, *found.or_else))
    return None


def _provider(sys_vendor: str, product_name: str) -> str | None:
    """The provider's row. Chromebooks are "Google" and Surface laptops "Microsoft Corporation" too: the product tells."""
    if sys_vendor.startswith("Amazon"):
        return "unknown_aws"
    if sys_vendor == "Google" and "Compute Engine" in product_name:
        return "unknown_gcp"
    if sys_vendor.startswith("Microsoft") and product_name == "Virtual Machine":
        return "unknown_azure"
    return None


def _integer(text: str | None) -> int | None:
    """A decimal or 0x number; some sandboxes say ``unknown``."""
    try:
        return None if text is None else int(text, 0)
    except ValueError:
        return None
