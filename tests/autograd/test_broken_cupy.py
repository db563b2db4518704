"""A CuPy that is installed but broken: `auto` takes the CPU and says why, `cuda` is refused in one line."""

import sys

import pytest

from autograd import Tensor
from autograd.backend import choose_device

PAGE = """
raise ImportError('''
================================================================
Failed to import CuPy.

Original error:
  OSError: libnvrtc.so.12: cannot open shared object file
================================================================
''') from OSError("libnvrtc.so.12: cannot open shared object file\\nand more")
"""
HALF = "ndarray, float32 = type('ndarray', (), {}), float\nclass cuda:\n"
SOURCES = {  # what is wrong -> (cupy/__init__.py or None for no such file, what the message must say)
    "a page of advice": (PAGE, "OSError: libnvrtc.so.12: cannot open shared object file"),
    "import error": ("raise ImportError('DLL load failed')", "ImportError: DLL load failed"),
    "empty error": ("raise ImportError", "(ImportError)"),
    "missing library": ("raise OSError('libcuda.so.1: no such file')", "OSError: libcuda.so.1: no such file"),
    "missing attribute": ("import numpy\nnumpy.gone", "AttributeError: module 'numpy' has no"),
    "missing module": ("import fastrlock_gone", "ModuleNotFoundError: No module named 'fastrlock_gone'"),
    "other NumPy": ("raise ValueError('numpy.dtype size changed')", "ValueError: numpy.dtype size changed"),
    "cut off": ("def", "SyntaxError: "),
    "empty folder": (None, "AttributeError: module 'cupy' has no attribute 'ndarray'"),
    "empty file": ("", "AttributeError: module 'cupy' has no attribute 'ndarray'"),
    "half": ("class ndarray: pass", "AttributeError: module 'cupy' has no attribute 'cuda'"),
    "no runtime": (HALF + "    pass", "AttributeError: type object 'cuda' has no attribute 'runtime'"),
    "no versions": (
        HALF + "    class runtime:\n        getDeviceCount = lambda: 1 / 0\n",
        "ZeroDivisionError: division by zero",
    ),
}


@pytest.mark.parametrize("fault", SOURCES)
def test_a_broken_cupy(fault, tmp_path, monkeypatch):
    source, message = SOURCES[fault]
    (tmp_path / "cupy").mkdir()
    if source is not None:
        (tmp_path / "cupy/__init__.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    try:
        device, reason = choose_device("auto")
        assert device == "cpu" and message in reason and "\n" not in reason
        for wanted, place in (("cuda", 0), ("cuda", 1), ("cuda:1", 0)):
            with pytest.raises(RuntimeError) as raised:
                choose_device(wanted, place)
            assert message in str(raised.value) and "\n" not in str(raised.value)
        assert float((Tensor([1.0, 2.0]) * 2).sum().data) == 6  # the CPU's arrays are none of its business
    finally:
        sys.modules.pop("cupy", None)
