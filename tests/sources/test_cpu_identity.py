from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impactsdk.sources.cpu_identity import GENERIC, Processor, Recognition, parse_cpuinfo, recognise
from impactsdk.sources.cpu_model import power_for, power_table

INTEL, AMD = "GenuineIntel", "AuthenticAMD"

HASWELL = "avx f16c rdrand avx2 bmi1 bmi2"
BROADWELL = f"{HASWELL} adx rdseed"
SKYLAKE = f"{BROADWELL} clflushopt clwb avx512f avx512dq avx512cd avx512bw avx512vl"
CASCADE_LAKE = f"{SKYLAKE} avx512_vnni"
ICE_LAKE = f"{CASCADE_LAKE} avx512_vbmi avx512_vbmi2 vaes vpclmulqdq sha_ni"
SAPPHIRE_RAPIDS = f"{ICE_LAKE} avx512_fp16 avx512_bf16 amx_tile amx_int8 amx_bf16 avx_vnni"
ZEN1 = "avx f16c rdrand avx2 bmi1 bmi2 adx rdseed clflushopt sha_ni clzero sse4a"
ZEN2 = f"{ZEN1} clwb rdpid umip"
ZEN3 = f"{ZEN2} vaes vpclmulqdq erms fsrm"
ZEN4 = f"{ZEN3} avx512f avx512_vnni avx512_vbmi2 avx512_bf16"
ZEN5 = f"{ZEN4} avx_vnni avx512_vp2intersect movdiri"

