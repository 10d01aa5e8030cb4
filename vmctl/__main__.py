"""`python -m vmctl`."""

import sys

from vmctl.cli import main

sys.exit(main())
