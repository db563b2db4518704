"""What `auto` says about the device that it chose: of CuPy only where there may be an NVIDIA GPU."""

import importlib.util

import pytest

from autograd import backend

SIGNS = {  # a file of the system -> its text
    "dev/nvidia0": "",
    "proc/driver/nvidia/gpus/0000:01:00.0/information": "",
    "usr/lib/wsl/lib/nvidia-smi": "",
    "sys/bus/pci/devices/0000:01:00.0/class": "0x030200",
}
NO_SIGNS = {"dev/nvidiactl": "", "dev/null": "", "sys/bus/pci/devices/0000:00:02.0/class": "0x030000"}


def write(root, files, vendor):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
        if name.endswith("/class"):
            (root / name).with_name("vendor").write_text(vendor)


@pytest.fixture
def no_tool(monkeypatch):
    monkeypatch.setattr(backend.shutil, "which", lambda name: None)


@pytest.mark.parametrize("name", SIGNS)
def test_signs_of_a_gpu(name, tmp_path, no_tool):
    write(tmp_path, {name: SIGNS[name]}, vendor="0x10de")
    assert len(backend.nvidia_signs(str(tmp_path))) == 1


def test_no_signs_of_a_gpu(tmp_path, no_tool):
    write(tmp_path, NO_SIGNS, vendor="0x8086")  # Intel's
    write(tmp_path, {"sys/bus/pci/devices/0000:01:00.1/class": "0x040300"}, vendor="0x10de")  # sound
    assert backend.nvidia_signs(str(tmp_path)) == []


def test_the_tool_is_a_sign(tmp_path, monkeypatch):
    monkeypatch.setattr(backend.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert backend.nvidia_signs(str(tmp_path)) == ["/usr/bin/nvidia-smi"]


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed")
def test_without_cupy(monkeypatch):
    monkeypatch.setattr(backend, "nvidia_signs", list)
    assert backend.choose_device("auto") == ("cpu", "no NVIDIA GPU found")
    assert backend.choose_device("cpu") == ("cpu", "as asked")
    with pytest.raises(RuntimeError, match="no CuPy for cuda:1: pip install"):
        backend.choose_device("cuda:1")
    monkeypatch.setattr(backend, "nvidia_signs", lambda: ["dev/nvidia0"])
    device, reason = backend.choose_device("auto")
    assert device == "cpu" and reason.startswith("no CuPy for cuda: pip install")
