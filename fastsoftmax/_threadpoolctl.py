"""What threadpoolctl limits, as scikit-learn and users have it do, holds for calls too.

It finds native libraries by the names of their files and has a controller set each one's number of threads.
Where it is installed it is imported with this package (5 ms), for a limit may come before the first call.
"""

from pathlib import Path

from threadpoolctl import LibController, register

from fastsoftmax import _threads
from fastsoftmax._isa import load

kernels, _ = load()


class Controller(LibController):
    """Limits calls of one thread, or task, as OpenMP's controller does."""

    user_api = internal_api = "fastsoftmax"
    filename_prefixes = (Path(kernels.__file__).resolve().name.lower(),)

    def get_num_threads(self):
        return _threads.get_num_threads()

    def set_num_threads(self, num_threads):
        _threads.limit_this_thread(num_threads)

    def get_version(self):
        import fastsoftmax

        return fastsoftmax.__version__


register(Controller)
