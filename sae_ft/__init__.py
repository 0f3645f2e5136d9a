import os, sys

__version__ = "0.5.0"

# Threads that wait shall soon sleep, not take the time of a core: see nbs/plumbing/01_threads.ipynb. OpenMP
# reads this once, when PyTorch is imported; what the user has set about it is left alone.
WAIT = dict(OMP_WAIT_POLICY='PASSIVE', GOMP_SPINCOUNT='100000',   # GNU's: some tenths of a millisecond awake
            KMP_BLOCKTIME='1')                                   # LLVM's and Intel's: one millisecond
if 'torch' not in sys.modules and not {*WAIT, 'KMP_LIBRARY'} & os.environ.keys():
    os.environ.update(WAIT)
