"""Imports the libraries that every worker needs, so that a fork server imports them once for all workers.

Nothing here may start CUDA or threads that compute; a fault is left to the worker, which can tell of it.
"""

from __future__ import annotations

import gc
from contextlib import suppress

from pipeline.loading.offline import import_pipelines

gc.disable()  # importing makes no garbage, and looking for it takes a third of the time
try:
    with suppress(Exception):
        import_pipelines()
        import jobs.engines.worker_main  # noqa: F401
finally:
    gc.freeze()
    gc.enable()
