"""Run every benchmark at full size: ``python -m benchmarks``."""

from benchmarks import endtoend, seams

endtoend.main()
print()
seams.main()
