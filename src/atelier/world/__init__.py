"""How the embedded world is made: pictures, base, evaluator and trunk, from nothing, by ``make world``.

Nobody needs it to rerun a study: what it made is shipped in ``data/``.
"""
