"""The numba leaves: arrays in, arrays out; they know each other and ``common.errors``, nothing else of ours.

Every kernel has a slow, obviously correct twin in `reference_tags.py`, `reference_amplification.py` or
`reference_health.py`, or in the test that compares the two.
"""
