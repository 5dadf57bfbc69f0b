"""The whole run of `bench.gpu` on CPU tensors and the interpreting driver, arrays cut to a few entries."""

import json
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import pytest

from bench import gpu_cases, survivor
from fastsoftmax import registry
from tests.cuda import lockstep

torch = pytest.importorskip("torch")

FEW = 9  # entries along an axis


def small(case):
    return replace(case, shape=tuple(min(k, FEW) for k in case.shape))


def small_ones(make):
    """Cases or timed cases, cut; one of those that become the same."""
    cases = [replace(c, case=small(c.case)) if hasattr(c, "case") else small(c) for c in make()]
    return lambda: {getattr(c, "case", c): c for c in cases}.values()


@pytest.fixture
def gpu(installed, monkeypatch):
    """The module, as if a GPU were there; times are those of a clock that counts calls."""
    for name in ("checks", "times", "tutorial"):
        monkeypatch.setattr(gpu_cases, name, small_ones(getattr(gpu_cases, name)))
    monkeypatch.setattr(gpu_cases, "HOST", tuple(map(small, gpu_cases.HOST)))
    monkeypatch.setattr(gpu_cases, "NUMPY_ARRAYS", small(gpu_cases.NUMPY_ARRAYS))
    monkeypatch.delitem(sys.modules, "bench.gpu", raising=False)
    monkeypatch.setenv("FASTSOFTMAX_CUDA_CACHE", "not used")
    import_module("fastsoftmax._cuda.operations")  # anew, as `installed` wants it
    module = import_module("bench.gpu")
    registry._backends["cuda"] = registry._builtin("cuda", 0)
    calls = import_module("fastsoftmax._cuda.calls")
    on_host = import_module("tests.cuda.test_torch")._OnHost(installed)
    monkeypatch.setattr(calls, "kind_of", lambda a: on_host)
    monkeypatch.setattr(calls, "on_device", torch.is_tensor)
    monkeypatch.setattr(module, "DEVICE", "cpu")
    monkeypatch.setattr(module, "ROTATED", 1)
    module.timed_by_graphs = module.seconds
    monkeypatch.setattr(module, "seconds", lambda call, buffers: call(*buffers[0]) is None or 0.5)
    monkeypatch.setattr(module, "_host_time", lambda call: call() is None or 0.5)
    monkeypatch.setattr(module.shutil, "which", lambda tool: None)
    for name, value in {
        "synchronize": lambda: None,
        "empty_cache": lambda: None,
        "get_device_name": lambda: "Pretended GPU",
        "get_device_capability": lambda: (9, 0),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(module.subprocess, "run", lambda *args, **options: SimpleNamespace(returncode=0))
    monkeypatch.setattr(survivor, "run", run_here)
    yield module
    del sys.modules["bench.gpu"]


def run_here(make_jobs, is_usable, record, until):
    """`survivor.run` without the process, which `test_bench_survivor.py` has."""
    names = iter([job.name for job in make_jobs()])

    class Pipe:
        name = next(names)

        def send(self, message):
            row, usable = message
            if row is None:
                self.name = next(names, None)
                assert usable
            else:
                record.add(job=self.name, **row)

    survivor._work(make_jobs, is_usable, 0, Pipe())


def assert_all_rows_appear(gpu, rows):
    assert {job.name for job in gpu.jobs()} <= {row.get("job") for row in rows}


def run(gpu, tmp_path):
    status = gpu.main(["--to", str(tmp_path / "gpu.jsonl")])
    return status, [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]


def test_all_rows_appear(gpu, tmp_path, installed, capsys):
    status, rows = run(gpu, tmp_path)
    assert_all_rows_appear(gpu, rows)
    assert [row for row in rows if "error" in row or row.get("ok") is False] == []
    assert all(isinstance(row["against_torch"], float) for row in rows if "of_floor" in row)
    assert status == 0
    assert rows[0]["gpu"] == "Pretended GPU"
    assert rows[-1]["wrong"] == 0
    assert (tmp_path / "gpu.md").read_text() in capsys.readouterr().out
    launched = {step.spec for step, _ in installed.launches}
    assert launched <= set(gpu_cases.specs())


def test_a_wrong_kernel_is_reported(gpu, tmp_path, monkeypatch):
    class Wrong(lockstep._Cuda):
        def shfl_xor_sync(self, mask, value, offset):
            received = super().shfl_xor_sync(mask, value, offset)
            return value if offset == 1 else received

    make_target = lockstep.make_target

    def make(plan):
        return SimpleNamespace(**vars(make_target(plan)) | {"cuda": Wrong()})

    monkeypatch.setattr(lockstep, "make_target", make)
    status, rows = run(gpu, tmp_path)
    wrong = {row["job"] for row in rows if row.get("ok") is False}
    assert any(name.startswith("check softmax (9, 9) float32") for name in wrong)
    assert_all_rows_appear(gpu, rows)
    assert status == 1


def test_a_launch_error_is_reported(gpu, tmp_path, installed, monkeypatch):
    launch = installed.launch

    def failing(step, args, stream):
        if step.spec.module == "vjp":
            raise RuntimeError("CUDA driver error CUDA_ERROR_LAUNCH_FAILED")
        launch(step, args, stream)

    monkeypatch.setattr(installed, "launch", failing)
    status, rows = run(gpu, tmp_path)
    failed = {row["job"] for row in rows if "LAUNCH_FAILED" in row.get("error", "")}
    names = {job.name for job in gpu.jobs()}
    assert failed == {name for name in names if " softmax_vjp" in name} | {"host"}
    assert_all_rows_appear(gpu, rows)
    assert status == 1


def test_compiler_and_sanitizer_have_what_time_is_left(gpu, monkeypatch):
    def endless(command, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(gpu.shutil, "which", lambda tool: tool)
    monkeypatch.setattr(gpu.subprocess, "run", endless)
    assert list(gpu.sanitize(0)) == [{"tool": tool, "skipped": "no time left"} for tool in gpu.SANITIZED]
    assert list(gpu.compile_kernels((9, 0), 0)) == [{"skipped": "no time left"}]


def test_short_rows_alone(gpu, installed):
    gpu.main(["--small"])
    assert installed.launches


def test_times_are_of_graph_replays(gpu, monkeypatch):
    """On a pretended graph: buffers in turn after two calls that compile, and a call's part of the median."""
    called, elapsed = [], iter([9.0] + [4.0] * 30)
    event = SimpleNamespace(elapsed_time=lambda end: next(elapsed))
    event.record = event.synchronize = lambda: None
    monkeypatch.setattr(torch.cuda, "Stream", lambda: "stream")
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: None))
    monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: event)
    assert gpu.timed_by_graphs(called.append, [["a"], ["b"], ["c"]]) == 4e-3 / 8
    assert called == ["a", "b", *"abcabcab"]
