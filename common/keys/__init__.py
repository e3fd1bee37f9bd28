"""The key manager without input or output: which key bits are pending, committed, reserved, delivered, destroyed.

Imports values only; `common.node.keystore` makes it durable and `common.node.etsi014` serves it.
"""
