"""What every test shares: a home of its own, never the developer's, and no slow-machine flakiness."""

from __future__ import annotations

import os
import tempfile

from hypothesis import HealthCheck, settings

# Before any test module imports assets.partitions, which reads the home when it is imported.
_home = tempfile.TemporaryDirectory(prefix="adseq-tests-")  # removed when the interpreter ends
os.environ["ADSEQ_HOME"] = _home.name
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
KEPT = ("ADSEQ_HOME", "ADSEQ_SHARED")  # the second is where the independent scorer lies
for name in [name for name in os.environ if name.startswith("ADSEQ_") and name not in KEPT]:
    del os.environ[name]

settings.register_profile("adseq", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("adseq")
