"""The CUDA kernels on a GPU: right first, then fast. One run, under 8 minutes: ``make bench-gpu``.

Results are compared with float64 on the GPU before anything is timed. Times are CUDA graph replays over
buffers that together exceed the L2 cache; each is given as a ratio to a plain copy (addition, fill) of
the same bytes in this run, since absolute figures carry to no other machine. The table goes to
bench/results/.
"""

import argparse
import json
import math
import platform
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle, islice
from pathlib import Path

import torch

from fastsoftmax._cuda import operations as fs

RESULTS = Path(__file__).parent / "results"
MOVED = 256 << 20  # bytes a call reads and writes at least
ROTATED = 512 << 20  # bytes of buffers in turn: ten times an H100's L2
CALLS = 8  # in a graph
REPLAYS = 25
EPS = {torch.float64: 2.0**-52, torch.float32: 2.0**-23, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}


# ---- right ---------------------------------------------------------------------------------------

# Every regime in float32, three of them in the other dtypes: each width compiles some ten kernels.
WIDTHS = (5, 100, 512, 1001, 2048, 12_288, 50_257, 100_000)
OTHER_WIDTHS = (40, 2048)


def check(*, small=False):
    """Every op in every regime; raises on the first that is wrong."""
    for dtype in EPS:
        for n in WIDTHS if dtype == torch.float32 and not small else OTHER_WIDTHS:
            rows = 3 if n > 10_000 else 37
            _check_rows(_logits((rows, n), dtype), -1)
        _check_rows(_logits((3, 70, 33), dtype), 1)
        _check_jacobian(_logits((11, 13), dtype))
        _check_special(dtype)


def _logits(shape, dtype):
    return torch.randn(shape, device="cuda", dtype=torch.float64).mul_(4).to(dtype)


def _check_rows(x, axis):
    exact = x.double()
    y, logy = torch.softmax(exact, axis), torch.log_softmax(exact, axis)
    g = torch.randn_like(exact).to(x.dtype)
    _close(fs.softmax(x, axis), y, "softmax")
    _close(fs.log_softmax(x, axis), logy, "log_softmax")
    _close(fs.logsumexp(x, axis), torch.logsumexp(exact, axis), "logsumexp")
    low_y, low_logy = y.to(x.dtype), logy.to(x.dtype)
    y, logy, given = low_y.double(), low_logy.double(), g.double()
    dot = (y * given).sum(axis, keepdim=True)
    size = y * (given.abs() + (y * given.abs()).sum(axis, keepdim=True))
    _close(fs.softmax_vjp(low_y, g, axis), y * (given - dot), "softmax_vjp", size)
    p = logy.exp()
    size = given.abs() + p * given.abs().sum(axis, keepdim=True)
    _close(
        fs.log_softmax_vjp(low_logy, g, axis),
        given - p * given.sum(axis, keepdim=True),
        "log_softmax_vjp",
        size,
    )
    size = given.abs() + (p * given.abs()).sum(axis, keepdim=True)
    _close(
        fs.log_softmax_jvp(low_logy, g, axis),
        given - (p * given).sum(axis, keepdim=True),
        "log_softmax_jvp",
        size,
    )
    if axis == -1:
        _check_cross_entropy(x)


def _check_cross_entropy(x):
    m, n = x.shape
    labels = torch.randint(0, n, (m,), device="cuda")
    labels[0] = n - 1
    for options in ({}, {"label_smoothing": 0.1, "ignore_index": n - 1, "reduction": "sum"}):
        exact = x.double().clone().requires_grad_()
        wanted = torch.nn.functional.cross_entropy(exact, labels, **options)
        (gradient,) = (
            torch.autograd.grad(wanted, exact) if wanted.requires_grad else (torch.zeros_like(exact),)
        )
        loss, dx = fs.cross_entropy_with_grad(x, labels, **options)
        _close(loss, wanted.detach(), f"cross_entropy {options}")
        _close(dx, gradient, f"gradient of cross_entropy {options}", gradient.abs() + 1 / (m * n))


def _check_jacobian(x):
    y = torch.softmax(x.double(), -1).to(x.dtype)
    exact = y.double()
    wanted = torch.diag_embed(exact) - exact[:, :, None] * exact[:, None, :]
    _close(fs.softmax_jacobian(y), wanted, "softmax_jacobian", wanted.abs() + exact[:, :, None])


