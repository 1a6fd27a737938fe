"""Timing pairs of functions in one run: CPU process time, or CUDA events, in turn, medians and their ratio."""

from __future__ import annotations

import ctypes
import gc
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"
MIB = 2**20


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """How long one call takes: process time on a CPU (other programs do not count), event time on a GPU."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000
    began = time.process_time()
    function()
    return time.process_time() - began


def compare(
    functions: dict[str, Callable[[], object]], *, device: torch.device, rounds: int, warmup: int = 2
) -> dict[str, float]:
    """Median seconds of each function; they run in turn, A B A B, so drift of the machine hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for round_number in range(warmup + rounds):
        for name, function in functions.items():
            taken = seconds(function, device)
            if round_number >= warmup:
                times[name].append(taken)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_mib(function: Callable[[], object], device: torch.device) -> float:
    """MiB that a call needs at its peak, beyond what was there before it; NaN where the system does not tell.

    On a CPU it is the resident set's high-water mark (Linux), which does not see what the allocator had in store.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        return math.nan
    ctypes.CDLL(None).malloc_trim(0)
    clear.write_text("5")
    before = _status("VmRSS")
    function()
    return (_status("VmHWM") - before) / MIB


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def save(name: str, figures: dict[str, object], *, keep: bool = True) -> None:
    """Print the figures and, with `keep`, keep them with date, hardware, versions and command."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    record = {
        "date": date.today().isoformat(),
        "command": f"python benchmarks/{Path(sys.argv[0]).name}",
        "hardware": {"processor": _processor(), "threads": torch.get_num_threads(), "gpu": gpu},
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        **figures,
    }
    if keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
