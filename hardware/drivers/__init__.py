"""Real devices, one file each; a vendor's package is imported when a device is opened: others need not have it.

What several of them share stands beside them: connections in `scpi.py`, `serial_port.py` and `sdk.py`, waveforms in
`awg.py` and `waveform.py`, channels in `inputs.py`, the class of random sources in `random_class.py`. `README.md` has a
worked example.
"""
