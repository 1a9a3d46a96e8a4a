"""Speed, seams and blind estimates at full size: ``python -m benchmarks``.

``benchmarks.restore`` and ``benchmarks.faults`` take most of an hour each and are called by name.
"""

from benchmarks import blind, endtoend, seams

endtoend.main()
print()
seams.main()
print()
blind.main()
