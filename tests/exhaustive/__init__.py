"""The vector exp, log1p and quotient of every build, over every argument they can meet: ``make exhaustive``.

`candidates` are what is measured, `arguments` what of; `errors` holds the references and keeps the worst.
"""
