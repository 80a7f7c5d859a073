"""The modules of `fastnn_ext/pyx`, compiled for what every processor of the ABI has (SSE2 on x86-64, NEON on arm64).

There is no source here.
"""
