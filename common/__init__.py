"""What both ends of the link share: values, kernels, proof arithmetic, protocol, keys; and the shell and the tool.

``common`` imports nothing of ``alice``, ``bob``, ``classical_channel`` or ``hardware``. Most of it is pure: arrays and
values in, values out; which modules are is a contract in ``pyproject.toml``. ``node`` is the shell of both daemons,
``cli`` the operator's tool, ``planning`` says what rate to expect, ``auditor`` judges certificates; ``files``,
``config_file`` and ``calibration_file`` read and write. Start with ``datatypes`` (what flows), then ``postprocessing``
(the stages in the order of the data) and ``security/README.md`` (why the key is secret).
"""
