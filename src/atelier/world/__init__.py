"""Make the embedded world from scratch: pictures, base, evaluator and trunk, by ``make world``.

Studies do not need it: its results are shipped in ``data/``.
"""
