"""Where and with what a result was made."""

from __future__ import annotations

import pytest
import torch

from bascule.running.provenance import own_command, provenance


def test_on_cuda_the_settings_that_training_has_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=True, deterministic=False, benchmark=True, allow_tf32=True):
        host = provenance(torch.device("cuda"), command="bascule run x")["host"]
        assert (cudnn.deterministic, cudnn.benchmark) == (False, True)
    assert host["device"] == "NVIDIA H100"
    told = {key: value for key, value in host["cuda"].items() if key not in ("cudnn", "tf32_matmul")}
    assert told == {"version": "13.0", "tf32_cudnn": True, "deterministic": True, "benchmark": False}
    assert host["cuda"]["tf32_matmul"] is torch.backends.cuda.matmul.allow_tf32


def test_on_the_cpu_there_is_no_cuda_to_tell_of() -> None:
    assert provenance(torch.device("cpu"), command="bascule run x")["host"]["cuda"] is None


def test_a_command_can_be_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/lib/bascule/__main__.py", "run", "my study.yaml"])
    assert own_command() == "python -m bascule run 'my study.yaml'"
    monkeypatch.setattr("sys.argv", ["/usr/bin/bascule", "run", "digits"])
    assert own_command() == "bascule run digits"
