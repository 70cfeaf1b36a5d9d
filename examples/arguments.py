"""The command line that the examples share: each draws a picture."""

from tconv.commands import CommandError, check_drawing, check_writeable


def parsed(parser):
    """Return the options as a dict; end the program unless its files can be written."""
    options = vars(parser.parse_args())
    try:
        check_drawing("--picture", options["picture"])
        if options.get("save") is not None:
            if not options["save"].endswith(".npz"):  # NumPy would add it
                raise CommandError(f"--save {options['save']} must end in .npz")
            check_writeable("--save", options["save"])
    except CommandError as error:
        parser.error(str(error))
    return options
