"""Wire-level twins: servers that speak each instrument's protocol over the twin objects, with faults to inject.

The drivers reach them through PyVISA-py, pyzmq, sockets and pyserial exactly as they reach the instrument. May import
`common` and `hardware`. Start with `server.py`; `scpi.py` shows how one instrument becomes a table of commands.
"""
