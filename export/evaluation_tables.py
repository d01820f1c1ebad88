"""The tables of an evaluation; reports of earlier versions, with fewer measures, are shown as well."""

from __future__ import annotations

from typing import Any

from export.tables import Table

Means = dict[str, dict[str, float]]

# measures that not every report has: key, heading, digits
EXTRA = (("excess", "excess power", 3), ("frechet", "Frechet", 1), ("brisque", "BRISQUE", 1), ("lpips", "LPIPS", 3),
         ("dists", "DISTS", 3), ("musiq", "MUSIQ", 1))  # fmt: skip


# What the project set itself, per level: gain in dB, vgg-hed and identity as shares of the input's
GOALS = {"call-medium": (1.3, 0.58, 0.85), "call-hard": (1.3, 0.58, 0.88)}


def evaluation_tables(report: dict[str, Any]) -> list[Table]:
    """Every table of a report of ``export.evaluate``."""
    tables = []
    for level, result in report["levels"].items():
        caption = f"`{level}`, {result['faces']} faces of people never trained on:"
        tables.append(contestant_table(caption, result["mean"], result.get("truth")))
        if "few" in result:
            few = result["few"]
            caption = f"`{level}`, the {few['faces']} of these faces on which the slow baselines ran too:"
            tables.append(contestant_table(caption, few["mean"], few.get("truth")))
        if "faces_per_source" in result:
            tables.append(source_table(level, result, report["model"]))
    return [goal_table(report), *tables, clean_table(report["clean"])]


def goal_table(report: dict[str, Any]) -> Table:
    """How far one step got towards the goals; a level without goals has no row."""
    rows = []
    for level, (gain, vgg, identity) in GOALS.items():
        if level not in report["levels"]:
            continue
        means = report["levels"][level]["mean"]
        base = means["input"]
        ours = next(m for name, m in means.items() if name.startswith(f"{report['model']}, steps"))
        reached = [f"{ours['psnr_db'] - base['psnr_db']:+.2f} ({gain:+.1f})"]
        for key, goal in (("vgg_hed", vgg), ("identity", identity)):
            reached.append(f"{ours[key] / base[key]:.2f} ({goal:.2f})" if base[key] else "")
        rows.append([level, *reached])
    return Table(
        "One step against the goals (in brackets):", ["", "gain, dB", "vgg-hed of input", "identity of input"], rows
    )


def contestant_table(caption: str, means: Means, truth: dict[str, float] | None = None) -> Table:
    """One row per contestant; distances also as a share of the input's."""
    base = means["input"]
    extra = [(key, label, digits) for key, label, digits in EXTRA if key in base]
    header = ["", "PSNR, dB", "SSIM", "vgg-hed", "of input", "identity", "of input", *(label for _, label, _ in extra)]
    rows = []
    for name, m in means.items():
        shares = [m[key] / base[key] if base[key] else 1.0 for key in ("vgg_hed", "identity")]
        cells = [name, f"{m['psnr_db']:.2f}", f"{m['ssim']:.3f}"]
        cells += [f"{m['vgg_hed']:.3f}", f"{shares[0]:.2f}", f"{m['identity']:.3f}", f"{shares[1]:.2f}"]
        rows.append(cells + [f"{m[key]:.{digits}f}" if key in m else "" for key, _, digits in extra])
    if truth and extra:
        own = [f"{truth[key]:.{digits}f}" if key in truth else "" for key, _, digits in extra]
        rows.append(["truth", *[""] * 6, *own])
    return Table(caption, header, rows)


def source_table(level: str, result: dict[str, Any], model: str) -> Table:
    """Each source of faces: what one step gains there."""
    header = ["", "faces", "input, dB", "gain, dB", "vgg-hed of input", "identity of input"]
    rows = []
    for source, means in result["per_source"].items():
        base = means["input"]
        ours = next(m for name, m in means.items() if name.startswith(f"{model}, steps"))
        shares = [f"{ours[key] / base[key]:.2f}" if base[key] else "" for key in ("vgg_hed", "identity")]
        gain = f"{ours['psnr_db'] - base['psnr_db']:+.2f}"
        rows.append([source, str(result["faces_per_source"][source]), f"{base['psnr_db']:.2f}", gain, *shares])
    return Table(f"`{level}`, by source of the photos, one step against the input:", header, rows)


def clean_table(clean: Means) -> Table:
    """What becomes of good faces."""
    header = ["", "PSNR(f(x), x), dB", "identity(f(x), x)", "PSNR(f(f(x)), f(x)), dB"]
    rows = [
        [name, f"{m['psnr_db']:.1f}", f"{m['identity']:.3f}", f"{m['psnr_again_db']:.1f}"] for name, m in clean.items()
    ]
    return Table("Clean faces (a good face is to be left alone):", header, rows)


def title(report: dict[str, Any]) -> str:
    """Which model, where it ran, and what could not be measured."""
    head = f"Model `{report['model']}` {report['version']}, engine {report['engine']}."
    absent = "; ".join(f"{name} ({reason})" for name, reason in report.get("absent", {}).items())
    return f"{head} Not measured: {absent}." if absent else head


def markdown(report: dict[str, Any]) -> str:
    """The tables of a report."""
    return "\n\n".join([title(report), *(table.to_markdown() for table in evaluation_tables(report))]) + "\n"
