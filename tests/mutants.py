"""The table of `tests/mutation.py`: what is replaced by what, and the tests that have to notice."""

from typing import NamedTuple


class Mutant(NamedTuple):
    file: str
    old: str
    new: str
    equivalent: str = ""  # why no result changes


class Suite(NamedTuple):
    """The tests of one file: on which backends, and pytest's arguments."""

    backends: str
    arguments: tuple


def _files(*names):
    return tuple(f"tests/test_{name}.py" for name in names)


_LABELS = ("cross_entropy", "labels", "arrays", "halves")
_API = _files(
    "cross_entropy",
    "labels",
    "derivatives",
    "halves",
    "arrays",
    "special_values",
    "jacobian_layouts",
    "plain_calls",
    "segments",
)
_KERNELS = _files(
    "cross_entropy",
    "soft_labels",
    "special_values",
    "derivatives",
    "ulp",
    "long_rows",
    "against_autograd",
    "segments",
)
# These start many processes, and are about the installation.
_SLOW = ("odd_settings", "without_numba", "without_the_compiled", "report_of", "import_takes", "every_level")
_SLOW += ("first_calls", "settings_change")
# The long way, which plain calls of compiled kernels do not go, is other backends'.
_LONG_WAY = "cython,numpy"
_REGISTRY = (
    *_files("free_threading", "registry", "plain_calls"),
    "-k",
    " and ".join(f"not {name}" for name in _SLOW),
)
_DASK = Suite("cython", (*_files("dask_module"), "-k", "not other_processes"))

SUITES = {
    "fastsoftmax/api.py": Suite(_LONG_WAY, _API),
    "fastsoftmax/_converted.py": Suite(_LONG_WAY, _API),
    "fastsoftmax/registry.py": Suite("cython,numpy,python", _REGISTRY),
    "fastsoftmax/_arrays.py": Suite(_LONG_WAY, (*_API, "tests/test_registry.py", *_REGISTRY[3:])),
    "fastsoftmax/_options.py": Suite(_LONG_WAY, _API),
    "fastsoftmax/_targets.py": Suite(_LONG_WAY, _files("soft_labels", *_LABELS)),
    "fastsoftmax/_solvable.py": Suite("cython", _files("solve")),
    "fastsoftmax/_operators.py": Suite("cython", _files("solve", "jacobian_layouts")),
    "fastsoftmax/_asarray.py": Suite("cython", _files("array_likes")),
    "fastsoftmax/accumulator.py": Suite("cython", _files("accumulator", "free_threading")),
    "fastsoftmax/dask.py": _DASK,
    "fastsoftmax/_dask_states.py": _DASK,
    "fastsoftmax/_dask_losses.py": _DASK,
    "fastsoftmax/backends/python.py": Suite("python", _KERNELS),
    "fastsoftmax/backends/numpy.py": Suite("numpy", _KERNELS),
    "fastsoftmax/backends/numba.py": Suite("numba", _KERNELS),
    "fastsoftmax/backends/_numba_rows.py": Suite("numba", _KERNELS),
    "fastsoftmax/scipy.py": Suite("cython", (*_files("scipy_module"), "-k", "not own_tests")),
    "fastsoftmax/autograd.py": Suite("cython", _files("autograd_module")),
    **dict.fromkeys(
        (f"fastsoftmax/_numba_overloads/{name}.py" for name in ("arguments", "segments", "losses")),
        Suite("cython", (*_files("numba_overloads"), "-k", "out or losses or weights or probabilities")),
    ),
}


def _of(file, *mutants):
    return [Mutant(file, *mutant) for mutant in mutants]


