"""What is missing for a virtual camera, on pretended systems."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from idm_rt import virtual_devices
from idm_rt.virtual_devices import MODPROBE, RELOAD, device_finding, find_virtual_camera, loopbacks

UBUNTU = 'NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\n'


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def module(root: Path, version: str = "0.13.2", exclusive: str = "Y,N,N,N") -> None:
    write(root / "sys/module/v4l2loopback/version", version + "\n")
    write(root / "sys/module/v4l2loopback/parameters/exclusive_caps", exclusive + "\n")


def device(root: Path, number: int, label: str = "idm-rt camera", mode: int = 0o660) -> None:
    write(root / f"sys/devices/virtual/video4linux/video{number}/name", label + "\n")
    os.chmod(write(root / f"dev/video{number}"), mode)


def linux(root: Path) -> virtual_devices.Finding:
    return device_finding(root, "linux")


def test_the_modprobe_line_is_the_documented_one() -> None:
    assert MODPROBE == 'sudo modprobe v4l2loopback devices=1 exclusive_caps=1 card_label="idm-rt camera"'


def test_a_loaded_module_with_a_device_is_well(tmp_path: Path) -> None:
    module(tmp_path)
    device(tmp_path, 10)
    finding = linux(tmp_path)
    assert finding.ok and finding.cure == ""
    assert finding.found == "v4l2loopback 0.13.2: /dev/video10 (idm-rt camera)"
    assert [found.path for found in loopbacks(tmp_path)] == ["/dev/video10"]


def test_devices_are_sorted_by_number(tmp_path: Path) -> None:
    for number in (10, 2, 9):
        device(tmp_path, number)
    assert [found.path for found in loopbacks(tmp_path)] == ["/dev/video2", "/dev/video9", "/dev/video10"]


def test_not_installed_names_the_distributions_own_command(tmp_path: Path) -> None:
    (tmp_path / "lib/modules" / platform.release()).mkdir(parents=True)
    for text, words in (
        (UBUNTU, "sudo apt install v4l2loopback-dkms"),
        ("ID=debian\n", "sudo apt install v4l2loopback-dkms"),
        ("ID=fedora\n", "sudo dnf install akmod-v4l2loopback"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "sudo zypper install v4l2loopback-kmp-default"),
        ("ID=manjaro\nID_LIKE=arch\n", "sudo pacman -S v4l2loopback-dkms"),
        ("", "install v4l2loopback (https://github.com"),
    ):
        write(tmp_path / "etc/os-release", text)
        finding = linux(tmp_path)
        assert not finding.ok and finding.found == "v4l2loopback is not installed"
        assert finding.cure.startswith(words) and finding.cure.endswith(MODPROBE)


def test_installed_but_not_loaded(tmp_path: Path) -> None:
    write(tmp_path / "lib/modules" / platform.release() / "updates/dkms/v4l2loopback.ko.xz")
    assert linux(tmp_path).found == "v4l2loopback is installed but not loaded" and linux(tmp_path).cure == MODPROBE


def test_a_container_is_told_to_ask_its_host(tmp_path: Path) -> None:
    finding = linux(tmp_path)
    assert "a container?" in finding.found and finding.cure.startswith("on the host: ") and MODPROBE in finding.cure


def test_a_module_without_a_device_or_exclusive_caps_is_loaded_anew(tmp_path: Path) -> None:
    module(tmp_path)
    assert linux(tmp_path).cure == RELOAD
    module(tmp_path, exclusive="N,N")
    device(tmp_path, 0)
    assert not linux(tmp_path).ok and "Chrome" in linux(tmp_path).found and linux(tmp_path).cure == RELOAD


def test_an_old_version_warns_that_it_opens_once_only(tmp_path: Path) -> None:
    module(tmp_path, version="0.12.7")
    device(tmp_path, 0)
    assert linux(tmp_path).ok and "opened once only" in linux(tmp_path).found


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_device_without_rights_names_the_group(tmp_path: Path) -> None:
    module(tmp_path)
    device(tmp_path, 0, mode=0o000)
    assert 'usermod -aG video "$USER"' in linux(tmp_path).cure


def test_rights_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module(tmp_path)
    device(tmp_path, 0)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert not linux(tmp_path).ok and 'usermod -aG video "$USER"' in linux(tmp_path).cure


def test_macos(tmp_path: Path) -> None:
    missing = device_finding(tmp_path, "darwin")
    assert not missing.ok and "brew install --cask obs" in missing.cure
    (tmp_path / "Applications/OBS.app").mkdir(parents=True)
    assert device_finding(tmp_path, "darwin").ok


def test_windows_without_and_with_obs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_devices, "_is_registered", lambda clsid: False)
    assert "winget install OBSProject.OBSStudio" in device_finding(Path("/"), "win32").cure
    monkeypatch.setattr(virtual_devices, "_is_registered", lambda clsid: clsid.startswith("{A3FC"))
    assert device_finding(Path("/"), "win32").found == "OBS Virtual Camera"


def test_other_systems_are_told_about_files() -> None:
    assert "--output" in device_finding(Path("/"), "freebsd14").cure


def test_the_package_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_devices.importlib.util, "find_spec", lambda name: None)
    package, _ = find_virtual_camera(tmp_path, "linux")
    assert not package.ok and package.cure == "pip install 'idm-rt[camera]'"
