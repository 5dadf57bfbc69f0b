"""The CUDA kernels on a GPU: right first, then fast. ``make bench-gpu``, or from a bare checkout on a machine
with torch, numba-cuda and cuda-core: ``PYTHONPATH=. python3 -m bench.gpu``.

Results are held to the bounds of the tests in lockstep, against longdouble. Times are CUDA graph replays over
buffers that together exceed the L2 cache; each is given as a ratio to a plain copy (addition, fill) of the
same bytes in this run, since absolute figures carry to no other machine. Each row is on disk, as a line of
JSON, and printed as it comes; what is wrong is a row too, and ends nothing. ``make cuda-cache`` compiles the
kernels beforehand, without a GPU.
"""

import argparse
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
import zlib
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle, islice
from pathlib import Path

# Before numba-cuda is imported, which looks for libnvvm there.
if "CUDA_HOME" not in os.environ and (nvcc := shutil.which("nvcc")):
    os.environ["CUDA_HOME"] = str(Path(nvcc).resolve().parents[1])

import numpy as np
import torch

from bench import gpu_cases, survivor
from bench.survivor import Job
from tests.cuda import exact
from tests.inputs import SPECIAL_ROWS

os.environ.setdefault("FASTSOFTMAX_CUDA_CACHE", str(gpu_cases.CACHE))

from fastsoftmax._cuda import operations as fs

RESULTS = Path(__file__).parent / "results"
ROTATED = 512 << 20  # bytes of buffers in turn: ten times an H100's L2
CALLS = 8  # in a graph
REPLAYS = 25
SANITIZED = ("memcheck", "racecheck")
DEVICE = "cuda"


def jobs():
    """Everything, in order of value."""
    for case in gpu_cases.checks():
        yield Job(f"check {case.name}", partial(check, case))
    for case in gpu_cases.specials():
        yield Job(f"special rows {case.name}", partial(check_special, case))
    yield Job("check NumPy arrays", check_numpy_arrays)
    for timed in gpu_cases.times():
        yield Job(f"time {timed.case.name}", partial(time_case, timed))
    yield Job("host", host_times)
    yield Job("geomean", geomean_against_torch)


def is_usable():
    """Whether this process can go on with the GPU, which an illegal address ends."""
    try:
        torch.cuda.synchronize()
    except Exception:
        return False
    torch.cuda.empty_cache()
    return True


# ---- right ---------------------------------------------------------------------------------------


