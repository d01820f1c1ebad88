"""Fixtures that more than one area uses. This file also puts tests/ on the import path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_model import SIZE, write_tiny_model


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the figures that tests measured (``record_property``); reports quote them."""
    reports = [report for report in terminalreporter.getreports("passed") if report.user_properties]
    if reports:
        terminalreporter.section("figures")
    for report in reports:
        terminalreporter.line(
            f"{report.nodeid}: {', '.join(f'{name} {value}' for name, value in report.user_properties)}"
        )


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small model with random weights, exported as a shipped one is. Read only: copy it to change it."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def face_crops() -> np.ndarray:
    """(3, SIZE, SIZE, 3) uint8 RGB: three different crops of a real photo (public domain)."""
    import cv2
    from skimage.data import astronaut

    photo = astronaut()
    regions = [photo[0:256, 96:352], photo[30:190, 150:310], photo[64:192, 160:288]]
    return np.stack([cv2.resize(region, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for region in regions])
