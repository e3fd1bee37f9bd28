"""Error correction of a block's sifted bits: all that decides what is disclosed, and the one place that counts it.

`interface.py` says what a block gives a reconciliation and gets of it; whoever brings another code (a chain of frames
through the whole block) implements that. `exchange.py` is the one there is: windows cut into frames, in either
direction. `frame.py` corrects one frame, `rates.py` chooses its code by the error rate that `tracker.py` follows, from
the constants of `fitted.py`, and `disclosed.py` counts. Imports `kernels`, `security`, codes and windows of
`postprocessing`, and the values; knows neither messages nor blocks. Start with `interface.py`.
"""
