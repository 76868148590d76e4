"""The program: the command `bbmmopt`, and `python -m bbmmopt`."""

import sys


def main() -> None:
    """Run the command of the process's arguments, and end the process with its exit code.

    What the commands need is imported in here: Ctrl-C that comes meanwhile is no traceback either.
    """
    try:
        from bbmmopt.cli import main

        main(prog_name="bbmmopt")
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)  # 128 + SIGINT, as shells have it


if __name__ == "__main__":
    main()
