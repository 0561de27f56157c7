"""`python -m brickless.device.link` is the agent."""

from __future__ import annotations

import sys

from brickless.device.link.main import main

sys.exit(main())