def check(case):
    """One op against longdouble: the largest error as a part of what is allowed."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    x = exact.to_stored(rng.normal(size=case.canonical) * 4, case.dtype)
    wide = partial(exact.from_stored, storage=case.dtype)
    on_gpu = partial(to_gpu, case)
    if case.op in gpu_cases.FORWARD:
        yield compared(
            getattr(fs, case.op)(on_gpu(x), case.axis), *exact.forward(case.op, wide(x), case.dtype)
        )
    elif case.op == "cross_entropy_with_grad":
        yield from _check_cross_entropy(case, x, rng)
    else:
        first = "log_softmax" if case.op.startswith("log") else "softmax"
        y = exact.to_stored(exact.forward(first, wide(x), case.dtype)[0], case.dtype)
        if case.op == "softmax_jacobian":
            yield compared(fs.softmax_jacobian(on_gpu(y)), *exact.jacobian(wide(y), case.dtype))
            return
        g = exact.to_stored(rng.normal(size=x.shape) + 3, case.dtype)
        actual = getattr(fs, case.op)(on_gpu(y), on_gpu(g), case.axis)
        yield compared(actual, *exact.product(case.op, wide(y), wide(g), case.dtype))


def _check_cross_entropy(case, x, rng):
    options = dict(case.options)
    outer, n, inner = x.shape
    labels = rng.integers(0, n, (outer, inner))
    weight = None
    if options.pop("weight", False):
        weight = rng.uniform(0.5, 2, n).astype("float64" if case.dtype == "float64" else "float32")
    known = np.where(labels == options.get("ignore_index"), -1, labels)
    mean, factor = options["reduction"] == "mean", 1
    if mean:
        factor = 1 / np.longdouble((weight if weight is not None else np.ones(n))[labels].sum(dtype=float))
    smoothing = options.get("label_smoothing", 0.0)
    (loss, allowed), (dx, dx_allowed) = exact.cross_entropy(
        exact.from_stored(x, case.dtype), known, weight, smoothing, factor, case.dtype
    )
    kept = case.shape[: case.axis % len(case.shape)] + case.shape[case.axis % len(case.shape) + 1 :]
    given = {} if weight is None else {"weight": torch.from_numpy(weight).to(DEVICE)}
    actual = fs.cross_entropy_with_grad(
        to_gpu(case, x), torch.from_numpy(labels.reshape(kept)).to(DEVICE), case.axis, **options, **given
    )
    if mean:  # the divisor, its reciprocal and the result are rounded
        loss, allowed = loss.sum() * factor, allowed.sum() * factor
        allowed, dx_allowed = allowed + exact.ulp(loss, case.dtype), 1.3 * dx_allowed
    yield {"part": "loss", **compared(actual[0], loss, allowed)}
    yield {"part": "dx", **compared(actual[1], dx, dx_allowed)}


def check_special(case):
    """Rows with NaN and infinities: the agreed answers."""
    rows = list(SPECIAL_ROWS.values())
    x = exact.to_stored(np.array([row.row for row in rows], float)[:, :, None], case.dtype)
    wanted = np.array([getattr(row, case.op) for row in rows], np.longdouble)
    with np.errstate(invalid="ignore"):
        allowed = 2 * exact.EPS[case.dtype] * np.abs(wanted)
    yield compared(getattr(fs, case.op)(to_gpu(case, x)), wanted, allowed)


def check_numpy_arrays():
    """There and back, by the public function, which asks whether the backend is available."""
    import fastsoftmax

    yield {"status": fastsoftmax.backend_status()["cuda"]}
    x = np.random.default_rng(0).normal(size=gpu_cases.NUMPY_ARRAYS.shape).astype(np.float32)
    y = fastsoftmax.softmax(x, backend="cuda")
    wanted, allowed = exact.forward("softmax", x.astype(np.longdouble)[:, :, None], "float32")
    yield _row(y[:, :, None].astype(np.longdouble), wanted, allowed)


def to_gpu(case, stored):
    """Stored values as a tensor on the GPU, of the case's shape and distance from an aligned address."""
    flat = np.append(np.zeros(case.offset, stored.dtype), stored.reshape(-1))
    if case.dtype == "bfloat16":
        flat = torch.from_numpy(flat.view(np.int16)).view(torch.bfloat16)
    return torch.as_tensor(flat).to(DEVICE)[case.offset :].view(case.shape)


def compared(actual, wanted, allowed):
    """A row: the largest difference as a part of what is allowed."""
    dtype = str(actual.dtype)[6:]
    flat = actual.detach().cpu()
    stored = flat.view(torch.int16).numpy().view(np.uint16) if dtype == "bfloat16" else flat.numpy()
    return _row(exact.from_stored(stored, dtype).reshape(wanted.shape), wanted, allowed)


def _row(actual, wanted, allowed):
    worst = exact.excess(actual, wanted, allowed)
    return {"of_allowed": round(worst, 3), "ok": worst <= 1}


# ---- fast ----------------------------------------------------------------------------------------


def seconds(call, buffers):
    """Median time of one call, replayed over the buffers in turn."""
    turns = list(islice(cycle(buffers), max(CALLS, len(buffers))))
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        for arrays in turns[:2]:  # compiles
            call(*arrays)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for arrays in turns:
            call(*arrays)
    return statistics.median(_replays(graph)) / len(turns)


