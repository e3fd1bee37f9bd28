"""Alice: prepares symbols from a random stream, drives the modulator, and distils key with Bob.

Imports `common`, `classical_channel` and `hardware`; never `bob`. `session.py` reads aloud like the path of the data.
"""
