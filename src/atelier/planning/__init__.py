"""What a profile costs, from its parameters and the pipeline's own files, without running it (docs/planning.md)."""
