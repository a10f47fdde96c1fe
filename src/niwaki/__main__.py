"""`python -m niwaki` is the `niwaki` command, for a shell that does not have it on its path."""

from niwaki.cli import main

if __name__ == "__main__":
    main()
