"""Speed, measured: what generation costs here, what simpler ways cost, and what the machine would allow. And the tests,
measured: which planted faults they notice.

    python -m bench.generation      # the same work by every contender, and our share of the machine's limit
    python -m bench.limits          # matmul peak and memory bandwidth
    python -m bench.scoring         # a label's score against a written verdict
    python -m bench.flips           # does batch, order or a shared prefix change a text?
    python -m bench.mutants         # does a test notice each of the faults in bench/faults.py?

Everything runs on the CPU. Texts stay in the cache folder; bench/results holds numbers only. docs/PERFORMANCE.md
says what they mean.
"""
