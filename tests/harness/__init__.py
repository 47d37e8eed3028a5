"""Attacks on everything that Atelier reads, and kills at random moments: ``python -m tests.harness`` counts what holds.

An attack holds if what is wrong is refused in one line that names the file or the key, or left out by name; or if the
result is what it would have been without the attack.
"""
