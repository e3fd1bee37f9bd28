"""The digital twin: `physics.py` is pure arithmetic, `devices.py` gives it time and the device interfaces."""
