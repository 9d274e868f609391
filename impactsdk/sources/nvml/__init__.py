"""NVIDIA boards, read through NVML: the board's own energy counter where it has one, else its power, integrated.

``visible`` says which boards CUDA shows to this process, ``choice`` which of them this process answers for, ``driver`` opens
NVML, ``metrics`` reads one board, ``source`` joins them.
"""

from __future__ import annotations

from impactsdk.sources.nvml.source import NvmlSource, from_settings

__all__ = ["NvmlSource", "from_settings"]
