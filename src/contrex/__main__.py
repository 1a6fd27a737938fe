"""`python -m contrex` is the command `contrex`."""

import sys

from contrex.cli import main

sys.exit(main())
