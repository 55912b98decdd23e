"""The benchmark: what the product promises about speed and memory, each measured against a yardstick in the same run.

How it measures. Servers, clients and yardsticks are processes of their own that talk over loopback, as they would in
use. Sides that are compared take turns in short rounds (A B A B …), so that whatever else the machine does falls on
all of them. A figure is the median over all rounds; the ratio is that of the medians; beside it stands the range of
the rounds' own ratios, which shows how far to trust it. Figures of different runs are not comparable: the machine is
never the same twice.

What it does not measure. A network other than loopback, TLS, a GPU (that has a command of its own), or the time that
a person waits for a cold start. A missed bar prints MISS and is no error: speed depends on the machine, correctness
does not.

    python -m tests.bench                 everything, some minutes
    python -m tests.bench --only W1,W2    some of it
    python -m tests.bench --quick         shorter rounds, rougher figures
"""