# vendor, family, model, stepping, flags -> architecture, basis
CPUS = {
    "Xeon E5-2670": (INTEL, 6, 45, 7, "avx", "Sandy Bridge", "model"),
    "Core i7-2600": (INTEL, 6, 42, 7, "avx", "Sandy Bridge", "model"),
    "Xeon E5-2680 v2": (INTEL, 6, 62, 4, "avx f16c rdrand", "Ivy Bridge", "model"),
    "Xeon E5-2699 v3": (INTEL, 6, 63, 2, HASWELL, "Haswell", "model"),
    "Xeon E5-2686 v4": (INTEL, 6, 79, 1, BROADWELL, "Broadwell", "model"),
    "Xeon D-1540": (INTEL, 6, 86, 2, BROADWELL, "Broadwell", "model"),
    "Xeon Platinum 8175M": (INTEL, 6, 85, 4, SKYLAKE, "Skylake", "model"),
    "Xeon E3-1270 v5": (INTEL, 6, 94, 3, f"{BROADWELL} clflushopt", "Skylake", "model"),
    "Xeon Platinum 8259CL": (INTEL, 6, 85, 7, CASCADE_LAKE, "Cascade Lake", "model"),
    "Xeon Platinum 8376H (Cooper Lake)": (INTEL, 6, 85, 11, CASCADE_LAKE, "Cascade Lake", "model"),
    "Xeon E-2288G": (INTEL, 6, 158, 13, f"{BROADWELL} clflushopt", "Coffee Lake", "model"),
    "Core i7-8565U": (INTEL, 6, 142, 12, f"{BROADWELL} clflushopt", "Coffee Lake", "model"),
    "Xeon Platinum 8375C": (INTEL, 6, 106, 6, ICE_LAKE, "Ice Lake", "model"),
    "Xeon D-2796TE": (INTEL, 6, 108, 1, ICE_LAKE, "Ice Lake", "model"),
    "Xeon Platinum 8488C": (INTEL, 6, 143, 8, SAPPHIRE_RAPIDS, "Sapphire Rapids", "model"),
    "Xeon Gold 6542Y": (INTEL, 6, 207, 2, SAPPHIRE_RAPIDS, "Emerald Rapids", "model"),
    "Xeon 6972P": (INTEL, 6, 173, 1, SAPPHIRE_RAPIDS, "Granite Rapids", "model"),
    "EPYC 7601": (AMD, 23, 1, 2, ZEN1, "EPYC 1st Gen", "model"),
    "Ryzen 7 2700X": (AMD, 23, 8, 2, ZEN1, "EPYC 1st Gen", "model"),
    "EPYC 7R32": (AMD, 23, 49, 0, ZEN2, "EPYC 2nd Gen", "model"),
    "Ryzen 9 3950X": (AMD, 23, 113, 0, ZEN2, "EPYC 2nd Gen", "model"),
    "Hygon C86 7185": ("HygonGenuine", 24, 0, 1, ZEN1, "EPYC 1st Gen", "model"),
    "EPYC 7763": (AMD, 25, 1, 1, ZEN3, "EPYC 3rd Gen", "model"),
    "Ryzen 9 5950X": (AMD, 25, 33, 0, ZEN3, "EPYC 3rd Gen", "model"),
    "EPYC 9R14": (AMD, 25, 17, 1, ZEN4, "EPYC 4th Gen", "model"),
    "EPYC 8434P": (AMD, 25, 160, 2, ZEN4, "EPYC 4th Gen", "model"),
    "Ryzen 9 7950X": (AMD, 25, 97, 2, ZEN4, "EPYC 4th Gen", "model"),
    "EPYC 9655": (AMD, 26, 2, 1, ZEN5, "EPYC 5th Gen", "model"),
    "EPYC Venice": (AMD, 26, 80, 0, ZEN5, "EPYC 5th Gen", "flags"),
    # Guests that are shown an older or an invented model.
    "QEMU Icelake-Server": (INTEL, 6, 134, 0, ICE_LAKE, "Ice Lake", "model"),
    "kvm64 on Sapphire Rapids": (INTEL, 15, 6, 1, SAPPHIRE_RAPIDS, "Sapphire Rapids", "flags"),
    "qemu64 on Ice Lake": (INTEL, 6, 13, 3, ICE_LAKE, "Ice Lake", "flags"),
    "kvm64 on Cascade Lake": (INTEL, 15, 6, 1, CASCADE_LAKE, "Cascade Lake", "flags"),
    "kvm64 on Skylake": (INTEL, 15, 6, 1, SKYLAKE, "Skylake", "flags"),
    "kvm64 on Broadwell": (INTEL, 15, 6, 1, BROADWELL, "Broadwell", "flags"),
    "kvm64 on Haswell": (INTEL, 15, 6, 1, HASWELL, "Haswell", "flags"),
    "kvm64 on Ivy Bridge": (INTEL, 15, 6, 1, "avx f16c rdrand", "Ivy Bridge", "flags"),
    "kvm64 on Sandy Bridge": (INTEL, 15, 6, 1, "avx", "Sandy Bridge", "flags"),
    "Skylake model over Ice Lake silicon": (INTEL, 6, 85, 4, ICE_LAKE, "Ice Lake", "flags"),
    "Ice Lake model over Sapphire Rapids silicon": (INTEL, 6, 134, 0, SAPPHIRE_RAPIDS, "Sapphire Rapids", "flags"),
    "Cascade Lake whose AVX-512 is hidden": (INTEL, 6, 85, 7, f"{BROADWELL} clflushopt", "Cascade Lake", "model"),
    "model 85 of an unknown stepping": (INTEL, 6, 85, 9, CASCADE_LAKE, "Cascade Lake", "flags"),
    "kvm64 on Zen": (AMD, 15, 6, 1, ZEN1, "EPYC 1st Gen", "flags"),
    "kvm64 on Zen 2": (AMD, 15, 6, 1, ZEN2, "EPYC 2nd Gen", "flags"),
    "kvm64 on Zen 3": (AMD, 15, 6, 1, ZEN3, "EPYC 3rd Gen", "flags"),
    "kvm64 on Zen 4": (AMD, 15, 6, 1, ZEN4, "EPYC 4th Gen", "flags"),
    "kvm64 on Zen 5": (AMD, 15, 6, 1, ZEN5, "EPYC 5th Gen", "flags"),
    # Nothing to go by.
    "Common KVM processor": (INTEL, 15, 6, 1, "sse2 sse3", GENERIC, "generic"),
    "Xeon Phi 7250": (INTEL, 6, 87, 1, f"{BROADWELL} avx512f avx512er", GENERIC, "generic"),
    "Core i7-1165G7": (INTEL, 6, 140, 1, ICE_LAKE, GENERIC, "generic"),
    "Core i9-13900K": (INTEL, 6, 183, 1, f"{BROADWELL} clflushopt vaes avx_vnni", GENERIC, "generic"),
    "Xeon 6780E (Sierra Forest)": (INTEL, 6, 175, 3, f"{BROADWELL} clflushopt vaes avx_vnni", GENERIC, "generic"),
    "Atom P5942B (Snow Ridge)": (INTEL, 6, 134, 4, "sse4_2 rdrand rdseed clflushopt clwb sha_ni gfni", GENERIC, "generic"),
    "Opteron 6276": (AMD, 21, 1, 2, "avx fma4", GENERIC, "generic"),
    "Zhaoxin KX-6000": ("CentaurHauls", 7, 59, 0, "avx avx2 bmi2", GENERIC, "generic"),
}


