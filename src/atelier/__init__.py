"""Atelier: five papers that change what a latent diffusion model paints, rerun on common ground."""
