"""Benchmarks: every kernel by every backend, and by the rivals installed, in turns; `python -m fastnn bench`.

`rows`
    what is measured: the workloads of the contract, and what a call costs;
`timing`
    the stopwatch, by which contenders take turns;
`worker`
    the process that measures, with its threads pinned, and writes a journal;
`record`
    from the journal to pytest-benchmark's JSON;
`results`, `compare`
    what that says: ratios with their noise, shares of the machine's `limits`, changes since an older run;
`page`
    the same for readers, as one HTML file;
`command`
    the command.

This package is installed with fastnn, so that the command works without its sources; only the rows of the rivals
(`benchmarks/rivals.py`, `networks.py`) need a checkout.
"""