def _check_special(dtype):
    inf, nan = math.inf, math.nan
    x = torch.tensor(
        [[1, nan, 2], [1, inf, 2], [-inf, -inf, -inf], [-inf, 5, -inf]], device="cuda", dtype=dtype
    )
    wanted = torch.tensor([[nan] * 3, [nan] * 3, [nan] * 3, [0.0, 1.0, 0.0]], device="cuda", dtype=dtype)
    torch.testing.assert_close(fs.softmax(x), wanted, rtol=0, atol=0, equal_nan=True)
    lse = torch.tensor([nan, inf, -inf, 5.0], device="cuda", dtype=dtype)
    torch.testing.assert_close(fs.logsumexp(x), lse, rtol=0, atol=0, equal_nan=True)


def _close(actual, wanted, what, size=None):
    """Within 8 eps of the terms' size: the exact bounds are held by the tests in lockstep."""
    eps = EPS[actual.dtype]
    size = wanted.abs() if size is None else size
    tiny = torch.finfo(actual.dtype).tiny
    excess = ((actual.double() - wanted).abs() / (8 * eps * size + tiny + 1e-14 * (size > 0))).nan_to_num(
        nan=1e9
    )
    worst = excess.max().item() if excess.numel() else 0.0
    if worst > 1:
        raise AssertionError(f"{what} {tuple(actual.shape)} {actual.dtype}: off by {8 * worst:.1f} eps")


# ---- fast ----------------------------------------------------------------------------------------


@dataclass
class Row:
    """One line of the table."""

    regime: str
    case: str
    gigabytes: float  # a second
    of_floor: float
    accept: float
    aim: float
    against_torch: float
    wanted_against_torch: float

    @property
    def accepted(self):
        return self.of_floor >= self.accept and self.against_torch >= self.wanted_against_torch


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


def buffers_of(*shapes, dtype):
    """Sets of arrays, in number enough to leave the cache."""
    size = sum(math.prod(shape) for shape in shapes) * dtype.itemsize
    return [
        [torch.randn(shape, device="cuda", dtype=torch.float32).to(dtype) for shape in shapes]
        for _ in range(max(2, math.ceil(ROTATED / size)))
    ]


def forward_rows():
    for dtype, accept, aim in ((torch.float32, 0.78, 0.88), (torch.bfloat16, 0.63, 0.78)):
        for n in (256, 512):
            yield _forward("256 - 1K", n, dtype, accept, aim, 1.0)
    for dtype in (torch.float32, torch.bfloat16):
        for n in (1024, 2048, 4096, 8192, 16_384, 32_768, 50_257):
            yield _forward("1K - 56K", n, dtype, 0.88, 0.95, 1.0)
    for n in (65_536, 131_072):
        yield _forward("longer, two passes", n, torch.float32, 0.58, 0.65, 1.0)


