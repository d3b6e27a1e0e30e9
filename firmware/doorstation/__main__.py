import sys

from doorstation.cli import main

sys.exit(main())
