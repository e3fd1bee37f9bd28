"""The asyncio shell that both daemons share: what is not pure in `common`, beside its tools.

`runtime.py` carries out what a session asks for, `compute.py` has the worker threads, `keystore.py` the database,
`etsi014.py` the interface for applications (HTTPS), `recorder.py` and `replay.py` the flight recorder. Imports `keys`,
`kernels`, `postprocessing` and `protocol`. Start with `node.py`.
"""