@pytest.mark.parametrize("name", CPUS)
def test_a_processor_is_recognised(name: str) -> None:
    vendor, family, model, stepping, flags, architecture, basis = CPUS[name]
    text = (
        f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: {name}\n"
        f"stepping\t: {stepping}\nflags\t\t: fpu {flags}\n\nprocessor\t: 1\nvendor_id\t: other\n"
    )
    found = recognise(parse_cpuinfo(text))
    assert (found.architecture, found.basis) == (architecture, basis)
    assert found.architecture in power_table()


ARM = "processor\t: 0\nFeatures\t: fp asimd evtstrm\nCPU implementer\t: 0x41\nCPU part\t: {part}\nCPU revision\t: 1\n"


@pytest.mark.parametrize(
    ("part", "vendor", "expected"),
    [
        ("0xd0c", "Amazon EC2", Recognition("Graviton2", "model")),
        ("0xd40", "Amazon EC2", Recognition("Graviton3", "model")),
        ("0xd4f", "Amazon EC2", Recognition("Graviton4", "model")),
        ("0xd08", "Amazon EC2", Recognition("unknown_aws", "provider")),
        ("0xd0c", "Ampere", Recognition(GENERIC, "generic")),
        ("0xd4f", "NVIDIA", Recognition(GENERIC, "generic")),
    ],
)
def test_an_arm_core_is_a_graviton_only_at_amazon(part: str, vendor: str, expected: Recognition) -> None:
    assert recognise(parse_cpuinfo(ARM.format(part=part)), sys_vendor=vendor) == expected


@pytest.mark.parametrize(
    ("vendor", "product", "architecture"),
    [
        ("Amazon EC2", "m7i.large", "unknown_aws"),
        ("Microsoft Corporation", "Virtual Machine", "unknown_azure"),
        ("Google", "Google Compute Engine", "unknown_gcp"),
        ("Microsoft Corporation", "Surface Laptop 5", GENERIC),
        ("Google", "Eve", GENERIC),
        ("QEMU", "Standard PC", GENERIC),
        ("", "", GENERIC),
    ],
)
def test_an_unknown_processor_takes_the_provider_s_row(vendor: str, product: str, architecture: str) -> None:
    found = recognise(Processor(), sys_vendor=vendor, product_name=product)
    assert found == Recognition(architecture, "generic" if architecture == GENERIC else "provider")


def test_the_processor_goes_before_the_provider() -> None:
    found = recognise(Processor(vendor=AMD, family=25, model=17), sys_vendor="Amazon EC2")
    assert found == Recognition("EPYC 4th Gen", "model")


def test_flags_that_three_architectures_share_name_the_others_too() -> None:
    found = recognise(Processor(vendor=INTEL, family=15, model=6, flags=frozenset(SAPPHIRE_RAPIDS.split())))
    assert found.or_else == ("Emerald Rapids", "Granite Rapids")


INTEL_BY_AGE = ["Sandy Bridge", "Ivy Bridge", "Haswell", "Broadwell", "Coffee Lake", "Skylake", "Cascade Lake", "Ice Lake"]
INTEL_BY_AGE += ["Sapphire Rapids", "Emerald Rapids", "Granite Rapids"]
AMD_BY_AGE = [f"EPYC {generation} Gen" for generation in ("1st", "2nd", "3rd", "4th", "5th")]


@pytest.mark.parametrize(
    ("vendor", "flags", "by_age"),
    [
        (INTEL, "avx avx2 bmi1 bmi2 f16c fma movbe", INTEL_BY_AGE[2:]),  # QEMU x86-64-v3
        (INTEL, "avx", INTEL_BY_AGE),
        (INTEL, SKYLAKE, INTEL_BY_AGE[5:]),
        (INTEL, SAPPHIRE_RAPIDS, INTEL_BY_AGE[8:]),
        (AMD, "avx2 sha_ni", AMD_BY_AGE),
        (AMD, ZEN5, AMD_BY_AGE[4:]),
    ],
)
def test_a_generic_model_behind_a_hypervisor_may_be_any_that_is_newer(vendor: str, flags: str, by_age: list[str]) -> None:
    shown = Processor(vendor=vendor, family=15, model=107, stepping=1, flags=frozenset(f"{flags} hypervisor".split()))
    found = recognise(shown)
    assert (found.architecture, found.basis) == (by_age[0], "flags")
    assert set(found.or_else) == set(by_age[1:])
    power = power_for(found)
    for newer in by_age:
        assert power.max_low_w <= power_table()[newer].max_w <= power.max_high_w
        assert power.idle_low_w <= power_table()[newer].idle_w <= power.idle_high_w


