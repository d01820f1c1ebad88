"""Which virtual camera devices this system has, and what to do where there is none. Standard library only."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CARD_LABEL = "idm-rt camera"
MODPROBE = f'sudo modprobe v4l2loopback devices=1 exclusive_caps=1 card_label="{CARD_LABEL}"'
RELOAD = f"sudo modprobe -r v4l2loopback && {MODPROBE}"
_REOPENS_FROM = (0, 13)  # earlier v4l2loopback cannot be opened again after its first writer, with exclusive_caps=1
_INSTALL = {
    "debian": "sudo apt install v4l2loopback-dkms linux-headers-$(uname -r)",
    "fedora": "sudo dnf install akmod-v4l2loopback (from RPM Fusion)",
    "arch": "sudo pacman -S v4l2loopback-dkms linux-headers",
    "suse": "sudo zypper install v4l2loopback-kmp-default",
}
_START_OBS = "start its virtual camera once (Start Virtual Camera, then Stop)"
_CLSIDS = {  # DirectShow filters that pyvirtualcam can feed
    "OBS Virtual Camera": "{A3FCE0F5-3493-419F-958A-ABA1250EC20B}",
    "Unity Video Capture": "{5C2CD55C-92AD-4999-8666-912BD3E70010}",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a virtual camera needs."""

    name: str
    ok: bool
    found: str
    cure: str = ""  # what to type or do; empty when ok


@dataclass(frozen=True, slots=True)
class Loopback:
    """A device of v4l2loopback."""

    path: str  # /dev/videoN
    label: str
    writable: bool


def find_virtual_camera(root: Path = Path("/"), system: str = sys.platform) -> list[Finding]:
    """The package and the device, each with what is missing.

    Args:
        root: where the file system begins (for tests).
        system: as in ``sys.platform``.
    """
    return [_package(), device_finding(root, system)]


def device_cure(root: Path = Path("/"), system: str = sys.platform) -> str:
    """What to do after a device could not be opened."""
    finding = device_finding(root, system)
    if not finding.ok:
        return finding.cure
    if system == "linux":
        return f"another program may write to it; see idm-rt camera --list, or load it anew: {RELOAD}"
    return "another program may use it; end that one and try again"


def device_finding(root: Path = Path("/"), system: str = sys.platform) -> Finding:
    """Whether there is a device to write to."""
    if system == "linux":
        return _linux(root)
    if system == "darwin":
        return _macos(root)
    if system == "win32":
        return _windows()
    return Finding("virtual camera", False, f"not supported on {system}", "write a file or a pipe: --output call.y4m")


def loopbacks(root: Path = Path("/")) -> list[Loopback]:
    """Linux: the devices of v4l2loopback, by number."""
    devices = []
    for folder in (root / "sys/devices/virtual/video4linux").glob("video*"):
        node = root / "dev" / folder.name
        label = _text(folder / "name") or folder.name
        devices.append(Loopback(f"/dev/{folder.name}", label, os.access(node, os.R_OK | os.W_OK)))
    return sorted(devices, key=lambda device: (len(device.path), device.path))


def _package() -> Finding:
    try:
        there = importlib.util.find_spec("pyvirtualcam") is not None
    except ValueError:  # put into sys.modules by hand
        there = True
    if not there:
        return Finding("virtual camera package", False, "pyvirtualcam is not installed", "pip install 'idm-rt[camera]'")
    return Finding("virtual camera package", True, "pyvirtualcam is installed")


def _linux(root: Path) -> Finding:
    name = "virtual camera"
    if not (root / "sys/module/v4l2loopback").is_dir():
        return _linux_without_module(root)
    version = _text(root / "sys/module/v4l2loopback/version")
    module = f"v4l2loopback {version}".strip()
    devices = loopbacks(root)
    if not devices:
        return Finding(name, False, f"{module} is loaded but has no device", RELOAD)
    usable = [device for device in devices if device.writable]
    listed = ", ".join(f"{device.path} ({device.label})" for device in devices)
    if not usable:
        cure = 'sudo usermod -aG video "$USER", then log in again'
        return Finding(name, False, f"{module}: {listed} may not be written", cure)
    exclusive = _text(root / "sys/module/v4l2loopback/parameters/exclusive_caps")[:1].upper() in ("Y", "1")
    if not exclusive:
        found = f"{module}: {listed}, loaded without exclusive_caps=1: Chrome and others do not list it"
        return Finding(name, False, found, RELOAD)
    note = ""
    if _number(version) < _REOPENS_FROM:
        note = f"; this version can be opened once only: if it fails the second time, {RELOAD}"
    return Finding(name, True, f"{module}: {listed}{note}")


def _linux_without_module(root: Path) -> Finding:
    name, release = "virtual camera", platform.release()
    modules = root / "lib/modules" / release
    if any(modules.rglob("v4l2loopback.ko*")):
        return Finding(name, False, "v4l2loopback is installed but not loaded", MODPROBE)
    install = _INSTALL.get(_distribution(root), "install v4l2loopback (https://github.com/v4l2loopback/v4l2loopback)")
    if not modules.is_dir():
        found = f"v4l2loopback is not loaded, and there are no modules of kernel {release} here (a container?)"
        return Finding(name, False, found, f"on the host: {install} && {MODPROBE}; or write a file or pipe")
    return Finding(name, False, "v4l2loopback is not installed", f"{install} && {MODPROBE}")


def _distribution(root: Path) -> str:
    """The family of this Linux: a key of ``_INSTALL``, or empty."""
    text = _text(root / "etc/os-release")
    names = " ".join(re.findall(r"^ID(?:_LIKE)?=(.*)$", text, re.MULTILINE)).lower().replace('"', " ").split()
    families = {"ubuntu": "debian", "rhel": "fedora", "opensuse": "suse"}
    found = [families.get(name, name) for name in names]
    return next((name for name in found if name in _INSTALL), "")


def _macos(root: Path) -> Finding:
    if (root / "Applications/OBS.app").exists():
        found = "OBS is installed; its camera extension must have been allowed once"
        return Finding("virtual camera", True, found)
    cure = f"install OBS 30 or newer (brew install --cask obs), {_START_OBS}, allow it in System Settings"
    return Finding("virtual camera", False, "OBS is not installed", cure)


def _windows() -> Finding:
    found = [name for name, clsid in _CLSIDS.items() if _is_registered(clsid)]
    if found:
        return Finding("virtual camera", True, ", ".join(found))
    cure = f"install OBS (winget install OBSProject.OBSStudio) and {_START_OBS}"
    return Finding("virtual camera", False, "neither OBS Virtual Camera nor Unity Video Capture is registered", cure)


def _is_registered(clsid: str) -> bool:
    try:
        import winreg
    except ImportError:  # not Windows
        return False
    registry: Any = winreg  # its functions are known to type checkers on Windows alone
    try:
        registry.OpenKey(registry.HKEY_CLASSES_ROOT, rf"CLSID\{clsid}").Close()
    except OSError:
        return False
    return True


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
