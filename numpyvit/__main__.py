import sys

try:
    from .cli import main

    code = main()
except KeyboardInterrupt:  # before main could see to it
    code = 130
sys.exit(code)
