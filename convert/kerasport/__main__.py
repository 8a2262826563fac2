"""`python -m kerasport` is the command line."""

from kerasport.cli import main

if __name__ == "__main__":
    main()
