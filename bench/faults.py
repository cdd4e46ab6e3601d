from typing import NamedTuple
class Fault(NamedTuple):
    name: str
    text: str
    replacement: str
    tests: str
FAULTS: tuple[Fault, ...] = ()
