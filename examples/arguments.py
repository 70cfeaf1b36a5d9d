"""The command line that the examples share: each draws a picture."""

from tconv.commands import CommandError, check_drawing


def parsed(parser):
    """Return the options as a dict; end the program unless the picture can be drawn."""
    options = vars(parser.parse_args())
    try:
        check_drawing("--picture", options["picture"])
    except CommandError as error:
        parser.error(str(error))
    return options
