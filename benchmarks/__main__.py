"""Run every benchmark at full size: ``python -m benchmarks``."""

from benchmarks import blind, endtoend, seams

endtoend.main()
print()
seams.main()
print()
blind.main()
