"""``idm-rt engines build|list|verify|clean``: what runs the networks, and the plans built for it."""

from __future__ import annotations

import argparse

from idm_rt.backends import probe_engines
from idm_rt.backends.nvidia import first_gpu
from idm_rt.backends.trt.building import ensure_plan
from idm_rt.backends.trt.library import ENGINE_NAMES, FLAVOURS, load_library
from idm_rt.backends.trt.network import MAX_BATCH
from idm_rt.backends.trt.plan_key import plan_key
from idm_rt.backends.trt.plan_store import PlanStore
from idm_rt.cli.output import Console
from idm_rt.engine_check import EngineCheck, check_engine_output
from idm_rt.errors import ConfigError, EngineError
from idm_rt.model_manifest import ModelManifest
from idm_rt.model_store import find_model


def run(options: argparse.Namespace, console: Console) -> int:
    """Run the chosen action; returns the exit code."""
    return {"build": _build, "list": _list, "verify": _verify, "clean": _clean}[options.action](options, console)


def _build(options: argparse.Namespace, console: Console) -> int:
    """Build the plans of one engine, or of each that is installed; an error if not one can be built."""
    if options.batch > MAX_BATCH:
        raise ConfigError(f"batch is {options.batch}; a plan takes 1 to {MAX_BATCH} faces, more are cut into several")
    if options.engine not in ("auto", *ENGINE_NAMES):
        raise ConfigError(f"engine {options.engine} needs no build; choose one of {', '.join(ENGINE_NAMES)}")
    if options.require_gpu and first_gpu() is None:
        raise EngineError("no NVIDIA GPU was found here, and --require-gpu asks for one; check with nvidia-smi")
    manifest = find_model(options.model)
    if options.engine != "auto":
        _build_one(options.engine, manifest, console)
        return 0
    refusals = []
    for engine in ENGINE_NAMES:
        try:
            _build_one(engine, manifest, console)
        except EngineError as error:
            refusals.append(f"{engine}: {error}")
            console.say(f"-   {engine}: {error}")
    if len(refusals) == len(ENGINE_NAMES):
        raise EngineError(f"no plan can be built here; {'; '.join(refusals)}")
    return 0


def _build_one(engine: str, manifest: ModelManifest, console: Console) -> None:
    library, store = load_library(engine), PlanStore()
    key = plan_key(FLAVOURS[engine], library.version, manifest, first_gpu())
    there = store.fault(key) is None
    plan = ensure_plan(store, key, manifest.verified_file("onnx_fp16"))
    state = "was there" if there else "is built"
    console.say(f"ok  {engine} {key.version}: the plan of {manifest.name} {state}, {len(plan) / 1e6:.1f} MB")
    console.say(f"    {store.path(key)}")
    if first_gpu() is None:
        console.say("    it runs on every GPU the library supports; none was found here, so it was not run")


def _list(options: argparse.Namespace, console: Console) -> int:
    for status in probe_engines():
        if options.engine in ("auto", status.name):
            mark = "ok" if status.available and status.applicable else "-"
            console.say(f"{mark:<4}{status.name:<13}{status.version or '':<13}{status.reason}")
    store = PlanStore()
    plans = [plan for plan in store.plans() if options.engine in ("auto", plan.engine)]
    console.say(f"{len(plans)} built plans in {store.folder}")
    for plan in plans:
        key = plan.key or {}
        gpu = f"{key.get('gpu', '?')} GPU" if key.get("gpu") == "any" else str(key.get("gpu", "?"))
        facts = f"{plan.engine} {key.get('version', '?')}, {key.get('model', '?')}, {gpu}"
        console.say(f"{'ok' if plan.fault is None else 'BAD':<4}{plan.size / 1e6:6.1f} MB  {plan.path.name}  {facts}")
        if plan.fault is not None:
            console.say(f"    {plan.fault}; it will be built again")
    return 0


def _verify(options: argparse.Namespace, console: Console) -> int:
    """Compare with the reference; 1 when an engine is not within its tolerance."""
    manifest = find_model(options.model)
    if options.steps is not None and options.steps not in manifest.steps:
        raise ConfigError(
            f"steps is {options.steps}; model {manifest.name} offers {', '.join(map(str, manifest.steps))}"
        )
    steps = (options.steps,) if options.steps is not None else None
    checks = check_engine_output(options.engine, manifest, options.batch, steps, options.require_gpu, options.precision)
    for check in checks:
        console.say(_line(check))
    bad = [check for check in checks if not check.ok]
    if bad:
        raise EngineError(
            f"engine {bad[0].engine} is {bad[0].psnr_db:.1f} dB from {bad[0].reference} at {bad[0].steps} steps, "
            f"expected {bad[0].tolerance_db:g} or more; use another one with --engine and report this"
        )
    return 0


def _line(check: EngineCheck) -> str:
    return (
        f"{'ok' if check.ok else 'BAD':<4}{check.engine} ({check.precision} on {check.device}), batch {check.batch}, "
        f"steps {check.steps}: {check.psnr_db:.1f} dB from {check.reference} f32 "
        f"(at least {check.tolerance_db:g} wanted), largest difference {check.worst:.2f} of 255"
    )


def _clean(options: argparse.Namespace, console: Console) -> int:
    store = PlanStore()
    engine = None if options.engine == "auto" else options.engine
    removed = store.clean(engine, options.model)
    console.say(f"{len(removed)} files removed from {store.folder}")
    return 0
