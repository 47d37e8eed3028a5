"""Atelier: the methods of five papers on latent diffusion models, rerun under one common protocol."""
