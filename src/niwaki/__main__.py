"""`python -m niwaki` is the `niwaki` command, for a shell that does not have it on its path."""

from niwaki.cli.app import main

if __name__ == "__main__":
    main()