MUTANTS = [
    *_of(
        "fastsoftmax/api.py",
        ('_forward("softmax", 0.0, x', '_forward("softmax", 1.0, x'),
        ('_forward("log_softmax", -np.inf, x', '_forward("log_softmax", 0.0, x'),
        ("rows.keepdims()[: x.ndim]", "rows.keepdims()"),
        (
            "result = Result(shape, x.dtype, rows.reduced, out=out, inputs=(x,), beside=beside)",
            "result = Result(shape, x.dtype, rows.reduced, out=out)",
        ),
        (
            "    if not x.size:\n        result.buffer[...] = -np.inf",
            "    if not x.size:\n        result.buffer[...] = 0",
        ),
        (
            "    if not first.size:\n        result.buffer[...] = -np.inf",
            "    if not first.size:\n        result.buffer[...] = 0",
        ),
        ('"softmax_vjp", {"y": y, "t": t}', '"softmax_vjp", {"t": t, "y": y}'),
        ('"log_softmax_jvp", {"logy": logy, "t": t}', '"log_softmax_vjp", {"logy": logy, "t": t}'),
        ("rows_of(y.shape, axis, last=True)", "rows_of(y.shape, axis)"),
        ("(outer, n, n), out=out, inputs=(y,))", "(outer, n, n), out=out)"),
        (
            '"softmax": (softmax_jvp, softmax_vjp, softmax',
            '"softmax": (log_softmax_jvp, softmax_vjp, softmax',
        ),
        ("(log_softmax_jvp, log_softmax_vjp)", "(log_softmax_vjp, log_softmax_jvp)"),
        ("inputs=(x,), beside=targets.arrays())", "beside=targets.arrays())"),
        ("beside=targets.arrays())", "beside=targets.arrays()[:1])"),
        (
            "result = rows.result(x.shape, x.dtype, out=out, inputs=(x,), beside=mask)",
            "result = rows.result(x.shape, x.dtype, out=out, inputs=(x,))",
        ),
        (
            "result = rows.result(x.shape, x.dtype, out=out, inputs=(x,), beside=mask)",
            "result = rows.result(x.shape, x.dtype, out=out, beside=mask)",
        ),
        ("None if where is None else fill", "None if where is None else 0.0"),
        ("    same_shape(first, arrays[0], second, arrays[1])\n", ""),
        ("arrays[0].dtype, out=out, inputs=arrays)", "arrays[0].dtype, out=out, inputs=arrays[:1])"),
        ("if is_half(dtype) or fill", "if dtype.name == 'float16' or fill"),
        ("same_shape(names[0], first, names[-1], arrays[-1])", "pass"),
        ("beside=(*arrays, ptr))", "inputs=arrays, beside=(ptr,))"),
        ("beside=(*arrays, ptr))", "beside=arrays)"),
        ("inputs=arrays, beside=(ptr,))", "beside=(ptr,))", "`out` is copied into in place of written"),
        ("loss.astype(dtype, copy=False)[()]", "loss.astype(dtype, copy=False)"),
        ("loss.astype(dtype, copy=False)[()]", "loss[()]"),
        ("exact_sum(loss)", "loss.sum()"),
        ("exact_sum(loss) / divisor", "exact_sum(loss) / loss.size"),
    ),
    *_of(
        "fastsoftmax/_converted.py",
        ("native[0] is not inputs[0])", "True)"),
        ("blend(x, mask, -np.inf, masked)", "blend(x, mask, 0.0, masked)"),
        ("blend(result, mask, self._fill, result)", "pass"),
        ("narrow(result, out)", "pass"),
        ("and a.shape == first.shape else", "and a.ndim == first.ndim else"),
        ("op not in JACOBIANS", "True"),
    ),
    *_of(
        "fastsoftmax/registry.py",
        ('1 thread" if self.num_threads == 1', '1 thread" if self.num_threads <= 2'),
        (
            "if self._ops is None and self.reason is None:",
            "if self._ops is None:",
            "a backend that failed to load is tried again, and fails for the same reason",
        ),
        ("except Exception as error:", "except ImportError as error:"),
        (
            "loaded if isinstance(loaded, Mapping) else vars(loaded)",
            "loaded if isinstance(loaded, dict) else vars(loaded)",
        ),
        ('b.name: "available" if b.ops() is not None else b.reason', 'b.name: b.reason or "available"'),
        ("name in _backends and not isinstance(_backends[name], _Registered)", "name in _backends"),
        ("if not backend.ops():", "if backend.ops() is None:"),
        ("    _kernels = {}\n    _set_front_doors()", "    _set_front_doors()"),
        ("    _kernels = {}\n    _set_front_doors()", "    _kernels = {}"),
        ("    _kernels = {}\n    _set_front_doors()", "    _kernels.clear()\n    _set_front_doors()"),
        ("        _usable(name)\n    _default", "        pass\n    _default"),
        ("        _context.reset(token)", "        _context.set(None)"),
        ("op = _SAME_KERNEL.get(op, op)", "op = op"),
        ("last=op in JACOBIANS).canonical", "last=False).canonical"),
        ("_threads.limit(num_threads)", "_threads.limit()"),
        ("index(name)]", "index(name) + 1]"),
        ("if backend is not None:", "if backend:"),
        (
            """    if (name := _context.get()) is not None:
        return name, "use_backend"
    if (name := _default) is not None:
        return name, "set_backend"
""",
            """    if (name := _default) is not None:
        return name, "set_backend"
    if (name := _context.get()) is not None:
        return name, "use_backend"
""",
        ),
        ("os.environ.get(ENVIRONMENT) or None", "os.environ.get(ENVIRONMENT)"),
        ("except (KeyError, TypeError):", "except KeyError:"),
        ("    table[op, name] = ops[op]", "    _kernels[op, name] = ops[op]"),
        ("        table[op, None] = fastest", "        _kernels[op, None] = fastest"),
        ("if op not in ops:", "if not ops:"),
        ("if op in (b.ops() or ()))", "if b.ops())"),
        ('f" (from {source})" if source else ""', '""'),
        ("key=lambda b: -b.priority", "key=lambda b: b.priority"),
        ("holds := _default or _environment or _by", "holds := _default or _by"),
        ("    while chosen != (holds", "    if chosen != (holds"),
        ('_front.set_open(chosen == "cython")', "_front.set_open(True)"),
    ),
    *_of(
        "fastsoftmax/_arrays.py",
        ("dtype = np.result_type(*converted)", "dtype = converted[0].dtype"),
        ("if ptr.ndim != 1 or not ptr.size:", "if ptr.ndim != 1:"),
        ("if ptr[0] != 0:", "if ptr[0] < 0:"),
        ("(falls := ptr[1:] < ptr[:-1])", "(falls := np.diff(ptr) < 0)"),
        ("if ptr[-1] != n:", "if ptr[-1] > n:"),
        ('return np.require(ptr, np.intp, "CA")', "return ptr.astype(np.intp, copy=False)"),
        ("if a.dtype in _NATIVE:", "if a.dtype.kind == 'f' and a.dtype.itemsize in (4, 8):"),
        ('_INTEGER_KINDS = "iub"', '_INTEGER_KINDS = "ib"'),
        ('return a.astype(a.dtype.newbyteorder("="), copy=False)', "return a"),
        (
            "    ndim = max(ndim, 1)  # a 0-d array is one row of one entry\n",
            "",
            "`Rows` has made the shape () to (1,) already",
        ),
        (
            "return tuple(sorted(_each_axis(axis if isinstance(axis, tuple) else (axis,), ndim)))",
            "return tuple(_each_axis(axis if isinstance(axis, tuple) else (axis,), ndim))",
        ),
        ("if not -ndim <= i < ndim:", "if not -ndim <= i <= ndim:"),
        ("if i % ndim in seen:", "if i in seen:"),
        ("if axis is None or type(axis) is int:", "if axis is None or isinstance(axis, int):"),
        ("adjacent and (not last or stop == len(shape))", "adjacent and (not last or start == 0)"),
        (
            "start = axes[0] if axes else len(shape)",
            "start = axes[0] if axes else 0",
            "rows of one entry each, however they are laid out",
        ),
        ("self.order = (*kept, *axes)", "self.order = (*axes, *kept)"),
        ("1 if i in self.axes else s for", "1 if i == self.axes[0] else s for"),
        ("a if a.flags.c_contiguous and a.flags.aligned else", "a if a.flags.c_contiguous else"),
        ('a.copy(order="C")', "a.copy(order='A')"),
        ("moved.transpose(np.argsort(self.order))", "moved.transpose(self.order)"),
        (
            "np.empty(shape, dtype) if out is None else np.asarray(out)",
            "np.empty(shape, dtype) if out is None else out",
        ),
        (
            "(out is None or _usable_in_place(self._array, inputs, beside))",
            "(out is None or out.flags.carray)",
        ),
        (
            "return self._array[()] if self._out is None else self._out",
            "return self._array if self._out is None else self._out",
        ),
        ("if stride < span:\n            return a.size > 0", "if stride < span:\n            return True"),
        ("strict=True) if n > 1):", "strict=True) if n > 0):"),
        ("span = stride * (length - 1) + span", "span = stride * length"),
        ("if not out.flags.carray or any(", "if any("),
        (
            "any(np.may_share_memory(out, a) for a in beside)",
            "any(np.may_share_memory(out, a) and not _same_memory(out, a) for a in beside)",
        ),
        (
            "_same_memory(out, a) or not np.may_share_memory(out, a)",
            "not np.may_share_memory(out, a)",
            "an input that is `out` goes through a buffer: one needless copy",
        ),
        (
            " and a.strides == b.strides",
            "",
            "an input of other strides than `out`, which is contiguous, is copied before the kernel reads it",
        ),
        ("    if where.dtype != np.bool_:\n", "    if where.dtype.kind not in 'biu':\n"),
    ),
    *_of(
        "fastsoftmax/_targets.py",
        ('return f"soft_{name}" if is_soft(self.labels) else name', "return name"),
        ("np.where(labels < 0, 0, sample_weight)", "sample_weight"),
        ("exact_sum(weights)", "weights.astype(np.float32).sum()"),
        (" or np.nan\n", "\n"),
        ("weight = near_one(weight, of_labels(weight, labels))", "pass"),
        ("sample_weight = near_one(sample_weight, sample_weight)", "pass"),
        ("1 / divisor if weights.any() else 1.0", "1 / divisor"),
        ("np.append(weight.astype(np.float64), 0.0)[labels]", "weight.astype(np.float64)[labels]"),
        ("labels.shape == rows.kept != rows.shape", "False"),
        (
            "    if ignore_index is not None:\n        raise ValueError(",
            "    if False:\n        raise ValueError(",
        ),
        ("if not (is_half(labels.dtype) and is_half(dtype)):", "if not is_half(dtype):"),
        ("return rows.view(labels)", "return labels.reshape(rows.canonical)"),
        ('labels.dtype.kind not in "iu"', 'labels.dtype.kind not in "iub"'),
        ("labels = np.where(ignored, -1, labels)", "labels = np.where(ignored, 0, labels)"),
        ("labels.min() >= 0 and labels.max() < n", "labels.min() >= 0 and labels.max() <= n"),
        ("labels.min() >= 0 and", "labels.min() >= -1 and"),
        ("        wrong &= ~ignored\n", "        wrong &= ignored\n"),
        ("if weight.shape != (n,):", "if weight.size != n:"),
        (
            "if sample_weight.shape != rows.kept:",
            "if sample_weight.size != rows.reduced[0] * rows.reduced[1]:",
        ),
        ('np.require(a, computed_in(dtype), "CA")', "np.asarray(a, computed_in(dtype))"),
        ('np.require(a, computed_in(dtype), "CA")', 'np.require(a, dtype, "CA")'),
        ("weights = (labels >= 0).astype(np.float64)", "weights = (labels > 0).astype(np.float64)"),
        ("np.where(sample_weight == 0, 0.0, weights * sample_weight)", "weights * sample_weight"),
    ),
    *_of(
        "fastsoftmax/_options.py",
        ("if not isinstance(value, bool | np.bool_):", "if True:"),
        ("not isinstance(number, Real) or isinstance(number, bool)", "not isinstance(number, Real)"),
        ("value[()] if isinstance(value, np.ndarray) else value", "value"),
        ("and value in (0, 1):", "and True:"),
        ("not isinstance(value, str) or value not in known", "value not in known"),
        ("0.0 <= smoothing <= 1.0", "0.0 <= smoothing < 1.0"),
    ),
    *_of(
        "fastsoftmax/_solvable.py",
        ("ULPS = 16", "ULPS = 64"),
        ("totals[...] = _sums(wide)", "pass"),
        ("lost = lost + (", "lost = lost - ("),
        ("if (y == 0).any():", "if (y < 0).any():"),
        (
            "wrong &= np.isfinite(y).all(axis=1) & np.isfinite(wide).all(axis=1)",
            "wrong &= np.isfinite(wide).all(axis=1)",
        ),
        ("_ulp_of(dtype), totals", "_ulp_of(y.dtype), totals"),
    ),
    *_of(
        "fastsoftmax/_operators.py",
        ("self._solve(y, columns, 1, ridge=ridge)", "self._solve(y, columns, 1)"),
        ("b.ndim not in (1, 2) or len(b)", "b.ndim not in (1, 2, 3) or len(b)"),
    ),
    *_of(
        "fastsoftmax/_asarray.py",
        ('and getattr(value, "requires_grad", True):', "and True:"),
        ("if isinstance(value, np.ma.MaskedArray):", "if False:"),
        ("if any(issubclass(kind, np.ma.MaskedArray) for kind in kinds):", "if False:"),
        ('source if masked.dtype.kind == "f" else', "source if True else"),
        ("or (a.size and traced(a.flat[0], name))", ""),
        ('getattr(value, "dtypes", getattr(value, "dtype", None))', 'getattr(value, "dtype", None)'),
        ('if a.dtype.kind == "c":', "if False:"),
        ("if a.dtype.names:", "if False:"),
        ("and (position := _first_odd(a)) is not None:", "and (position := _first_odd(a)):"),
    ),
    *_of(
        "fastsoftmax/backends/python.py",
        ("b - _exp(a) * total for", "b - a * total for"),
        ("_sum([_exp(a) * b for", "_sum([b for"),
        ("    if scale == 1 and not", "    if False and not"),
        ("if labels[o, i] >= 0 else 0.0", "if labels[o, i] > 0 else 0.0"),
        ("    if sample_weight == 0:\n        return None\n", ""),
        ("(1 - smoothing) * a + smoothing / n)", "a + smoothing / n)"),
        ("(1 - smoothing) * a + smoothing / n)", "(1 - smoothing) * a + smoothing)"),
        ("dx = [y * total - t for", "dx = [y - t for"),
        ("if k is not None and rest < 1:", "if False:"),
        ("_sum(targets[:k] + targets[k + 1 :])", "(total - targets[k])"),
        ("total * (rest / (1 + rest))", "total * (1 - 1 / (1 + rest))"),
        ("or math.isinf(max(row))", "or max(row) == INF"),
        ("if d < -746:", "if d < -709:"),
        ("math.exp(d + lift), math.fsum((a, -m, -d))", "math.exp(d + lift), 0.0"),
        ("others = row[:k] + row[k + 1 :]", "others = [a for a in row if a != row[k]]"),
        ("if rest < 1e-200:", "if rest < 0:"),
        ("lost = math.fsum((1, rest, -total)) / total", "lost = 0.0"),
        (
            "return [(a - row[k]) - math.log1p(rest) for a in row]",
            "return [(a - row[k]) - math.log(1 + rest) for a in row]",
        ),
        (
            "return INF if INF in row else -INF",
            "return max(row)",
            "a row that comes here has no NaN, and an infinite maximum",
        ),
        ("if y[k] > 0.5 else sorted(", "if y[k] > 2 else sorted("),
        ("sorted((min(g), 0.0, max(g)))[1]", "0.0"),
        ("    if weight == 0:\n        return 0.0\n", ""),
        ("return weight * nll if nll < INF else 2 * (weight * (m / 2 - a / 2))", "return weight * nll"),
        ("INF if a > 0 else NAN", "INF"),
        ("if y[i] > 0.5 else 1 - y[i]", "if y[i] > 2 else 1 - y[i]"),
    ),
    *_of(
        "fastsoftmax/backends/numpy.py",
        ("if _is_one_piece(work, like, axis):  # nothing was", "if True:"),
        ("e /= total + lost", "e /= total"),
        ("total = _with(total, leading, others)", "total = _with(total, leading)"),
        (
            "return hi, (total[1] + lost) + ((total[0] - (hi - part)) + (s - part))",
            "return hi, total[1] + lost",
        ),
        ("y -= np.log1p(rest).astype(x.dtype)", "y -= np.log(1 + rest).astype(x.dtype)"),
        ("            np.copyto(lse, largest, where=np.isinf(largest))\n", "            pass\n"),
        ("total = _sum(work, _copy(g), g, axis)", "total = _sum(work, _copy(logy), g, axis)"),
        ("dot = _sum(work, exps, t, axis)", "dot = _sum(work, _copy(t), t, axis)"),
        ("np.subtract(centred(part, h), dot, out=h)", "np.subtract(g[part], dot, out=h)"),
        ("        if not inside.all():", "        if False:"),
        ("least = reduce(np.minimum, ", "least = reduce(lambda a, b: a, "),
        ("most = reduce(np.maximum, ", "most = reduce(lambda a, b: a, "),
        ("picked = reduce(np.maximum, ", "picked = reduce(lambda a, b: a, "),
        ("np.copyto(term, 0 * log_sum, where=weight == 0)", "pass"),
        ("np.copyto(term, 2 * (weight * (0.5 * m - 0.5 * x)), where=infinite)", "pass"),
        ("np.copyto(terms, 0.0, where=t == 0)", "pass"),
        ("others + (ties - 1)", "others"),
        ("minus = -block[:, :, None]", "minus = block[:, :, None]"),
        ("for i in range(0, n, step):", "for i in range(0, min(n, step), step):"),
        ("np.where(block > 0.5, others, 1 - block)", "(1 - block)"),
        ("e[target.at] = scale * target", "e[target.at] = target"),
        (
            "        np.copyto(e, 0.0, where=target.ignored)\n        _store(e, out)\n\n\n@_interruptible()\n"
            "def softm",
            "        _store(e, out)\n\n\n@_interruptible()\ndef softm",
        ),
        ("        if (rest < 1).any():\n", "        if False:\n"),
        ("np.copyto(self.of(part, terms), 0.0, where=x[part] == m)", "self.of(part, terms)"),
        ("t *= scale * sample", "t *= sample"),
        ("        if self.smoothing:\n            out += self.spread\n", ""),
        ("out *= self.weight[part] if self.weight.size > 1 else self.weight", "out *= self.weight"),
        (
            "return m + 0.0 * m",
            "return m",
            "an infinite maximum less itself is NaN already, and with it the sum and all of the row",
        ),
        ("    np.copyto(error, 0.0, where=d < -800)  # exp vanishes, and d may be infinite\n", ""),
        ("    d += error\n", ""),
        ("        if n % 2:\n", "        if n % 4 == 1:\n"),
        ("np.minimum.reduce(total, axis=None) >= least", "np.minimum.reduce(total, axis=None) >= 0"),
        ("np.maximum.reduce(total, axis=None) <= most", "np.maximum.reduce(total, axis=None) <= np.inf"),
        ("dominated = rest < DOMINATED * x.shape[axis]", "dominated = rest < 0"),
        ("DOMINATED, LIFT = 2.0**-19, 512.0", "DOMINATED, LIFT = 2.0**-19, 0.0"),
        (
            "label = np.maximum(labels, 0)",
            "label = labels",
            "-1 picks the last class, and the row is cleared",
        ),
        ("everywhere = smoothing / n * weight", "everywhere = smoothing * weight"),
        ("np.full(n, smoothing / n)", "np.full(n, smoothing)"),
        ("= 1 - smoothing, smoothing / n", "= 1 - smoothing, smoothing"),
        (
            "np.where(self.ignored, 0.0, loss)\n\n    def gradients_at_label",
            "loss\n\n    def gradients_at_label",
        ),
        ("np.where(d == 0, rest / (1 + rest), 1 - y)", "1 - y"),
        ("(np.where(y[part] > 0.5, g", "(np.where(y[part] > 2, g"),
        ("np.minimum(np.maximum(least, 0), most), 0)", "0, 0)"),
        ("c[some] = np.where(picked > nothing, picked, c[some])", "c[some] = picked"),
    ),
    *_of(
        "fastsoftmax/backends/_numba_rows.py",
        (
            "first, second = plus(s.start, s.far_first, s.far_second, first, second)",
            "first, second = s.far_first, s.far_second",
        ),
        ("return s if start == 0 else _handed_over(s)", "return s if start == 0 else no_sum(s.start)"),
        ("add(s, where_greater(largest, left_out, zero, e))", "add(s, where_equal(largest, one, zero, e))"),
        (
            "STRETCH = 65536",
            "STRETCH = 2**40",
            "it takes 2**27 roundings of one sign to break a bound, more than a test can pay for",
        ),
    ),
    *_of(
        "fastsoftmax/backends/numba.py",
        ("if t.vectors == 1 and t.tail <= 8:", "if True:"),
        ("_multiply(y_tile, t, splat(y, 1) / scale)", "_multiply(y_tile, t, scale)"),
        (
            "return weight * nll if nll != np.inf else 2 * (weight * (row_max / 2 - x / 2))",
            "return weight * nll",
        ),
        ("add(s, where_equal(w, zero, zero, w * gap))", "add(s, w * gap)"),
        ("        if differ(far - far, zero):", "        if False:"),
        ("    if t.vectors > 16 and differ(c, zero):", "    if False:"),
        ("where_greater(y_max, half, dominant, c)", "c"),
    ),
    *_of(
        "fastsoftmax/scipy.py",
        ("np.where(b == 0, -np.inf, a).max", "a.max"),
        ("np.where(np.isfinite(most), most, 0)", "most"),
        ("np.where(np.isfinite(most), most, 0)", "np.zeros_like(most)"),
        ("(a.astype(dtype, copy=False), b.astype(dtype, copy=False))", "(a, b)"),
        ("np.sign(plus - minus)", "1"),
        ("np.where(plus == minus, 0, -np.abs(plus - minus))", "-np.abs(plus - minus)"),
        ("np.where(gap < -0.7, np.log1p(-np.exp(gap)), np.log(-np.expm1(gap)))", "np.log1p(-np.exp(gap))"),
        ("np.where(gap < -0.7, np.log1p(-np.exp(gap)), np.log(-np.expm1(gap)))", "np.log(-np.expm1(gap))"),
    ),
    *_of(
        "fastsoftmax/autograd.py",
        ("lambda g: _along(g, x, axis) * _shares(x, b, axis),", "lambda g: g * _shares(x, b, axis),"),
        ("    x = anp.where((b == 0) & ~(x < np.inf), -np.inf, x)\n", ""),
        ("x = x - _largest(x, b, axis)", "pass"),
        ("lambda h: h * (g - _dot(g, y, axis)) - g", "lambda h: h * g - g"),
        (
            "lambda _, logy, g, axis=-1: lambda h: -anp.exp(logy)",
            "lambda _, logy, g, axis=-1: lambda h: -logy",
        ),
        ("anp.zeros_like(t) - _dot", "anp.zeros_like(t) + _dot"),
        ('axis if options.get("reduction") == "none" else None', "None"),
        ("(1 - smoothing) * of_labels", "of_labels"),
        ("anp.where(self._of_samples == 0, 0.0, x)", "x"),
        ("targets, _, scale = targets.mean()", "scale = 1 / targets.labels.size"),
        ("smoothing * self._of_classes.mean()", "smoothing"),
        ("u * (_dot(h, softmax(weights.logits(x), axis), axis) - h)", "u * -h"),
        ("softmax(weights.logits(x), axis) * _total(h, axis) - h", "-h"),
    ),
    *_of(
        "fastsoftmax/_numba_overloads/arguments.py",
        ("and (address(a) != address(out) or a.size != out.size)", "and address(a) != address(out)"),
        ("-a.nbytes < address(a)", "0 < address(a)"),
        ("    check_apart(b, out)\n    return a, b", "    return a, b"),
    ),
    *_of(
        "fastsoftmax/_numba_overloads/segments.py",
        ("if shares_memory(a, out):", "if False:"),
        ("if places[k] < places[k - 1]:", "if places[k] < 0:"),
    ),
    *_of(
        "fastsoftmax/_numba_overloads/losses.py",
        ("elif label < 0 or label >= shape[k]:", "elif label >= shape[k]:"),
        ("return weight.astype(dtype)", "return weight"),
        ("everywhere *= weight", "pass"),
        (
            "return _mean_of(_of_labels(targets, weight), samples)",
            "return _mean_of(_of_labels(targets, None), samples)",
        ),
        ("return _mean_of(np.ones(losses.size), samples)", "return _mean_of(np.ones(losses.size), None)"),
        ("taken[i] * sample if sample != 0 else 0.0", "taken[i] * sample"),
        ("np.nan if taken.any() else 1.0", "np.nan"),
    ),
    *_of(
        "fastsoftmax/accumulator.py",
        (
            "return SPAN * np.floor(np.minimum(np.maximum(row_max, -top), top) / SPAN)",
            "return np.minimum(np.maximum(row_max, -top), top)",
        ),
        ("total = shifted_exp(np.minimum(a[0], b[0]), at)", "total = np.zeros_like(row_max), 0.0"),
        (
            "_plus(total, rest * half * half, low * half * half)",
            "_plus(total, rest * half**2, low * half**2)",
        ),
        ("return rounded, lo - (rounded - hi)", "return rounded, np.zeros_like(lo)"),
        ("return e, e * np.where(np.isfinite(lost), lost, 0)", "return e, e * 0"),
        ("np.where(np.isfinite(row_max), logarithm, row_max)", "np.where(True, logarithm, row_max)"),
        ("np.put_along_axis(x, at, -np.inf, 1)", "np.copyto(x, -np.inf, where=x == row_max)"),
        ("entries = min(n, PART if inner == 1 else ENTRIES)", "entries = max(1, min(n, PART // inner))"),
        ("self.state[0].shape != shape:", "False:"),
        ("np.log1p(rest_of(state))", "np.log1p(rest_of(self.state))"),
    ),
    *_of(
        "fastsoftmax/dask.py",
        (
            "(x[at].astype(np.float64) - row_max[row]) - log_rest[row]",
            "x[at] - (row_max[row] + log_rest[row])",
        ),
        ("y if where is None else da.where(mask, y, np.asarray(fill, dtype))", "y"),
    ),
    *_of(
        "fastsoftmax/_dask_states.py",
        ("np.where(np.isfinite(state[0]), state[0], np.nan)", "state[0]"),
        ('clone(x) if _options.as_bool(reread, "reread") else x', "x"),
        ("reshape(count, *without(", "reshape(-1, *without("),
    ),
    *_of(
        "fastsoftmax/_dask_losses.py",
        ("(part == m) & (log_sum < np.log(1.5))", "part > np.inf"),
        (
            "losses[row] += np.where(sample == 0, 0.0, sample * exact_sums(terms))",
            "losses[row] += sample * exact_sums(terms)",
        ),
        ("losses[row] += ", "losses[row] = "),
        ("return (1 - smoothing) * _row_weights(labels, weight)", "return _row_weights(labels, weight)"),
        ("return samples[0].sum() if samples else rows", "return rows"),
        ("step *= x.shape[k]", "step *= 1"),
        ("samples = tuple(map(_near_one, samples))", "pass"),
    ),
]
