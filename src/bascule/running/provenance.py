"""Where and with what a result was made, for the record."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bascule.core.restore import repeatable


def own_command() -> str:
    """The command line of this process, without the folder of the program; `python -m bascule ...` of a package."""
    program, *words = sys.argv
    path = Path(program)
    return shlex.join([*(("python", "-m", path.parent.name) if path.name == "__main__.py" else (path.name,)), *words])


def provenance(
    device: torch.device, *, command: str, compiled: bool = False, processes: int = 1, hooks: Sequence[str] = ()
) -> dict[str, Any]:
    """Versions, commit and machine, for the record, with the command, whether the passes were compiled, how many
    processes worked together (each with a device and threads like those named), and the hooks that were told of it, if
    any."""
    return {
        "versions": {
            "bascule": version("bascule"),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "commit": _commit(),
        "host": {
            "system": f"{platform.system()} {platform.machine()}",
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "compiled": compiled,
            **({"processes": processes} if processes > 1 else {}),
            "cuda": _cuda(device),
        },
        "command": command,
        **({"hooks": list(hooks)} if hooks else {}),
    }


def _cuda(device: torch.device) -> dict[str, Any] | None:
    """What decides beside the device how training computes on CUDA: versions, and torch's settings as training has
    them; None elsewhere."""
    if device.type != "cuda":
        return None
    cudnn = torch.backends.cudnn
    with repeatable(device):
        return {
            "version": torch.version.cuda,
            "cudnn": cudnn.version(),
            "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
            "tf32_cudnn": cudnn.allow_tf32,
            "deterministic": cudnn.deterministic,
            "benchmark": cudnn.benchmark,
        }


def _commit() -> str | None:
    """Commit of the package's own checkout, with + when there are changes; None outside one."""
    folder = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
