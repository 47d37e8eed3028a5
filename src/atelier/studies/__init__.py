"""The list of studies, in the order of pages and parameters.

A study is a folder here with ``params.py``, stages (``train``, ``sample``, ``measure``, ...), ``report.py`` and
``claims.yaml``; plus a notebook, a pipeline file and a section in every profile, all named after it. A folder that is
not listed holds claims that await their study.
"""

STUDIES = (
    "base_model",
    "art_finetuning",
    "prompt_enrichment",
    "vae_decoder",
    "signal_leak",
    "latent_perceptual",
    "pixel_space",
    "shaping",
)