def _replays(graph):
    graph.replay()
    for _ in range(REPLAYS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        yield start.elapsed_time(end) / 1e3


def buffers_of(case):
    """Sets of arrays, the last for the result, in number enough to leave the cache."""
    n = case.canonical[1]
    shapes = {
        "softmax_jacobian": [case.shape, (*case.shape, n)],
        "softmax_vjp": [case.shape] * 3,
        "logsumexp": [case.shape, case.shape[:-1]],
    }.get(case.op, [case.shape] * 2)
    dtype = getattr(torch, case.dtype)
    size = sum(map(math.prod, shapes)) * dtype.itemsize
    torch.manual_seed(zlib.crc32(case.name.encode()))
    for _ in range(max(2, math.ceil(ROTATED / size))):
        arrays = [
            torch.randn(math.prod(shape) + case.offset, device=DEVICE).to(dtype)[case.offset :].view(shape)
            for shape in shapes
        ]
        if case.op in ("softmax_vjp", "softmax_jacobian"):
            arrays[0].copy_(torch.softmax(arrays[0], -1))
        if case.op == "cross_entropy_with_grad":
            arrays.insert(1, torch.randint(n, case.shape[:-1], device=DEVICE))
        yield arrays


def _torch_cross_entropy(x, labels, out):
    """What autograd runs, without its bookkeeping."""
    logy = torch.log_softmax(x, -1)
    loss = torch.nn.functional.nll_loss(logy, labels)
    g = torch.zeros_like(x).scatter_(1, labels[:, None], -1 / len(x))
    torch.ops.aten._log_softmax_backward_data.out(g, logy, -1, x.dtype, out=out)
    return loss


# Ours, what moves the same bytes, and torch's, each of a case's arrays; `axis` is softmax's alone.
CALLABLES = {
    "softmax": (
        lambda x, out, axis=-1: fs.softmax(x, axis, out=out),
        lambda x, out: out.copy_(x),
        lambda x, out, axis=-1: torch.softmax(x, axis, out=out),
    ),
    "log_softmax": (
        lambda x, out: fs.log_softmax(x, out=out),
        lambda x, out: out.copy_(x),
        lambda x, out: torch.log_softmax(x, -1, out=out),
    ),
    "logsumexp": (
        lambda x, out: fs.logsumexp(x, out=out),
        lambda x, out: torch.amax(x, -1, out=out),
        lambda x, out: torch.logsumexp(x, -1, out=out),
    ),
    "softmax_vjp": (
        lambda y, g, out: fs.softmax_vjp(y, g, out=out),
        lambda y, g, out: torch.add(y, g, out=out),
        lambda y, g, out: torch.ops.aten._softmax_backward_data(g, y, -1, y.dtype),
    ),
    "softmax_jacobian": (
        lambda y, out: fs.softmax_jacobian(y, out=out),
        lambda y, out: out.fill_(0.5),
        lambda y, out: torch.sub(torch.diag_embed(y), y[:, :, None] * y[:, None, :]),
    ),
    "cross_entropy_with_grad": (
        lambda x, labels, out: fs.cross_entropy_with_grad(x, labels, out=out),
        lambda x, labels, out: out.copy_(x),
        _torch_cross_entropy,
    ),
}


def time_case(timed):
    """A case's speed beside the floor's and torch's."""
    case = timed.case
    buffers = list(buffers_of(case))
    ours, floor, peer = CALLABLES[case.op]
    if case.axis != -1:
        ours, peer = partial(ours, axis=case.axis), partial(peer, axis=case.axis)
    took = seconds(ours, buffers)
    moved = sum(a.numel() * a.element_size() for a in buffers[0] if a.is_floating_point())
    if case.op == "softmax_jacobian":
        moved = buffers[0][-1].numel() * buffers[0][-1].element_size()  # the rest stays in the cache
    yield {
        "regime": timed.regime,
        "us": round(took * 1e6, 2),
        "gigabytes": round(moved / took / 1e9),
        "of_floor": _times_as_fast(took, floor, buffers),
        "accept": timed.accept,
        "aim": timed.aim,
        "against_torch": _times_as_fast(took, peer, buffers),
        "wanted_against_torch": timed.against_torch,
    }


def _times_as_fast(took, other, buffers):
    """As the other call; or what it raised, where it does not run here."""
    try:
        return round(seconds(other, buffers) / took, 3)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def geomean_against_torch():
    """GPU.md's over the tutorial's shapes; accepted at 1.4."""
    ours, _, peer = CALLABLES["softmax"]
    ratios = []
    for case in gpu_cases.tutorial():
        buffers = list(buffers_of(case))
        ratios.append(seconds(peer, buffers) / seconds(ours, buffers))
        yield {"case": case.name, "against_torch": round(ratios[-1], 3)}
    yield {"geomean": round(statistics.geometric_mean(ratios), 3), "accept": 1.4}


def host_times():
    """What one call takes of the host's time, for a small array; torch's own beside it."""
    for case in gpu_cases.HOST:
        arrays = next(buffers_of(case))
        ours, _, peer = (partial(call, *arrays) for call in CALLABLES[case.op])
        yield {
            "case": case.name,
            "host_us": round(_host_time(ours), 2),
            "torch_us": round(_host_time(peer), 2),
        }


def _host_time(call, repeats=200):
    times = []
    for _ in range(20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        times.append((time.perf_counter() - start) / repeats * 1e6)
    return statistics.median(times)


# ---- the run -------------------------------------------------------------------------------------


def versions():
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in ("torch", "numba-cuda", "cuda-core", "cuda-bindings", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "-"
    return found


def sanitize(until):
    """The checks of short rows under compute-sanitizer, where it is installed; yields rows."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        yield {"skipped": "compute-sanitizer is not installed"}
        return
    for of in SANITIZED:
        command = [tool, "--tool", of, "--error-exitcode", "9", sys.executable, "-m", "bench.gpu", "--small"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=max(1, until - time.time())
            )
            yield {"tool": of, "ok": done.returncode == 0, "said": (done.stdout + done.stderr)[-1000:]}
        except subprocess.TimeoutExpired:
            yield {"tool": of, "skipped": "no time left"}


def check_small():
    """Short rows in this process, as under the sanitizer; what is wrong raises."""
    for case in gpu_cases.checks():
        if math.prod(case.shape) < 10_000:
            for row in check(case):
                if not row["ok"]:
                    raise AssertionError(f"{case.name}: {row}")
    torch.cuda.synchronize()


def compile_kernels(capability, until):
    """As many as there is time for; the rest is compiled where it is needed. Yields a row."""
    started = time.time()
    command = [sys.executable, "-m", "bench.gpu_cases", "--capability", "{}{}".format(*capability)]
    try:
        done = subprocess.run(command, timeout=until - started)
        yield {"ok": done.returncode == 0, "seconds": round(time.time() - started, 1)}
    except subprocess.TimeoutExpired:
        yield {"skipped": "no time left"}


def table(rows):
    """Markdown of the rows with times."""
    yield "| regime | case | us | GB/s | of the floor | accept | aim | against torch | wanted |"
    yield "|---|---|---|---|---|---|---|---|---|"
    columns = ("regime", "job", "us", "gigabytes", "of_floor", "accept", "aim", "against_torch")
    for row in rows:
        yield "| " + " | ".join(str(row[c]) for c in (*columns, "wanted_against_torch")) + " |"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=840, help="what has not begun by then is skipped")
    parser.add_argument("--to", type=Path, help="the file of rows; bench/results/gpu-NAME.jsonl by default")
    parser.add_argument("--small", action="store_true", help="only check short rows, as under the sanitizer")
    options = parser.parse_args(arguments)
    if options.small:
        return check_small()
    started = time.time()
    until = started + options.seconds
    gpu, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    record = survivor.Record(options.to or RESULTS / f"gpu-{gpu.replace(' ', '-').lower()}.jsonl")
    record.add(gpu=gpu, capability=capability, at=time.strftime("%Y-%m-%d %H:%M:%S"), **versions())
    for row in compile_kernels(capability, started + options.seconds / 2):
        record.add(job="compile", **row)
    survivor.run(jobs, is_usable, record, until)
    for row in sanitize(until):
        record.add(job="sanitize", **row)
    rows = record.rows
    lines = "\n".join(table([row for row in rows if "of_floor" in row]))
    record.path.with_suffix(".md").write_text(lines + "\n")
    print(lines)
    wrong = [row for row in rows if "error" in row or row.get("ok") is False]
    record.add(rows=len(rows), wrong=len(wrong), seconds=round(time.time() - started))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
