"""The only package that knows there is a peer: framing, authentication, the reliable stream, ZeroMQ.

Imports `common` only. Read `PROTOCOL.md`, then `channel.py`. zmq is imported in
`zmq_process.py` and nowhere else: its sockets live in a process of their own.
"""
