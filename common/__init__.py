"""What must be bit-identical on both ends of the link: values, kernels, proof arithmetic, protocol, keys.

``common`` imports nothing of ``alice``, ``bob``, ``classical_channel`` or ``hardware``. Everything outside
``common.node`` and ``common.cli`` is pure: arrays and values in, values out. Start with ``datatypes`` (what flows),
then ``postprocessing`` (the stages in the order of the data) and ``security/README.md`` (why the key is secret).
"""
