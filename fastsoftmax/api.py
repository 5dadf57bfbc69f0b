"""The public operations: validate, choose a kernel, run it.

Each function checks its arguments (`fastsoftmax._arrays`), asks the registry for the kernel
(`fastsoftmax.registry`) and runs that on canonical ``(outer, n, inner)`` arrays, in blocks of rows
(`fastsoftmax._threads`). Formulas and bounds: docs/derivation.md and docs/numerics.md.
"""

from functools import partial

import numpy as np

from fastsoftmax import _layouts, _options, _threads, registry
from fastsoftmax._arrays import (
    Result,
    as_factors,
    as_float,
    as_floats,
    as_mask,
    as_ptr,
    computed_in,
    is_half,
    rows_of,
    same_shape,
)
from fastsoftmax._converted import Converted
from fastsoftmax._cuda.door import also_on_device
from fastsoftmax._front import exact_sum, floating_point_mode, front_door
from fastsoftmax._solvable import check_solvable
from fastsoftmax._targets import targets_of


@front_door
@also_on_device
def softmax(x, /, axis=-1, *, out=None, where=None, backend=None, num_threads=None):
    """Softmax along ``axis``: ``y_i = exp(x_i - max x) / sum_j exp(x_j - max x)``.

    Stable for any finite input and within 3 ULP of the exact value (Blanchard, Higham & Higham,
    IMA J. Numer. Anal. 41, 2021, with a shift that rounds nothing).

    Parameters
    ----------
    x : array_like
        Logits: float64, float32, float16 or bfloat16; integers and bool become float64. Half
        precision is computed in float32 and rounded once.
    axis : int, tuple of int or None
        The axis or axes that sum to one; None for all together.
    out : ndarray, optional
        Where to put the result: its exact shape and dtype. May be ``x`` itself.
    where : array_like of bool, optional
        Broadcastable to ``x``: entries that are False take no part and get 0.
    backend : str, optional
        Run on this backend or raise; by default the fastest one.
    num_threads : int, optional
        The most threads to use.

    Returns
    -------
    ndarray
        Of the shape and float dtype of ``x``; ``out`` where given. A row that holds NaN or +inf, or
        only -inf, is all NaN; -inf elsewhere gives exactly 0.

    Raises
    ------
    TypeError
        A dtype that cannot be converted without loss, a masked array, an ``axis`` that is no int, or
        an ``out`` of another dtype.
    ValueError
        An ``out`` of another shape, read-only or overlapping itself; a repeated axis.
    numpy.exceptions.AxisError
        ``axis`` is out of range.
    BackendUnavailable
        ``backend`` cannot run here.

    Examples
    --------
    >>> import numpy as np, fastsoftmax as fs
    >>> fs.softmax(np.array([[0.0, 0.0], [1000.0, 0.0]]))
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    return _forward("softmax", 0.0, x, axis, out, where, backend, num_threads)


@front_door
@also_on_device
def log_softmax(x, /, axis=-1, *, out=None, where=None, backend=None, num_threads=None):
    """Logarithm of softmax along ``axis``: ``(x_i - max x) - log1p(sum of exp of the others)``.

    Exact to 4 ULP also where softmax is close to 1 (Blanchard, Higham & Higham, IMA J. Numer. Anal.
    41, 2021): the sum leaves the maximum out.

    Parameters
    ----------
    x, axis, out, where, backend, num_threads
        As for `softmax`, with -inf where ``where`` is False.

    Returns
    -------
    ndarray
        Of the shape and float dtype of ``x``. A row that holds NaN or +inf, or only -inf, is all
        NaN; -inf elsewhere gives exactly -inf.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError, BackendUnavailable
        As for `softmax`.

    Examples
    --------
    >>> import fastsoftmax as fs
    >>> fs.log_softmax([40.0, 0.0])
    array([-4.24835426e-18, -4.00000000e+01])
    """
    return _forward("log_softmax", -np.inf, x, axis, out, where, backend, num_threads)


@front_door
@also_on_device
def logsumexp(x, /, axis=-1, *, b=None, keepdims=False, out=None, where=None, backend=None, num_threads=None):
    """Logarithm of the sum of exponentials along ``axis``: ``max x + log1p(sum of exp of the others)``.

    Source: Blanchard, Higham & Higham, IMA J. Numer. Anal. 41 (2021). With factors ``b`` it is
    ``max x + log(sum of b * exp(x - max x))``, as SciPy has it.

    Parameters
    ----------
    x, axis, backend, num_threads
        As for `softmax`.
    b : array_like, optional
        Factors of the exponentials, broadcastable to ``x``: negative ones too, and 0 leaves an entry out
        whatever it is. Converted to the dtype of ``x``, or to float32 for half precision. Exponentials are
        taken relative to the largest ``x``: one that is subnormal so is lost, however large its factor.
    keepdims : bool
        Keep the reduced axes with length one.
    out : ndarray, optional
        Of the result's shape and dtype.
    where : array_like of bool, optional
        Broadcastable to ``x``: entries that are False are ignored.

    Returns
    -------
    ndarray or scalar
        ``x`` without ``axis``. -inf entries are ignored; a row of nothing else, or an empty one,
        gives -inf; +inf gives +inf, and NaN gives NaN. A negative sum gives NaN.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError, BackendUnavailable
        As for `softmax`.

    Examples
    --------
    >>> import fastsoftmax as fs
    >>> fs.logsumexp([[1000.0, 1000.0], [0.0, 0.0]])
    array([1.00069315e+03, 6.93147181e-01])
    >>> fs.logsumexp([[1000.0, 1000.0], [0.0, 0.0]], b=[1.0, -0.5])
    array([ 9.99306853e+02, -6.93147181e-01])
    """
    x = as_float(x, "x")
    rows = rows_of(x.shape, axis)
    keepdims = _options.as_bool(keepdims, "keepdims")
    shape = rows.keepdims()[: x.ndim] if keepdims else rows.kept
    op, beside, fill = "logsumexp", (), None
    if b is not None:
        b = as_factors(b, x)
        op, beside = "weighted_logsumexp", (b if where is None else np.where(as_mask(where, x.shape), b, 0),)
    elif where is not None:
        beside, fill = (as_mask(where, x.shape),), -np.inf
    beside = [rows.view(a) if fill is None else rows.loose_view(a) for a in beside]
    result = Result(shape, x.dtype, rows.reduced, out=out, inputs=(x,), beside=beside)
    _run(op, backend, rows, (rows.view(x), *beside, result.buffer), num_threads, fill)
    if not x.size:
        result.buffer[...] = -np.inf
    return result.finish()


@front_door
@also_on_device
def softmax_vjp(y, g, /, axis=-1, *, out=None, backend=None, num_threads=None):
    """Vector-Jacobian product of softmax, from its output ``y``: ``dx_i = y_i * (g_i - sum_j g_j y_j)``.

    Takes the forward output ``y = softmax(x)``, never the logits. This is the backward pass: ``g``
    is the gradient of a loss with respect to ``y``, the result the gradient with respect to ``x``.
    The sum is formed around the cotangent of the row's dominant entry, so that a saturated row keeps
    its digits and a constant ``g`` gives exactly 0.

    Parameters
    ----------
    y : array_like
        A softmax output.
    g : array_like
        The cotangent, of the same shape.
    axis, backend, num_threads
        As for `softmax`.
    out : ndarray, optional
        Of the result's shape and dtype. May be ``y`` or ``g`` itself.

    Returns
    -------
    ndarray
        Of the shape of ``y`` and the result type of both dtypes.

    Raises
    ------
    ValueError
        ``g`` has another shape than ``y``, and as for `softmax`.
    TypeError, numpy.exceptions.AxisError, BackendUnavailable
        As for `softmax`.

    Examples
    --------
    >>> import fastsoftmax as fs
    >>> fs.softmax_vjp([0.5, 0.5], [1.0, 0.0])
    array([ 0.25, -0.25])
    """
    return _derivative("softmax_vjp", {"y": y, "g": g}, axis, out, backend, num_threads)


@front_door
@also_on_device
def softmax_jvp(y, t, /, axis=-1, *, out=None, backend=None, num_threads=None):
    """Jacobian-vector product of softmax, from its output ``y``: ``dy_i = y_i * (t_i - sum_j t_j y_j)``.

    Takes the forward output ``y = softmax(x)``, never the logits. The Jacobian is symmetric, so these
    are the numbers of `softmax_vjp`.

    Parameters
    ----------
    y : array_like
        A softmax output.
    t : array_like
        The tangent, of the same shape.
    axis, out, backend, num_threads
        As for `softmax_vjp`.

    Returns
    -------
    ndarray
        Of the shape of ``y`` and the result type of both dtypes.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError, BackendUnavailable
        As for `softmax_vjp`.

    Examples
    --------
    >>> import fastsoftmax as fs
    >>> fs.softmax_jvp([0.5, 0.5], [1.0, 0.0])
    array([ 0.25, -0.25])
    """
    return _derivative("softmax_vjp", {"y": y, "t": t}, axis, out, backend, num_threads)


@front_door
@also_on_device
def log_softmax_vjp(logy, g, /, axis=-1, *, out=None, backend=None, num_threads=None):
    """Vector-Jacobian product of log-softmax, from its output: ``dx_i = g_i - exp(logy_i) * sum_j g_j``.

    Takes the forward output ``logy = log_softmax(x)``, never the logits.

    Parameters
    ----------
    logy : array_like
        A log-softmax output.
    g : array_like
        The cotangent, of the same shape.
    axis, backend, num_threads
        As for `softmax`.
    out : ndarray, optional
        Of the result's shape and dtype. May be ``logy`` or ``g`` itself.

    Returns
    -------
    ndarray
        Of the shape of ``logy`` and the result type of both dtypes.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError, BackendUnavailable
        As for `softmax_vjp`.

    Examples
    --------
    >>> import numpy as np, fastsoftmax as fs
    >>> fs.log_softmax_vjp(np.log([0.5, 0.5]), [1.0, 0.0])
    array([ 0.5, -0.5])
    """
    return _derivative("log_softmax_vjp", {"logy": logy, "g": g}, axis, out, backend, num_threads)


@front_door
@also_on_device
def log_softmax_jvp(logy, t, /, axis=-1, *, out=None, backend=None, num_threads=None):
    """Jacobian-vector product of log-softmax, from its output: ``t_i - sum_j exp(logy_j) * t_j``.

    Takes the forward output ``logy = log_softmax(x)``, never the logits.

    Parameters
    ----------
    logy : array_like
        A log-softmax output.
    t : array_like
        The tangent, of the same shape.
    axis, out, backend, num_threads
        As for `log_softmax_vjp`.

    Returns
    -------
    ndarray
        Of the shape of ``logy`` and the result type of both dtypes.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError, BackendUnavailable
        As for `softmax_vjp`.

    Examples
    --------
    >>> import numpy as np, fastsoftmax as fs
    >>> fs.log_softmax_jvp(np.log([0.5, 0.5]), [1.0, 0.0])
    array([ 0.5, -0.5])
    """
    return _derivative("log_softmax_jvp", {"logy": logy, "t": t}, axis, out, backend, num_threads)


@front_door
@also_on_device
def softmax_solve(y, b, /, axis=-1, *, ridge=0.0, out=None, backend=None, num_threads=None):
    """Solution of a system with the Jacobian of softmax: ``(diag(y) - y y^T + ridge I) v = b`` for each row.

    Takes the forward output ``y = softmax(x)``, never the logits. By Sherman and Morrison (Annals of
    Mathematical Statistics 21, 1950) it is ``v_i = (b_i + c y_i) / (y_i + ridge)``, where
    ``c = sum_j w_j b_j / (ridge * sum_j w_j)`` and ``w_j = y_j / (y_j + ridge)``. Formed so that nothing
    cancels but entries of ``b``: within a few eps, where LAPACK loses a digit for each that ``ridge`` is
    smaller.

    Parameters
    ----------
    y : array_like
        A softmax output. Of a row that sums to ``s``, not quite 1, ``y y^T / s`` stands for ``y y^T``.
    b : array_like
        The right-hand side, of the same shape.
    axis, backend, num_threads
        As for `softmax`.
    ridge : float
        What is added to the diagonal, 0 or more, rounded to the dtype that is computed in. With 0 the matrix
        is singular: products with it sum to 0. So must each row of ``b``, to 16 ULP of its entries in its
        own dtype, and where ``y`` is 0 ``b`` has to be 0. Of all solutions ``v`` is the one of least norm.
    out : ndarray, optional
        Of the result's shape and dtype. May be ``y`` or ``b`` itself.

    Returns
    -------
    ndarray
        Of the shape of ``y`` and the result type of both dtypes. A row of which ``y`` or ``b`` holds NaN or
        an infinity is all NaN; one whose solution is beyond the range of the dtype is not finite.

    Raises
    ------
    ValueError
        ``b`` has another shape than ``y``; ``ridge`` is negative or not finite; a row of ``b`` has no
        solution with ``ridge=0``, named with its sum; and as for `softmax`. Nothing was written.
    TypeError
        ``ridge`` is no number, and as for `softmax`.
    numpy.exceptions.AxisError, BackendUnavailable
        As for `softmax`.

    Examples
    --------
    >>> import numpy as np, fastsoftmax as fs
    >>> fs.softmax_solve([0.5, 0.5], [0.5, -0.5])
    array([ 1., -1.])
    >>> y = fs.softmax(np.array([40.0, 0.0]))
    >>> fs.softmax_solve(y, fs.softmax_vjp(y, [1.0, 0.0]))
    array([ 0.5, -0.5])
    >>> fs.softmax_solve([0.5, 0.5], [1.0, 0.0], ridge=0.5)
    array([1.5, 0.5])
    """
    b = as_float(b, "b")
    own = b.dtype
    y, b = as_floats(y=y, b=b)
    same_shape("y", y, "b", b)
    ridge = _options.as_ridge(ridge, computed_in(y.dtype))
    rows = rows_of(y.shape, axis)
    result = rows.result(y.shape, y.dtype, out=out, inputs=(y, b))
    args = rows.view(y), rows.view(b), ridge, result.buffer
    if ridge == 0:
        check_solvable(*args[:2], rows, own, num_threads)
    _run("softmax_solve", backend, rows, args, num_threads)
    return result.finish()


@front_door
@also_on_device
def softmax_jacobian(y, /, axis=-1, *, layout="batched", out=None, backend=None, num_threads=None):
    """Jacobian of softmax, from its output ``y``: ``J_ij = y_i * ((i == j) - y_j)`` for each row.

    Takes the forward output ``y = softmax(x)``, never the logits. It is ``diag(y) - y y^T``, with
    the diagonal of a dominant entry formed from the others, ``y_k * sum_(j != k) y_j``.

    Parameters
    ----------
    y : array_like
        A softmax output.
    axis, backend, num_threads
        As for `softmax`.
    layout : {"batched", "dense", "sparse", "operator", "diagonal"}
        What to return. Rows do not depend on each other, so all but one block a row is zero.
    out : ndarray, optional
        For "batched", "dense" and "diagonal": where to put the result.

    Returns
    -------
    ndarray, scipy.sparse.bsr_array or scipy.sparse.linalg.LinearOperator
        For ``y`` of shape ``(..., n)`` after ``axis`` is moved last, with ``m`` rows in all:
        "batched" gives ``(..., n, n)``, one block a row; "dense" gives ``(..., n, ..., n)``, as
        `autograd.jacobian` does; "sparse" and "operator" give shape ``(m * n, m * n)``, the latter
        multiplying by `softmax_vjp` without any block being formed, with `softmax_solve` as its method
        ``solve(b, ridge=0.0)``. SciPy makes these two.
        "diagonal" gives ``y_i * (1 - y_i)`` alone, of the shape of ``y``.

    Raises
    ------
    MemoryError
        A "dense" result that cannot fit in memory; nothing was allocated.
    ImportError
        "sparse" or "operator" without SciPy.
    ValueError
        An unknown ``layout``, or ``out`` with one that takes none, and as for `softmax`.
    TypeError, numpy.exceptions.AxisError, BackendUnavailable
        As for `softmax`.

    Examples
    --------
    >>> import fastsoftmax as fs
    >>> fs.softmax_jacobian([0.5, 0.5])
    array([[ 0.25, -0.25],
           [-0.25,  0.25]])
    >>> fs.softmax_jacobian([[0.5, 0.5], [1.0, 0.0]], layout="dense").shape
    (2, 2, 2, 2)
    >>> fs.softmax_jacobian(fs.softmax([40.0, 0.0]), layout="diagonal")
    array([4.24835426e-18, 4.24835426e-18])
    """
    return _jacobian("softmax", {"y": y}, axis, layout, out, backend, num_threads)


@front_door
@also_on_device
def log_softmax_jacobian(logy, /, axis=-1, *, layout="batched", out=None, backend=None, num_threads=None):
    """Jacobian of log-softmax, from its output: ``J_ij = (i == j) - exp(logy_j)`` for each row.

    Takes the forward output ``logy = log_softmax(x)``, never the logits. The diagonal keeps its digits
    where ``logy`` is near 0.

    Parameters
    ----------
    logy : array_like
        A log-softmax output.
    axis, backend, num_threads
        As for `softmax`.
    layout : {"batched", "dense", "sparse", "operator", "diagonal"}
        As for `softmax_jacobian`; the operator multiplies by `log_softmax_jvp`, its transpose by
        `log_softmax_vjp`, and "diagonal" is ``1 - exp(logy)``.
    out : ndarray, optional
        For "batched", "dense" and "diagonal": where to put the result.

    Returns
    -------
    ndarray, scipy.sparse.bsr_array or scipy.sparse.linalg.LinearOperator
        As from `softmax_jacobian`.

    Raises
    ------
    MemoryError, ImportError, ValueError, TypeError, numpy.exceptions.AxisError, BackendUnavailable
        As for `softmax_jacobian`.

    Examples
    --------
    >>> import numpy as np, fastsoftmax as fs
    >>> fs.log_softmax_jacobian(np.log([0.5, 0.5]))
    array([[ 0.5, -0.5],
           [-0.5,  0.5]])
    >>> fs.log_softmax_jacobian(fs.log_softmax([40.0, 0.0]), layout="diagonal")
    array([4.24835426e-18, 1.00000000e+00])
    """
    return _jacobian("log_softmax", {"logy": logy}, axis, layout, out, backend, num_threads)


@front_door
@also_on_device
def cross_entropy(
    x,
    labels,
    /,
    axis=-1,
    *,
    weight=None,
    sample_weight=None,
    ignore_index=None,
    label_smoothing=0.0,
    reduction="mean",
    backend=None,
    num_threads=None,
):
    """Cross-entropy of softmax: ``-log softmax(x)[label]``, or ``-sum_j t_j log softmax(x)_j``.

    Formed as ``(max x - x_label) + log1p(sum of exp of the others)``, exact to 4 ULP also for a
    confident and right prediction, where ``-log(softmax(x))`` gives 0. Weights, ignored labels,
    smoothing and reductions are PyTorch's ``torch.nn.functional.cross_entropy``, except that a class of
    weight 0 takes no part even where its logit is -inf; PyTorch's loss is NaN there.

    Parameters
    ----------
    x : array_like
        Logits.
    labels : array_like
        The class of each row, integers of the shape of ``x`` without ``axis``; or probabilities ``t``, floats
        of the shape of ``x``, which are not made to sum to 1.
    axis, backend, num_threads
        As for `softmax`.
    weight : array_like, optional
        One factor for each class, by which its rows' losses are multiplied, or its terms of them. As all
        beside ``x`` converted to the dtype of ``x``, or to float32 for half precision.
    sample_weight : array_like, optional
        One factor for each row, of the shape of ``x`` without ``axis``. A row of weight 0 takes no part,
        whatever is in it.
    ignore_index : int, optional
        Rows with this label take no part: their loss is 0. Not with probabilities.
    label_smoothing : float
        Between 0 and 1: this share of each target is spread evenly over all classes.
    reduction : {"mean", "sum", "none"}
        Over the rows; "none" returns one value a row, "mean" divides by the sum of the rows' weights,
        ignored rows left out. With probabilities those are the ``sample_weight`` alone.

    Returns
    -------
    scalar or ndarray
        The loss, of the float dtype of ``x``. The mean of no rows, or of ignored ones only, is
        NaN, as in PyTorch; so is one by weights that sum to 0.

    Raises
    ------
    TypeError
        ``labels`` are of another dtype, ``ignore_index`` is no int or ``label_smoothing`` no number, and as
        for `softmax`.
    IndexError
        A label is negative or not below the number of classes; names the first such position. On a
        CUDA device, which no call waits for, that row's loss and gradient are NaN instead.
    ValueError
        ``labels`` or weights have another shape, ``reduction`` is unknown, ``label_smoothing`` not between
        0 and 1 or ``ignore_index`` given with probabilities, and as for `softmax`.
    numpy.exceptions.AxisError, BackendUnavailable
        As for `softmax`.

    Examples
    --------
    >>> import fastsoftmax as fs
    >>> print(fs.cross_entropy([[40.0, 0.0]], [0]))
    4.248354255291589e-18
    >>> print(fs.cross_entropy([[1.0, 0.0], [0.0, 0.0]], [[0.5, 0.5], [1.0, 0.0]], sample_weight=[1, 0]))
    0.8132616875182228
    """
    options = weight, sample_weight, ignore_index, label_smoothing, reduction
    x, rows, targets, divisor, _ = _classification(x, labels, axis, *options)
    loss = np.zeros(rows.reduced, computed_in(x.dtype))  # that of no classes
    _run(targets.op("cross_entropy"), backend, rows, (rows.view(x), *targets, loss), num_threads)
    return _reduce(loss.reshape(rows.kept), x.dtype, divisor)


@front_door
@also_on_device
def cross_entropy_with_grad(
    x,
    labels,
    /,
    axis=-1,
    *,
    weight=None,
    sample_weight=None,
    ignore_index=None,
    label_smoothing=0.0,
    reduction="mean",
    out=None,
    backend=None,
    num_threads=None,
):
    """`cross_entropy` and its gradient to ``x`` in one pass: ``dx = (softmax(x) - onehot(label)) / m``.

    With probabilities ``t`` it is ``((sum_j t_j) softmax(x) - t) / m``. ``m`` is the number of rows (the sum
    of their weights) for ``reduction="mean"`` and 1 otherwise; for ``"none"`` the gradient is that of each
    row's own loss. ``softmax - 1`` at the label, or at the largest logit, is formed without cancellation.

    Parameters
    ----------
    x, labels, axis, weight, sample_weight, ignore_index, label_smoothing, reduction, backend, num_threads
        As for `cross_entropy`.
    out : ndarray, optional
        Where to put the gradient. May be ``x`` itself.

    Returns
    -------
    loss : scalar or ndarray
        As from `cross_entropy`.
    dx : ndarray
        Of the shape and float dtype of ``x``.

    Raises
    ------
    TypeError, ValueError, IndexError, numpy.exceptions.AxisError, BackendUnavailable
        As for `cross_entropy`.

    Examples
    --------
    >>> import fastsoftmax as fs
    >>> loss, dx = fs.cross_entropy_with_grad([[0.0, 0.0]], [1])
    >>> print(loss)
    0.6931471805599453
    >>> dx
    array([[ 0.5, -0.5]])
    """
    options = weight, sample_weight, ignore_index, label_smoothing, reduction
    x, rows, targets, divisor, scale = _classification(x, labels, axis, *options)
    loss = np.zeros(rows.reduced, computed_in(x.dtype))  # that of no classes
    result = rows.result(x.shape, x.dtype, out=out, inputs=(x,), beside=targets.arrays())
    args = (rows.view(x), *targets, scale, loss, result.buffer)
    _run(targets.op("cross_entropy_with_grad"), backend, rows, args, num_threads)
    return _reduce(loss.reshape(rows.kept), x.dtype, divisor), result.finish()


@also_on_device
def segment_softmax(x, ptr, /, *, out=None, backend=None, num_threads=None):
    """Softmax of ragged rows: of the entries ``ptr[k]:ptr[k + 1]`` of ``x`` for each ``k``.

    Each segment has the bits that `softmax` gives it alone. ``ptr`` is what sparse formats call ``indptr``:
    the softmax over the neighbours in a graph, or over the alternatives of each choice.

    Parameters
    ----------
    x : array_like
        Logits, of one dimension; of the dtypes that `softmax` takes.
    ptr : array_like of int
        Where each segment begins, and where the last one ends: from 0 to the length of ``x``, not
        falling. Segments may be empty.
    out : ndarray, optional
        Where to put the result: its exact shape and dtype. May be ``x`` itself.
    backend, num_threads
        As for `softmax`; threads share out entries, and none divides a segment.

    Returns
    -------
    ndarray
        Of the shape and float dtype of ``x``; special values as from `softmax`, segment by segment.

    Raises
    ------
    TypeError
        ``ptr`` is not of an integer dtype, and as for `softmax`.
    ValueError
        ``x`` or ``ptr`` have another number of dimensions; ``ptr`` does not begin with 0, falls, or does not
        end with the length of ``x``: names the first such position; and as for `softmax`.
    BackendUnavailable
        ``backend`` cannot run here or has no such op, as "cuda" has not.

    Examples
    --------
    >>> import numpy as np, fastsoftmax as fs
    >>> fs.segment_softmax([0.0, 0.0, 1000.0, 5.0, 0.0], [0, 2, 2, 4, 5])
    array([0.5, 0.5, 1. , 0. , 1. ])
    """
    return _of_segments("segment_softmax", {"x": x}, ptr, out, backend, num_threads)


@also_on_device
def segment_log_softmax(x, ptr, /, *, out=None, backend=None, num_threads=None):
    """Logarithm of softmax of ragged rows: `log_softmax` of the entries ``ptr[k]:ptr[k + 1]`` for each ``k``.

    Parameters
    ----------
    x, ptr, out, backend, num_threads
        As for `segment_softmax`.

    Returns
    -------
    ndarray
        Of the shape and float dtype of ``x``; special values as from `log_softmax`, segment by segment.

    Raises
    ------
    TypeError, ValueError, BackendUnavailable
        As for `segment_softmax`.

    Examples
    --------
    >>> import fastsoftmax as fs
    >>> fs.segment_log_softmax([40.0, 0.0, 7.0], [0, 2, 3])
    array([-4.24835426e-18, -4.00000000e+01,  0.00000000e+00])
    """
    return _of_segments("segment_log_softmax", {"x": x}, ptr, out, backend, num_threads)


@also_on_device
def segment_logsumexp(x, ptr, /, *, out=None, backend=None, num_threads=None):
    """Logarithm of the sum of exponentials of ragged rows: `logsumexp` of each segment.

    Parameters
    ----------
    x, ptr, backend, num_threads
        As for `segment_softmax`.
    out : ndarray, optional
        Of the result's shape and dtype.

    Returns
    -------
    ndarray
        One value a segment, of the float dtype of ``x``: -inf of an empty one; special values as from
        `logsumexp`.

    Raises
    ------
    TypeError, ValueError, BackendUnavailable
        As for `segment_softmax`.

    Examples
    --------
    >>> import fastsoftmax as fs
    >>> fs.segment_logsumexp([1000.0, 1000.0, 7.0], [0, 2, 2, 3])
    array([1000.69314718,          -inf,    7.        ])
    """
    return _of_segments("segment_logsumexp", {"x": x}, ptr, out, backend, num_threads)


@also_on_device
def segment_softmax_vjp(y, g, ptr, /, *, out=None, backend=None, num_threads=None):
    """Vector-Jacobian product of `segment_softmax`, from its output: `softmax_vjp` of each segment.

    Takes the forward output ``y = segment_softmax(x, ptr)``, never the logits:
    ``dx_i = y_i * (g_i - sum_j g_j y_j)``, where ``j`` goes over the segment of ``i``.

    Parameters
    ----------
    y : array_like
        The output, of one dimension.
    g : array_like
        The cotangent, of the same shape.
    ptr, backend, num_threads
        As for `segment_softmax`.
    out : ndarray, optional
        Of the result's shape and dtype. May be ``y`` or ``g`` itself.

    Returns
    -------
    ndarray
        Of the shape of ``y`` and the result type of both dtypes.

    Raises
    ------
    ValueError
        ``g`` has another shape than ``y``, and as for `segment_softmax`.
    TypeError, BackendUnavailable
        As for `segment_softmax`.

    Examples
    --------
    >>> import fastsoftmax as fs
    >>> fs.segment_softmax_vjp([0.5, 0.5, 1.0], [1.0, 0.0, 1.0], [0, 2, 3])
    array([ 0.25, -0.25,  0.  ])
    """
    return _of_segments("segment_softmax_vjp", {"y": y, "g": g}, ptr, out, backend, num_threads)


def _of_segments(op, inputs, ptr, out, backend, num_threads):
    """An op of ragged rows: what each is made of, by name, and where they begin."""
    arrays, names = as_floats(**inputs), list(inputs)
    first, dtype = arrays[0], arrays[0].dtype
    if first.ndim != 1:
        raise ValueError(f"{names[0]} has shape {first.shape}; expected one dimension, segment after segment")
    same_shape(names[0], first, names[-1], arrays[-1])
    ptr = as_ptr(ptr, first.size)
    rows = rows_of(first.shape, -1)
    if op == "segment_logsumexp":  # which kernels do not write along with what they read
        segments = ptr.size - 1
        result = Result((segments,), dtype, (1, segments), out=out, beside=(*arrays, ptr))
    else:
        result = rows.result(first.shape, dtype, out=out, inputs=arrays, beside=(ptr,))
    kernel = _kernel(op, backend, dtype)
    _threads.run_segments(kernel, (*map(rows.view, arrays), ptr, result.buffer), num_threads)
    if not first.size:
        result.buffer[...] = -np.inf
    return result.finish()


def _forward(op, fill, x, axis, out, where, backend, num_threads):
    """An op of one array whose result has its shape, ``fill`` where masked out."""
    x = as_float(x, "x")
    rows = rows_of(x.shape, axis)
    mask = () if where is None else (rows.loose_view(as_mask(where, x.shape)),)
    result = rows.result(x.shape, x.dtype, out=out, inputs=(x,), beside=mask)
    args = (rows.view(x), *mask, result.buffer)
    _run(op, backend, rows, args, num_threads, None if where is None else fill)
    return result.finish()


_OPERATOR = {
    "softmax": (softmax_jvp, softmax_vjp, softmax_solve),
    "log_softmax": (log_softmax_jvp, log_softmax_vjp),
}


def _jacobian(forward, output, axis, layout, out, backend, num_threads):
    """That of an op, from its output by name."""
    _layouts.check(layout, out)
    ((name, y),) = output.items()
    y, op = as_float(y, name), f"{forward}_jacobian"
    if layout == "diagonal":
        return _of_its_shape(f"{op}_diagonal", y, axis, out, backend, num_threads)
    rows = rows_of(y.shape, axis, last=True)

    def blocks(out=None):
        outer, n, _ = rows.canonical
        result = Result((*rows.kept, n, n), y.dtype, (outer, n, n), out=out, inputs=(y,))
        _run(op, backend, rows, (rows.view(y), result.buffer), num_threads)
        return result.finish()

    if layout == "batched":
        return blocks(out)
    if layout == "dense":
        return _layouts.dense(blocks, rows, y, out)
    if layout == "sparse":
        return _layouts.sparse(blocks(), rows)
    registry.kernel(f"{forward}_vjp", backend)  # wrong ones raise now, not at the first product
    _threads.limit(num_threads)
    functions = (partial(op, backend=backend, num_threads=num_threads) for op in _OPERATOR[forward])
    return _layouts.operator(rows, y, *functions)


def _of_its_shape(op, a, axis, out, backend, num_threads):
    """An op of one array whose result has its shape."""
    rows = rows_of(a.shape, axis)
    result = rows.result(a.shape, a.dtype, out=out, inputs=(a,))
    _run(op, backend, rows, (rows.view(a), result.buffer), num_threads)
    return result.finish()


def _derivative(op, inputs, axis, out, backend, num_threads):
    """A product with the Jacobian: the forward output and a vector of its shape, by name."""
    (first, second), arrays = inputs, as_floats(**inputs)
    same_shape(first, arrays[0], second, arrays[1])
    rows = rows_of(arrays[0].shape, axis)
    result = rows.result(arrays[0].shape, arrays[0].dtype, out=out, inputs=arrays)
    _run(op, backend, rows, (*map(rows.view, arrays), result.buffer), num_threads)
    return result.finish()


def _run(op, backend, rows, args, num_threads, fill=None):
    _threads.run(_kernel(op, backend, args[0].dtype, fill), rows.canonical, args, num_threads)


def _kernel(op, backend, dtype, fill=None):
    """The one that runs, around it what converts and masks arrays if they need it."""
    kernel = registry.kernel(op, backend)
    return Converted(op, kernel, fill) if is_half(dtype) or fill is not None else kernel


def _classification(x, labels, axis, weight, sample_weight, ignore_index, label_smoothing, reduction):
    """``x``, its rows, what kernels get beside it, what the sum of losses is divided by, if summed, and the
    factor of gradients."""
    ignore_index, smoothing = _options.check_loss(ignore_index, label_smoothing, reduction)
    x = as_float(x, "x")
    rows = rows_of(x.shape, axis)
    targets = targets_of(rows, x.dtype, labels, weight, sample_weight, ignore_index, smoothing)
    if reduction == "mean":
        return x, rows, *targets.mean()
    return x, rows, targets, None if reduction == "none" else 1.0, 1.0


def _reduce(loss, dtype, divisor):
    # The mean of no rows is 0 / 0, NaN as in PyTorch.
    with floating_point_mode(), np.errstate(all="ignore"):
        if divisor is None:
            return loss.astype(dtype, copy=False)[()]
        return (exact_sum(loss) / divisor).astype(dtype)
