"""Entry point of ``python -m tilepipe``."""

from tilepipe.cli.main import main

if __name__ == "__main__":
    main()
