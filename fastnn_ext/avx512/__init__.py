"""The modules of `fastnn_ext/pyx`, compiled for AVX-512 F, CD, BW, DQ and VL; there is no source here."""
