"""Speed, seams and blind estimates at full size: ``python -m benchmarks``; ``make bench`` is the first of them.

``benchmarks.restore`` and ``benchmarks.faults`` take most of an hour each and are called by name.
"""

from benchmarks import blind, seams, speed

speed.main()
print()
seams.main()
print()
blind.main()
