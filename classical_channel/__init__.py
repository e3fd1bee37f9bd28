"""The only package that knows there is a peer: framing, authentication, the reliable stream, ZeroMQ.

Imports `common` only. Read `PROTOCOL.md`, then `channel.py`. zmq is imported in `zmq_transport.py` and nowhere else.
"""
