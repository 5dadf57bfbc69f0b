"""Speed, measured beside the peers: ``make bench``, ``bench-goals``, ``bench-report`` and ``bench-gate``."""
