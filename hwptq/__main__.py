"""python -m hwptq: the command line."""

from hwptq.cli.supervise import main

if __name__ == "__main__":
    main()
