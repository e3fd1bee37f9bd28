"""The stages between detections and secret key, in the order of the data: one file a stage, and one package.

sifting, `postprocessing.reconciliation` (with ldpc_codes), verification, estimation, amplification. Imports `kernels`,
`security` and the values; never the protocol, the channel or a device.
"""
