"""python -m hwptq: the command line."""

from hwptq.cli.start import main

if __name__ == "__main__":
    main()
