"""What rate to expect, what to set, and the figures of the source paper from the node's own arithmetic.

Imports `security`, `postprocessing` and `kernels`; never the daemons. Start with `link_model.py`.
"""