def _forward(regime, n, dtype, accept, aim, wanted, m=None):
    m = m or max(1, MOVED // (2 * n * dtype.itemsize))
    buffers = buffers_of((m, n), (m, n), dtype=dtype)
    ours = seconds(lambda x, out: fs.softmax(x, out=out), buffers)
    floor = seconds(lambda x, out: out.copy_(x), buffers)
    peer = seconds(lambda x, out: torch.softmax(x, -1, out=out), buffers)
    case = f"softmax ({m}, {n}) {str(dtype)[6:]}"
    moved = 2 * m * n * dtype.itemsize
    return Row(regime, case, moved / ours / 1e9, floor / ours, accept, aim, peer / ours, wanted)


def vjp_rows():
    for dtype in (torch.float32, torch.bfloat16):
        for n in (256, 1024, 4096, 12_288):
            m = max(1, MOVED // (3 * n * dtype.itemsize))
            buffers = buffers_of((m, n), (m, n), (m, n), dtype=dtype)
            for y, _, _ in buffers:
                torch.softmax(y, -1, out=y)
            ours = seconds(lambda y, g, out: fs.softmax_vjp(y, g, out=out), buffers)
            floor = seconds(lambda y, g, out: torch.add(y, g, out=out), buffers)
            backward = torch.ops.aten._softmax_backward_data
            peer = seconds(lambda y, g, out, f=backward, d=dtype: f(g, y, -1, d), buffers)
            moved = 3 * m * n * dtype.itemsize
            case = f"softmax_vjp ({m}, {n}) {str(dtype)[6:]}"
            yield Row("VJP", case, moved / ours / 1e9, floor / ours, 0.85, 0.92, peer / ours, 1.5)


def jacobian_rows():
    for m, n in ((2048, 128), (64, 1000)):
        buffers = buffers_of((m, n), (m, n, n), dtype=torch.float32)
        for y, _ in buffers:
            torch.softmax(y, -1, out=y)
        ours = seconds(lambda y, out: fs.softmax_jacobian(y, out=out), buffers)
        floor = seconds(lambda y, out: out.fill_(0.5), buffers)
        peer = seconds(lambda y, out: torch.sub(torch.diag_embed(y), y[:, :, None] * y[:, None, :]), buffers)
        case = f"softmax_jacobian ({m}, {n}) float32"
        yield Row("Jacobian", case, 4 * m * n * n / ours / 1e9, floor / ours, 0.85, 0.95, peer / ours, 3.0)


def geomean_against_torch():
    """Over N = 256 to 12672 at M = 4096, the shapes of Triton's tutorial."""
    widths = range(256, 12_673, 1024)
    ratios = [_forward("", n, torch.float32, 0, 0, 0, m=4096).against_torch for n in widths]
    return statistics.geometric_mean(ratios)


def host_microseconds():
    """What one call takes of the host's time, for a small array; torch's own beside it."""
    x = torch.randn(16, 128, device="cuda")
    out = torch.empty_like(x)
    calls = {"fastsoftmax": lambda: fs.softmax(x, out=out), "torch": lambda: torch.softmax(x, -1, out=out)}
    return {name: _host_time(call) for name, call in calls.items()}


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
    found = {"python": platform.python_version(), "gpu": torch.cuda.get_device_name()}
    found["capability"] = ".".join(map(str, torch.cuda.get_device_capability()))
    for package in ("fastsoftmax", "torch", "numba-cuda", "cuda-core", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "-"
    return found


def sanitize():
    """Small shapes under compute-sanitizer's memcheck and racecheck, where it is installed."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return "not installed"
    for check_of in ("memcheck", "racecheck"):
        command = [
            tool,
            "--tool",
            check_of,
            "--error-exitcode",
            "9",
            sys.executable,
            "-m",
            "bench.gpu",
            "--small",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=150)
        if done.returncode:
            return f"{check_of} failed: {done.stdout[-2000:]}"
    return "clean"


def table(rows):
    yield "| regime | case | GB/s | of the floor | accept | aim | against torch | wanted | |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for r in rows:
        yield (
            f"| {r.regime} | {r.case} | {r.gigabytes:.0f} | {r.of_floor:.0%} | {r.accept:.0%} | {r.aim:.0%} "
            f"| {r.against_torch:.2f}x | {r.wanted_against_torch}x | {'ok' if r.accepted else 'below'} |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--small", action="store_true", help="only check small shapes, as under the sanitizer"
    )
    if parser.parse_args().small:
        check(small=True)
        torch.cuda.synchronize()
        return
    started = time.time()
    print(found := versions(), flush=True)
    check()
    print(f"right in every regime ({time.time() - started:.0f} s)", flush=True)
    rows = []
    for row in (*forward_rows(), *vjp_rows(), *jacobian_rows()):
        rows.append(row)
        torch.cuda.empty_cache()
    geomean, host = geomean_against_torch(), host_microseconds()
    sanitized = sanitize() if time.time() - started < 300 else "no time left"
    report = [*table(rows), f"geomean against torch at M = 4096: {geomean:.2f}x (accept: 1.40x)"]
    report += [f"host us a call: {host}", f"compute-sanitizer: {sanitized}"]
    print(*report, sep="\n")
    name = found["gpu"].replace(" ", "-").lower()
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"gpu-{name}.md").write_text("\n".join([f"{found}", "", *report, ""]))
    saved = {"versions": found, "rows": [asdict(r) for r in rows], "geomean": geomean, "host_us": host}
    (RESULTS / f"gpu-{name}.json").write_text(json.dumps(saved, indent=1))
    print(f"{time.time() - started:.0f} s")


if __name__ == "__main__":
    main()