@pytest.mark.parametrize(
    ("vendor", "family", "model", "flags", "name", "sys_vendor", "newer"),
    [
        (INTEL, 6, 85, SKYLAKE, "Intel Xeon Processor (Skylake, IBRS)", "Hetzner", INTEL_BY_AGE[6:]),
        (INTEL, 6, 60, HASWELL, "Intel Core Processor (Haswell, no TSX)", "QEMU", INTEL_BY_AGE[3:]),
        (INTEL, 6, 143, SAPPHIRE_RAPIDS, "Intel Xeon Processor (SapphireRapids)", "QEMU", INTEL_BY_AGE[9:]),
        (INTEL, 6, 207, SAPPHIRE_RAPIDS, "Intel Xeon Processor (SapphireRapids)", "QEMU", INTEL_BY_AGE[10:]),
        (INTEL, 6, 106, ICE_LAKE, "", "QEMU", INTEL_BY_AGE[8:]),
        (INTEL, 6, 106, ICE_LAKE, "", "", []),
        (INTEL, 6, 85, SKYLAKE, "Intel(R) Xeon(R) Platinum 8175M CPU @ 2.50GHz", "QEMU", []),
        (INTEL, 6, 85, SKYLAKE, "Intel(R) Xeon(R) CPU @ 2.00GHz", "Google", []),
        (AMD, 23, 49, ZEN2, "AMD EPYC-Rome-v3 Processor", "QEMU", AMD_BY_AGE[2:]),
        (AMD, 23, 1, ZEN1, "AMD EPYC Processor (with IBPB)", "OpenStack Foundation", AMD_BY_AGE[1:]),
        (AMD, 23, 49, ZEN2, "AMD EPYC 7R32", "Amazon EC2", []),
        (AMD, 25, 1, ZEN3, "AMD EPYC 7763 64-Core Processor", "QEMU", []),
        (AMD, 25, 1, ZEN3, "AMD EPYC", "", []),
        (AMD, 25, 80, ZEN3, "AMD Ryzen 7 5800HS with Radeon Graphics", "", []),
        (AMD, 25, 97, ZEN4, "AMD Ryzen 9 7950X3D 16-Core Processor", "QEMU", []),
        (AMD, 25, 116, ZEN4, "AMD Ryzen Z1 Extreme", "", []),
        (AMD, 25, 160, ZEN4, "AMD EPYC 8534PN 64-Core Processor", "QEMU", []),
        (AMD, 26, 2, ZEN5, "AMD EPYC-Turin Processor", "QEMU", []),
        ("HygonGenuine", 24, 0, ZEN1, "Hygon Dhyana Processor", "QEMU", AMD_BY_AGE[1:]),
    ],
)
def test_a_model_that_a_hypervisor_only_shows_may_be_any_that_is_newer(
    vendor: str, family: int, model: int, flags: str, name: str, sys_vendor: str, newer: list[str]
) -> None:
    text = (
        f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n"
        f"model name\t: {name}\nstepping\t: 3\nflags\t\t: {flags}"
    )
    found = recognise(parse_cpuinfo(f"{text} hypervisor\n"), sys_vendor=sys_vendor)
    assert found.basis == "model"
    assert set(found.or_else) == set(newer)
    assert power_for(found).max_high_w >= max((power_table()[each].max_high_w for each in newer), default=0.0)
    assert recognise(parse_cpuinfo(f"{text}\n"), sys_vendor=sys_vendor).or_else == (), "bare metal"


def test_a_sandbox_that_does_not_know_the_stepping_is_understood() -> None:
    text = "vendor_id : GenuineIntel\ncpu family : 6\nmodel : 85\nstepping : unknown\nflags : avx512f avx512_vnni\n"
    processor = parse_cpuinfo(text)
    assert processor.stepping is None
    assert recognise(processor) == Recognition("Cascade Lake", "flags")


@settings(deadline=None)
@given(st.text(), st.text(), st.text())
def test_any_text_is_understood_somehow(text: str, vendor: str, product: str) -> None:
    assert recognise(parse_cpuinfo(text), sys_vendor=vendor, product_name=product).architecture in power_table()


@settings(deadline=None)
@given(
    st.builds(
        Processor,
        vendor=st.sampled_from([INTEL, AMD, "HygonGenuine", ""]),
        family=st.none() | st.integers(0, 30),
        model=st.none() | st.integers(0, 255),
        stepping=st.none() | st.integers(0, 15),
        flags=st.frozensets(st.sampled_from(f"{SAPPHIRE_RAPIDS} {ZEN5}".split())),
        implementer=st.none() | st.just(0x41),
        part=st.none() | st.integers(0xD00, 0xDFF),
    )
)
def test_every_recognition_has_its_row(processor: Processor) -> None:
    found = recognise(processor, sys_vendor="Amazon EC2")
    assert {found.architecture, *found.or_else} <= set(power_table())
