"""The stages between detections and secret key, one file per stage, in the order of the data.

sifting, reconciliation (with ldpc_codes), verification, estimation, amplification. Imports `kernels`, `security`
and the values; never the protocol, the channel or a device.
"""
