"""`python -m bbmmopt` is the command `bbmmopt`."""

from bbmmopt.cli import main

if __name__ == "__main__":
    main(prog_name="bbmmopt")
