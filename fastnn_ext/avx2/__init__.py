"""The modules of `fastnn_ext/pyx`, compiled for AVX2 and FMA; there is no source here."""
