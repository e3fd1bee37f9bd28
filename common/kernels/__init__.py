"""The numba leaves: arrays in, arrays out; nothing of ours is imported here except other kernels.

Every kernel has a slow, obviously correct twin in `reference.py` (or beside it) that the tests compare it with.
"""
