"""How long the long forms go on (`make chaos`): MILLSTREAM_CHAOS_S seconds each, from MILLSTREAM_CHAOS_SEED on."""

from __future__ import annotations

import os

CHAOS_S = float(os.environ.get("MILLSTREAM_CHAOS_S", "60"))
CHAOS_SEED = int(os.environ.get("MILLSTREAM_CHAOS_SEED", "1"))
DEADLINE_S = CHAOS_S * 4 + 240
