"""Measures of sets of pictures in groups, their tables, and the code that the studies' measure stages share."""
