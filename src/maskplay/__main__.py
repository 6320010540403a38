"""`python -m maskplay` is the command `maskplay`."""

from maskplay_command import main

if __name__ == "__main__":
    main()
