import os, sys

__version__ = "0.4.0"

# Threads that wait shall sleep, not take the time of a core: see nbs/plumbing/01_threads.ipynb. OpenMP reads
# this once, when PyTorch is imported; what the user has set about it is left alone.
WAIT = dict(OMP_WAIT_POLICY='PASSIVE', KMP_BLOCKTIME='0')   # of GNU's and LLVM's or Intel's OpenMP
if 'torch' not in sys.modules and not {*WAIT, 'GOMP_SPINCOUNT', 'KMP_LIBRARY'} & os.environ.keys():
    os.environ.update(WAIT)
