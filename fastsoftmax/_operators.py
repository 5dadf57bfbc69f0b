"""The Jacobians as SciPy's operators: products alone, and of softmax solutions. Imported where SciPy is."""

import numpy as np
from scipy.sparse.linalg import LinearOperator

from fastsoftmax._asarray import asarray


class Jacobian(LinearOperator):
    """That of the rows of an output, of which ``jvp`` and ``vjp`` make products."""

    def __init__(self, output, jvp, vjp):
        super().__init__(output.dtype, (output.size, output.size))
        self._output, self._jvp, self._vjp = output, jvp, vjp

    def _matvec(self, v):
        return self._jvp(self._output, v.reshape(self._output.shape)).ravel()

    def _rmatvec(self, v):
        return self._vjp(self._output, v.reshape(self._output.shape)).ravel()


class SoftmaxJacobian(Jacobian):
    """That of softmax, to which ``softmax_solve`` has the inverse."""

    def __init__(self, output, jvp, vjp, solve):
        super().__init__(output, jvp, vjp)
        self._solve = solve

    def solve(self, b, ridge=0.0):
        """The ``v`` of ``(J + ridge I) v = b``, by `fastsoftmax.softmax_solve`.

        Parameters
        ----------
        b : array_like
            Of shape ``(m * n,)``, or ``(m * n, k)``: a system a column.
        ridge : float
            As for `fastsoftmax.softmax_solve`.

        Returns
        -------
        ndarray
            Of the shape of ``b``.

        Raises
        ------
        ValueError
            ``b`` has another shape, and as for `fastsoftmax.softmax_solve`.
        TypeError
            As for `fastsoftmax.softmax_solve`.

        Examples
        --------
        >>> import fastsoftmax as fs
        >>> J = fs.softmax_jacobian([[0.5, 0.5], [1.0, 0.0]], layout="operator")
        >>> J.solve([0.5, -0.5, 0.0, 0.0])
        array([ 1., -1.,  0.,  0.])
        """
        b = asarray(b, "b")
        if b.ndim not in (1, 2) or len(b) != self.shape[0]:
            size = self.shape[0]
            raise ValueError(f"b has shape {b.shape}; expected ({size},), or ({size}, k) for k systems")
        columns = b.reshape(*self._output.shape, *b.shape[1:] or (1,))
        y = np.broadcast_to(self._output[:, :, None], columns.shape)
        return self._solve(y, columns, 1, ridge=ridge).reshape(b.shape)
