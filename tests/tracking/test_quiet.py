from __future__ import annotations

import logging
import os

import pytest

from idm_rt.tracking.quiet import quiet_native_stderr


def native(text: str) -> None:
    os.write(2, text.encode())


def test_chatter_goes_to_the_log_and_the_rest_comes_through(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with quiet_native_stderr(("XNNPACK",)):
        native("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nE0000 out of memory\n")
    native("after\n")
    assert capfd.readouterr().err == "E0000 out of memory\nafter\n"
    assert "XNNPACK delegate" in caplog.text


def test_stderr_is_put_back_when_the_block_raises(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), quiet_native_stderr(("chatter",)):
        native("chatter\n")
        raise KeyError("x")
    native("heard\n")
    assert capfd.readouterr().err == "heard\n"
