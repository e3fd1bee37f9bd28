"""Bob: synchronises to the light, gates the detections, and distils key with Alice.

Imports `common`, `classical_channel` and `hardware`; never `alice`. `session.py` reads aloud like the path of the data.
"""
