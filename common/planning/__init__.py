"""What rate to expect, what to set, and the figures of the source paper from the node's own arithmetic.

Imports `security` and `postprocessing`; never the daemons.
"""
